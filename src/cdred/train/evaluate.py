"""Evaluation of agents on episodes of their own, without exploration."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jaxtyping import Array, Float64, Int64, Key, PyTree

from cdred.envs.make import AnyVectorEnv
from cdred.train.finite import finite_rows, require_finite_actions
from cdred.train.state import EpisodeStats


class Actor(Protocol):
    """Anything with `act` and `init_plan`, such as `CompiledFns`."""

    @property
    def act(self) -> Callable[..., tuple[Any, Any]]:
        """Actions of all environments of all seeds, as `CompiledFns.act`."""
        ...

    def init_plan(self, num_seeds: int, num_envs: int) -> Any:
        """Return the planner states at the first step of an episode."""
        ...


class Evaluation(NamedTuple):
    """Per-seed means over `episodes` episodes, and the number of failed episodes, which are not in the means.

    Attributes:
        returns: return of each episode that counts, in the order of environments and then of episodes.
    """

    episodes: int
    episode_return: Float64[np.ndarray, " S"]
    success: Float64[np.ndarray, " S"]
    success_at_end: Float64[np.ndarray, " S"]
    episode_length: Float64[np.ndarray, " S"]
    failed_episodes: Int64[np.ndarray, " S"]
    returns: Float64[np.ndarray, "S episodes"]

    def metrics(self) -> dict[str, Any]:
        """Convert to metrics for a `Logger`."""
        fields = self._asdict()
        others = ("episodes", "failed_episodes", "returns")
        means = {name: fields[name].tolist() for name in fields if name not in others}
        return {"episodes": self.episodes} | means | self.failure_counts()

    def failure_counts(self) -> dict[str, list[int]]:
        """Return `failed_episodes` as a metric; nothing if no episode failed."""
        return {"failed_episodes": self.failed_episodes.tolist()} if self.failed_episodes.any() else {}


def evaluate(
    actor: Actor,
    learner: PyTree,
    envs: AnyVectorEnv,
    keys: Key[Array, " S"],
    episodes: int,
    on_step: Callable[[Any, np.ndarray, np.ndarray], None] | None = None,
    *,
    first_episode: int | None = None,
) -> Evaluation:
    """Run each seed's agent for `episodes` episodes of `envs`.

    Every environment runs the same number of episodes, so short episodes are not overrepresented: further episodes of
    an environment that is done early are not counted. A failed episode is replaced by another one.

    Args:
        actor: the agents.
        learner: their state, leading axis S.
        envs: environments, [S, E].
        keys: one per seed.
        episodes: episodes per seed, rounded up to a multiple of E.
        on_step: called after each step with the observations that it led to, the episodes that ended and those of them
            that count.
        first_episode: number of the first episode, from 0; None for the next one. Agents that begin at the same
            episode act from the same initial states.

    Raises:
        SimulatorError: as `VectorEnv.step`.
        DivergenceError: an action is not finite.
    """
    num_seeds, num_envs = envs.shape
    quota = episodes_per_env(episodes, num_envs)
    if first_episode is not None:
        envs.skip_to(first_episode)
    counts, failed = np.zeros(envs.shape, int), np.zeros(num_seeds, np.int64)
    returns = np.zeros((*envs.shape, quota))
    totals = {name: np.zeros(num_seeds) for name in vars(EpisodeStats.zeros(envs.shape))}
    plan, stats = actor.init_plan(num_seeds, num_envs), EpisodeStats.zeros(envs.shape)
    obs, is_first, counter = envs.reset(), np.ones(envs.shape, bool), 0
    while (counts < quota).any():
        action, plan = actor.act(learner, plan, obs, is_first, keys, np.int32(counter), False)
        action = np.asarray(action)
        require_finite_actions(finite_rows(action), envs.seeds, "in an evaluation")
        step = envs.step(action)
        stats, needs_reset = stats.update(step.reward, step.success), step.needs_reset
        counted = step.done & (counts < quota)
        if on_step is not None:
            on_step(step.obs, needs_reset, counted)
        failed += (step.invalid & (counts < quota)).sum(axis=1)
        rows = np.nonzero(counted)
        returns[(*rows, counts[rows])] = stats.episode_return[rows]
        for name, values in vars(stats).items():
            totals[name] += np.where(counted, values, 0.0).sum(axis=1)
        counts, stats, is_first, counter = counts + counted, stats.reset_where(needs_reset), needs_reset, counter + 1
        obs = envs.reset(needs_reset) if needs_reset.any() and (counts < quota).any() else step.obs
    means = {name: total / (quota * num_envs) for name, total in totals.items()}
    returns = returns.reshape(num_seeds, -1)
    return Evaluation(quota * num_envs, **means, failed_episodes=failed, returns=returns)


def episodes_per_env(episodes: int, num_envs: int) -> int:
    """Return how many of `episodes` episodes each environment runs, rounded up."""
    return -(-episodes // num_envs)


def unseen_episode(envs: AnyVectorEnv, final_eval_episodes: int) -> int:
    """Return the number of the first episode of `envs` after those of the evaluations so far and of the final one.

    The final evaluation runs the first `final_eval_episodes`.
    """
    return max(envs.next_episode, episodes_per_env(final_eval_episodes, envs.shape[1]))


def evaluation_keys(keys: Key[Array, " S"], steps: int) -> Key[Array, " S"]:
    """Derive the keys of the evaluation after `steps` steps."""
    return jax.vmap(lambda key: jax.random.fold_in(key, steps))(keys)
