"""How good an agent is: fresh episodes, no exploration."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jaxtyping import Array, Float64, Key, PyTree

from cdred.envs.jax_grid import Grid
from cdred.train.state import EpisodeSums


class Actor(Protocol):
    """Who acts: `Programs`, or whoever has these two."""

    @property
    def act(self) -> Callable[..., tuple[Any, Any]]:
        """Actions of all environments of all seeds, as `Programs.act`."""
        ...

    def init_plan(self, num_seeds: int, num_envs: int) -> Any:
        """What acting remembers at an episode's first decision."""
        ...


class Evaluation(NamedTuple):
    """Per-seed means over the same number of episodes each."""

    episodes: int
    episode_return: Float64[np.ndarray, " S"]
    success_any: Float64[np.ndarray, " S"]
    success_end: Float64[np.ndarray, " S"]

    def metrics(self) -> dict[str, Any]:
        """As trackers take it."""
        return {"episodes": self.episodes} | {
            name: getattr(self, name).tolist() for name in ("episode_return", "success_any", "success_end")
        }


def evaluate(programs: Actor, learner: PyTree, grid: Grid, keys: Key[Array, " S"], episodes: int) -> Evaluation:
    """Run each seed's agent for `episodes` episodes that the grid has not seen before, shared out over its lanes.

    An episode counts from its first decision: those still running in a faster lane when a slower one finishes are
    not counted, so short episodes are not favoured. `episodes` is rounded up to a multiple of the lanes.
    """
    num_seeds, num_envs = grid.shape
    quota = -(-episodes // num_envs)
    counted = np.zeros(grid.shape, int)
    totals = {name: np.zeros(num_seeds) for name in vars(EpisodeSums.zeros(grid.shape))}
    plan, sums = programs.init_plan(num_seeds, num_envs), EpisodeSums.zeros(grid.shape)
    obs, fresh, counter = grid.reset(), np.ones(grid.shape, bool), 0
    while (counted < quota).any():
        action, plan = programs.act(learner, plan, obs, fresh, keys, np.int32(counter), False)
        step = grid.step(np.asarray(action))
        sums, ended = sums.plus(step.reward, step.success), step.terminated | step.truncated
        counts = ended & (counted < quota)
        for name, values in vars(sums).items():
            totals[name] += np.where(counts, values, 0.0).sum(axis=1)
        counted, sums, fresh, counter = counted + counts, sums.where_not(ended), ended, counter + 1
        obs = grid.reset(ended) if ended.any() and (counted < quota).any() else step.obs
    return Evaluation(quota * num_envs, **{name: total / (quota * num_envs) for name, total in totals.items()})


def evaluation_keys(keys: Key[Array, " S"], decisions: int) -> Key[Array, " S"]:
    """Keys of the evaluation at `decisions`."""
    return jax.vmap(lambda key: jax.random.fold_in(key, decisions))(keys)
