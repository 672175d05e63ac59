"""Demonstrations by a trained agent: fresh episodes, no exploration, the good ones kept."""

from collections.abc import Callable, Iterator

import jax
import numpy as np
from jaxtyping import PyTree

from cdred.demos.scripted import level
from cdred.envs.jax_vector_env import Grid
from cdred.envs.vector_env import VectorStep
from cdred.errors import UserError
from cdred.train.compiled import EVALUATE, CompiledFns, seed_keys
from cdred.types import DemoDataset, EnvSpec, Trajectory

# Episodes to try for each one to be kept, and at least.
TRIES, LEAST_TRIES = 10, 50


def record_agent(
    programs: CompiledFns,
    learner: PyTree,
    grid: Grid,
    num: int,
    *,
    threshold: float = -np.inf,
    provenance: dict[str, object] | None = None,
    on_episode: Callable[[int, int], None] | None = None,
) -> DemoDataset:
    """`num` episodes of an agent with a return of at least `threshold`.

    Args:
        programs: how it acts.
        learner: its state, with a leading axis of the grid's one seed.
        grid: where; `[1, E]` environments.
        num: episodes to keep.
        threshold: least return of an episode that is kept.
        provenance: what else is to be said of the expert. Its statistics are over all attempts.
        on_episode: called after each attempt with the numbers of kept and of attempted episodes.

    Raises:
        UserError: too few episodes are that good.
    """
    attempts: list[Trajectory] = []
    kept: list[Trajectory] = []
    for one in episodes(programs, learner, grid):
        attempts.append(one)
        if one.episode_return >= threshold:
            kept.append(one)
        if on_episode:
            on_episode(len(kept), len(attempts))
        if len(kept) == num:
            break
        if len(attempts) >= TRIES * num + LEAST_TRIES:
            raise UserError(_too_few(kept, attempts, num, threshold))
    about = {
        "threshold": float(threshold) if np.isfinite(threshold) else None,
        "attempts": len(attempts),
        "returns": [round(one.episode_return, 3) for one in kept],
        "expert_level": level(attempts)._asdict(),
        "action_repeat": grid.spec.action_repeat,
    }
    return DemoDataset(grid.spec.task, tuple(kept), (provenance or {}) | about)


def _too_few(kept: list[Trajectory], attempts: list[Trajectory], num: int, threshold: float) -> str:
    best = max(one.episode_return for one in attempts)
    return (
        f"only {len(kept)} of {len(attempts)} episodes have a return of {threshold:g} or more, {num} are wanted; the "
        f"best has {best:.1f}. Lower the threshold, or train the expert for longer."
    )


def episodes(programs: CompiledFns, learner: PyTree, grid: Grid) -> Iterator[Trajectory]:
    """Whole episodes without end, from a grid of one seed, in the order in which they finish; none that broke."""
    keys = seed_keys(grid.seeds, EVALUATE)
    plan, obs, fresh, counter = programs.init_plan(*grid.shape), grid.reset(), np.ones(grid.shape, bool), 0
    running = [_Episode(grid, e, obs) for e in range(grid.shape[1])]
    while True:
        action, plan = programs.act(learner, plan, obs, fresh, keys, np.int32(counter), False)
        acted = np.asarray(jax.device_get(action))
        step = grid.step(acted)
        fresh, counter = step.ended, counter + 1
        for e in range(grid.shape[1]):
            running[e].add(acted[0, e], step)
            if step.finished[0, e]:
                yield running[e].trajectory()
        obs = grid.reset(fresh) if fresh.any() else step.obs
        for e in np.flatnonzero(fresh[0]):
            running[e] = _Episode(grid, int(e), obs)


class _Episode:
    """One environment's episode so far."""

    def __init__(self, grid: Grid, e: int, obs: np.ndarray):
        self._spec: EnvSpec = grid.spec
        self._e, self._seed = e, grid.episode_seed(0, e)
        self._obs, self._actions, self._steps = [obs[0, e].copy()], [], []

    def add(self, action: np.ndarray, step: VectorStep) -> None:
        self._actions.append(action)
        self._steps.append(VectorStep(*(field[0, self._e] for field in step)))
        self._obs.append(self._steps[-1].obs.copy())

    def trajectory(self) -> Trajectory:
        last = self._steps[-1]
        return Trajectory(
            obs=np.stack(self._obs),
            action=np.stack(self._actions),
            reward=np.array([step.reward for step in self._steps], np.float32),
            terminated=bool(last.terminated),
            truncated=bool(last.truncated),
            success=np.array([step.success for step in self._steps], bool) if self._spec.has_success else None,
            seed=self._seed,
        )
