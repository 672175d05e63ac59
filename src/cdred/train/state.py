"""Everything that learning, acting and resuming need, as one pytree."""

from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float64, Int64, PyTree

from cdred.data.replay_buffer import ReplayBuffer
from cdred.envs.jax_vector_env import Grid
from cdred.planning.mppi import MPPIState
from cdred.train.compiled import INIT, CompiledFns, seed_keys
from cdred.train.devices import spread

Snapshot = dict[str, Any]


class EpisodeStats(eqx.Module):
    """What has happened so far in each environment's running episode."""

    episode_return: Float64[np.ndarray, "S E"]
    success_once: Bool[np.ndarray, "S E"]
    success_at_end: Bool[np.ndarray, "S E"]
    episode_length: Float64[np.ndarray, "S E"]

    @classmethod
    def zeros(cls, shape: tuple[int, int]) -> Self:
        """Nothing has happened yet."""
        return cls(np.zeros(shape), np.zeros(shape, bool), np.zeros(shape, bool), np.zeros(shape))

    def plus(self, reward: np.ndarray, success: np.ndarray) -> Self:
        """One step later."""
        return type(self)(self.episode_return + reward, self.success_once | success, success, self.episode_length + 1.0)

    def where_not(self, ended: Bool[np.ndarray, "S E"]) -> Self:
        """The sums with those of ended episodes begun anew."""
        return jax.tree.map(lambda x: np.where(ended, np.zeros_like(x), x), self)

    def means(self, ended: Bool[np.ndarray, "S E"]) -> dict[str, list[float | None]]:
        """Per seed, the mean over its environments whose episode has just ended (None where none has)."""
        return {
            name: [float(x[row].mean()) if row.any() else None for x, row in zip(values, ended, strict=True)]
            for name, values in vars(self).items()
        }


class TrainState(eqx.Module):
    """A run at one moment. Array leaves are saved; together they determine all that follows.

    Attributes:
        learner: the method's state, leading axis S.
        replay: what the agent lived through, [S, E lanes].
        plan: planners' memory, [S, E].
        fresh: environments at their episode's first step.
        sums: running episodes so far.
        steps: per seed, over all its environments.
        divergence_restarts: per seed, how often it diverged and was taken back; its keys depend on it (`rollback.fresh_keys`).
        grid, eval_grid: how to bring the simulators back (`VectorEnv.restore`, `JaxVectorEnv.restore`).
    """

    learner: PyTree
    replay: ReplayBuffer
    plan: MPPIState
    fresh: Bool[np.ndarray | Array, "S E"]
    sums: EpisodeStats
    steps: Int64[np.ndarray, ""]
    divergence_restarts: Int64[np.ndarray, " S"]
    grid: Snapshot
    eval_grid: Snapshot

    @classmethod
    def create(cls, programs: CompiledFns, grid: Grid, eval_grid: Grid, capacity: int) -> Self:
        """The state before the first step. `grid` must stand at its first observations."""
        return cls(**_on_device(programs, grid, capacity), **_on_host(grid, eval_grid))

    @classmethod
    def like(cls, programs: CompiledFns, grid: Grid, eval_grid: Grid, capacity: int) -> Self:
        """What `create` would make, with shapes in place of device arrays: nothing is allocated to be replaced."""
        shapes = eqx.filter_eval_shape(lambda: _on_device(programs, grid, capacity))
        return cls(**shapes, **_on_host(grid, eval_grid))

    def spread(self, mesh: Mesh | None) -> Self:
        """The state with what is on the device shared out among several (`devices.seed_mesh`)."""
        return self.replace(**{name: spread(getattr(self, name), mesh) for name in ("learner", "replay", "plan")})

    def replace(self, **changes: Any) -> Self:
        """The state with these fields exchanged."""
        return type(self)(**(vars(self) | changes))


def _on_device(programs: CompiledFns, grid: Grid, capacity: int) -> dict[str, Any]:
    num_seeds, num_envs = grid.shape
    empty = ReplayBuffer.init(grid.spec, num_envs, capacity, programs.horizon)
    return {
        "learner": programs.init(seed_keys(grid.seeds, INIT)),
        "replay": jax.tree.map(lambda x: jnp.repeat(x[None], num_seeds, axis=0), empty),
        "plan": programs.init_plan(num_seeds, num_envs),
    }


def _on_host(grid: Grid, eval_grid: Grid) -> dict[str, Any]:
    return {
        "fresh": np.ones(grid.shape, bool),
        "sums": EpisodeStats.zeros(grid.shape),
        "steps": np.zeros((), np.int64),
        "divergence_restarts": np.zeros(grid.shape[0], np.int64),
        "grid": grid.snapshot(),
        "eval_grid": eval_grid.snapshot(),
    }
