"""State of a run as one pytree: everything that learning, acting and resuming need."""

from collections.abc import Callable
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float64, Int64, PyTree

from cdred.data.replay_buffer import ReplayBuffer
from cdred.data.replay_images import with_images, without_pixels
from cdred.envs.make import AnyVectorEnv
from cdred.planning.mppi import MPPIState
from cdred.train.compiled import CompiledFns
from cdred.train.devices import shard
from cdred.train.keys import INIT, seed_keys

Snapshot = dict[str, Any]


class EpisodeStats(eqx.Module):
    """Statistics of the running episode of each environment."""

    episode_return: Float64[np.ndarray, "S E"]
    success: Bool[np.ndarray, "S E"]
    success_at_end: Bool[np.ndarray, "S E"]
    episode_length: Float64[np.ndarray, "S E"]

    @classmethod
    def zeros(cls, shape: tuple[int, int]) -> Self:
        """Make the statistics before the first step of every episode."""
        return cls(np.zeros(shape), np.zeros(shape, bool), np.zeros(shape, bool), np.zeros(shape))

    def update(self, reward: np.ndarray, success: np.ndarray) -> Self:
        """Add one step."""
        return type(self)(self.episode_return + reward, self.success | success, success, self.episode_length + 1.0)

    def reset_where(self, mask: Bool[np.ndarray, "S E"]) -> Self:
        """Set the statistics to zero where `mask` holds."""
        return jax.tree.map(lambda x: np.where(mask, np.zeros_like(x), x), self)

    def finished_means(self, done: Bool[np.ndarray, "S E"]) -> dict[str, list[float | None]]:
        """Compute the means over the episodes that are `done`, per seed; None where there is none."""
        return {
            name: [float(x[row].mean()) if row.any() else None for x, row in zip(values, done, strict=True)]
            for name, values in vars(self).items()
        }


class TrainState(eqx.Module):
    """State of a run. Checkpoints hold its array leaves, which determine the rest of the run.

    Attributes:
        learner: state of the algorithm, leading axis S.
        replay: agent replay buffer, [S, E].
        plan: planner states, [S, E].
        is_first: environments at the first step of their episode.
        episode_stats: statistics of the running episodes.
        steps: env steps so far, per seed over all its environments.
        divergence_restarts: restarts from the last good state after a divergence, per seed; the keys of acting and
            learning depend on them (`keys.rekey`).
        envs, eval_envs: snapshots from which the environments are restored (`VectorEnv.restore`).
    """

    learner: PyTree
    replay: ReplayBuffer
    plan: MPPIState
    is_first: Bool[np.ndarray | Array, "S E"]
    episode_stats: EpisodeStats
    steps: Int64[np.ndarray, ""]
    divergence_restarts: Int64[np.ndarray, " S"]
    envs: Snapshot
    eval_envs: Snapshot

    @classmethod
    def create(cls, fns: CompiledFns, envs: AnyVectorEnv, eval_envs: AnyVectorEnv, capacity: int) -> Self:
        """Make the state before the first step; `envs` must have been reset."""
        fields = _device_fields(fns, fns.init, envs, capacity)
        return cls(**_with_host_images(fns, envs, fields, np.zeros), **_host_fields(envs, eval_envs))

    @classmethod
    def abstract(cls, fns: CompiledFns, envs: AnyVectorEnv, eval_envs: AnyVectorEnv, capacity: int) -> Self:
        """Make the state of `create` with shapes in place of device arrays, without allocating them.

        Images in host memory are a NumPy array of one value, whatever its shape.
        """
        shapes = eqx.filter_eval_shape(lambda: _device_fields(fns, fns.init_fn, envs, capacity))
        fields = _with_host_images(fns, envs, shapes, lambda shape, dtype: np.broadcast_to(dtype(0), shape))
        return cls(**fields, **_host_fields(envs, eval_envs))

    def shard(self, mesh: Mesh | None) -> Self:
        """Shard the arrays on the device over the devices of `devices.seed_mesh`."""
        return self.replace(**{name: shard(getattr(self, name), mesh) for name in ("learner", "replay", "plan")})

    def replace(self, **changes: Any) -> Self:
        """Replace fields."""
        return type(self)(**(vars(self) | changes))


def _device_fields(fns: CompiledFns, init: Callable[..., PyTree], envs: AnyVectorEnv, capacity: int) -> dict[str, Any]:
    """Make the fields on the device; `init` is `fns.init`, or `fns.init_fn` where only shapes are computed."""
    num_seeds, num_envs = envs.shape
    spec = without_pixels(envs.spec) if fns.images_on_host else envs.spec
    empty = ReplayBuffer.init(spec, num_envs, capacity, fns.horizon)
    return {
        "learner": init(seed_keys(envs.seeds, INIT)),
        "replay": jax.tree.map(lambda x: jnp.repeat(x[None], num_seeds, axis=0), empty),
        "plan": fns.init_plan(num_seeds, num_envs),
    }


def _with_host_images(
    fns: CompiledFns, envs: AnyVectorEnv, fields: dict[str, Any], allocate: Callable[..., np.ndarray]
) -> dict[str, Any]:
    """Replace the images of the replay buffer by an array in host memory, if they are to be there."""
    if not fns.images_on_host:
        return fields
    shape = (*fields["replay"].episode_step.shape, *envs.spec.image_shape)
    return fields | {"replay": with_images(fields["replay"], allocate(shape, np.uint8))}


def _host_fields(envs: AnyVectorEnv, eval_envs: AnyVectorEnv) -> dict[str, Any]:
    return {
        "is_first": np.ones(envs.shape, bool),
        "episode_stats": EpisodeStats.zeros(envs.shape),
        "steps": np.zeros((), np.int64),
        "divergence_restarts": np.zeros(envs.shape[0], np.int64),
        "envs": envs.snapshot(),
        "eval_envs": eval_envs.snapshot(),
    }
