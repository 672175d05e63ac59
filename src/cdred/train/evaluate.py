"""How good an agent is: fresh episodes, no exploration."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jaxtyping import Array, Float64, Int64, Key, PyTree

from cdred.envs.jax_vector_env import Grid
from cdred.train.divergence import finite_rows, require_plans
from cdred.train.state import EpisodeStats


class Actor(Protocol):
    """Who acts: `CompiledFns`, or whoever has these two."""

    @property
    def act(self) -> Callable[..., tuple[Any, Any]]:
        """Actions of all environments of all seeds, as `CompiledFns.act`."""
        ...

    def init_plan(self, num_seeds: int, num_envs: int) -> Any:
        """What acting remembers at an episode's first step."""
        ...


class Evaluation(NamedTuple):
    """Per-seed means over the same number of episodes each; and how many broke, and were left out, besides."""

    episodes: int
    episode_return: Float64[np.ndarray, " S"]
    success_once: Float64[np.ndarray, " S"]
    success_at_end: Float64[np.ndarray, " S"]
    episode_length: Float64[np.ndarray, " S"]
    failed_episodes: Int64[np.ndarray, " S"]

    def metrics(self) -> dict[str, Any]:
        """As trackers take it; nothing is said of broken episodes where there was none."""
        told = self._asdict()
        means = {name: told[name].tolist() for name in told if name not in ("episodes", "failed_episodes")}
        return {"episodes": self.episodes} | means | self.broken()

    def broken(self) -> dict[str, list[int]]:
        """`failed_episodes`, if any were."""
        return {"failed_episodes": self.failed_episodes.tolist()} if self.failed_episodes.any() else {}


def evaluate(programs: Actor, learner: PyTree, grid: Grid, keys: Key[Array, " S"], episodes: int) -> Evaluation:
    """Run each seed's agent for `episodes` episodes that the grid has not seen before, shared out over its lanes.

    An episode counts from its first step: those still running in a faster lane when a slower one finishes are
    not counted, so short episodes are not favoured. `episodes` is rounded up to a multiple of the lanes. For an
    episode that broke another one is run.

    Raises:
        SimulatorError: as the grid's `step`.
    """
    num_seeds, num_envs = grid.shape
    quota = -(-episodes // num_envs)
    counted, broken = np.zeros(grid.shape, int), np.zeros(num_seeds, np.int64)
    totals = {name: np.zeros(num_seeds) for name in vars(EpisodeStats.zeros(grid.shape))}
    plan, sums = programs.init_plan(num_seeds, num_envs), EpisodeStats.zeros(grid.shape)
    obs, fresh, counter = grid.reset(), np.ones(grid.shape, bool), 0
    while (counted < quota).any():
        action, plan = programs.act(learner, plan, obs, fresh, keys, np.int32(counter), False)
        action = np.asarray(action)
        require_plans(finite_rows(action), grid.seeds, "in an evaluation")
        step = grid.step(action)
        sums, ended = sums.plus(step.reward, step.success), step.ended
        counts = step.finished & (counted < quota)
        broken += (step.void & (counted < quota)).sum(axis=1)
        for name, values in vars(sums).items():
            totals[name] += np.where(counts, values, 0.0).sum(axis=1)
        counted, sums, fresh, counter = counted + counts, sums.where_not(ended), ended, counter + 1
        obs = grid.reset(ended) if ended.any() and (counted < quota).any() else step.obs
    means = {name: total / (quota * num_envs) for name, total in totals.items()}
    return Evaluation(quota * num_envs, **means, failed_episodes=broken)


def evaluation_keys(keys: Key[Array, " S"], steps: int) -> Key[Array, " S"]:
    """Keys of the evaluation at `steps`."""
    return jax.vmap(lambda key: jax.random.fold_in(key, steps))(keys)
