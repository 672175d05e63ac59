"""Vector env of [S seeds, E environments] for simulators in JAX, with its state on the device.

`reset_where` and `step_all` are pure functions, for programs that step the environments themselves
(`train.device_loop`). `JaxVectorEnv` wraps them in the interface of `VectorEnv` and runs the same episodes: their
seeds are computed on the device, bitwise identical to `seeding.episode_seed`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32, Int64, UInt8

from cdred.envs.base import VectorStep, check_actions, check_ready
from cdred.envs.failures import FailureCounts, check_failure_limits, warn
from cdred.envs.jax_env import EnvState, JaxEnv
from cdred.envs.seeding import STREAMS, check_args, episode_seed
from cdred.envs.seeding_jax import EpisodeKey, episode_seeds
from cdred.types import LogFn

NON_FINITE = "non-finite observation or reward"


class VectorEnvState(NamedTuple):
    """State of all environments.

    Attributes:
        env: simulator states, with leading axes [S, E].
        obs: current observations.
        episode: number of the current episode, from 0 (-1: not started).
        length: steps taken in the current episode; -1 if its first observation is non-finite (`obs` is then 0), which
            makes its first step invalid.
        failures: numbers of aborted episodes.
    """

    env: EnvState
    obs: Float32[Array, "S E *obs"]
    episode: Int32[Array, "S E"]
    length: Int32[Array, "S E"]
    failures: FailureCounts


class DeviceStep(NamedTuple):
    """`base.VectorStep` as arrays on the device."""

    obs: Float32[Array, "S E *obs"]
    reward: Float32[Array, "S E"]
    terminated: Bool[Array, "S E"]
    truncated: Bool[Array, "S E"]
    success: Bool[Array, "S E"]
    invalid: Bool[Array, "S E"]

    @property
    def needs_reset(self) -> Bool[Array, "S E"]:
        """As `VectorStep.needs_reset`."""
        return self.terminated | self.truncated | self.invalid


def reset_where(env: JaxEnv, key: EpisodeKey, state: VectorEnvState, mask: Bool[Array, "S E"]) -> VectorEnvState:
    """Start the next episode where `mask` holds; computes nothing if it holds nowhere."""

    def reset(state: VectorEnvState) -> VectorEnvState:
        episode = state.episode + mask.astype(jnp.int32)
        env_state, obs = jax.vmap(jax.vmap(env.reset))(episode_seeds(key, episode.astype(jnp.uint32)))
        valid = _is_finite(obs)
        obs = _where(valid, obs, jnp.zeros_like(obs))
        length = jnp.where(valid, 0, -1).astype(jnp.int32)
        started = VectorEnvState(env_state, obs, episode, length, state.failures)
        return jax.tree.map(partial(_where, mask), started, state)

    return jax.lax.cond(jnp.any(mask), reset, lambda state: state, state)


def step_all(env: JaxEnv, state: VectorEnvState, action: Float32[Array, "S E A"]) -> tuple[VectorEnvState, DeviceStep]:
    """Step every environment; components of `action` outside [-1, 1] are clipped.

    A step is invalid if its observation or its reward is non-finite.
    """
    env_state, result = jax.vmap(jax.vmap(env.step))(state.env, jnp.clip(action, -1.0, 1.0))
    valid = _is_finite(result.obs) & jnp.isfinite(result.reward) & (state.length >= 0)
    length, terminated = state.length + 1, result.terminated & valid
    truncated = valid & ~terminated & (length >= env.spec.episode_length)
    obs, reward = _where(valid, result.obs, state.obs), jnp.where(valid, result.reward, 0.0)
    step = DeviceStep(obs, reward, terminated, truncated, result.success & valid, ~valid)
    failures = state.failures.update(~valid, terminated | truncated)
    return VectorEnvState(env_state, obs, state.episode, length, failures), step


def _is_finite(obs: Float32[Array, "S E *obs"]) -> Bool[Array, "S E"]:
    return jnp.all(jnp.isfinite(obs), axis=tuple(range(2, obs.ndim)))


def _where(mask: Bool[Array, "S E"], new: Array, old: Array) -> Array:
    return jnp.where(mask.reshape(mask.shape + (1,) * (new.ndim - mask.ndim)), new, old)


# At module level, so that vector envs of the same task and size share the compiled functions.
_reset_where = jax.jit(reset_where, static_argnums=0)
_step_all = jax.jit(step_all, static_argnums=0)


class JaxVectorEnv:
    """S x E environments of one task on the device, vmapped, with the interface of `VectorEnv`.

    `state` may be read, advanced by another program and assigned again.

    Args:
        env: the simulator.
        seeds: seeds of the runs (each >= 0), one per row.
        num_envs: environments per run (E).
        stream: as in `VectorEnv`.
        render_size: as in `registry.make`.
        log: as in `VectorEnv`.

    Raises:
        UserError: `seeds` is empty or has a negative seed.
    """

    def __init__(
        self,
        env: JaxEnv,
        seeds: Sequence[int],
        num_envs: int = 1,
        stream: str = "train",
        *,
        render_size: int | None = None,
        log: LogFn = warn,
    ):
        check_args(seeds, num_envs, stream)
        self.env, self.spec, self.stream = env, env.spec, stream
        self.seeds, self.shape = tuple(int(seed) for seed in seeds), (len(seeds), num_envs)
        rows, columns = np.broadcast_arrays(np.array(self.seeds)[:, None], np.arange(num_envs)[None])
        words = (rows, np.full(self.shape, STREAMS.index(stream)), columns)
        self.episode_key = EpisodeKey(*(jnp.array(word, jnp.uint32) for word in words))
        self.state = self._initial_state()
        self._needs_reset, self._render_size, self._log = np.ones(self.shape, bool), render_size, log

    def _initial_state(self) -> VectorEnvState:
        env, obs = jax.eval_shape(jax.vmap(jax.vmap(self.env.reset)), self.episode_key.seed)
        env, obs = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (env, obs))
        failures = FailureCounts(*map(jnp.asarray, FailureCounts.zeros(self.shape)))
        return VectorEnvState(env, obs, jnp.full(self.shape, -1, jnp.int32), jnp.zeros(self.shape, jnp.int32), failures)

    def reset(self, mask: Bool[np.ndarray, "S E"] | None = None) -> Float32[np.ndarray, "S E *obs"]:
        """Start the next episode where `mask` holds (None: everywhere); return the observations of all environments."""
        mask = np.ones(self.shape, bool) if mask is None else mask
        self.state = _reset_where(self.env, self.episode_key, self.state, jnp.asarray(mask))
        self._needs_reset &= ~mask
        return np.array(self.state.obs)

    @property
    def next_episode(self) -> int:
        """As `VectorEnv.next_episode`."""
        return int(self.state.episode.max()) + 1

    def skip_to(self, episode: int) -> None:
        """As `VectorEnv.skip_to`."""
        self.state = self.state._replace(episode=jnp.full(self.shape, episode - 1, jnp.int32))
        self._needs_reset[:] = True

    def step(self, action: Float32[np.ndarray, "S E A"]) -> VectorStep:
        """Step every environment.

        Raises:
            RuntimeError: an environment has no running episode and must be reset first.
            ValueError: `action` has the wrong shape or is not finite.
            SimulatorError: too many consecutive episodes failed.
        """
        check_ready(self._needs_reset)
        action = np.asarray(action, np.float32)
        check_actions(action, (*self.shape, self.spec.action_dim))
        self.state, device_step = _step_all(self.env, self.state, action)
        step = VectorStep(*(np.array(field) for field in device_step))
        self._needs_reset = step.needs_reset
        self.log_failures(step.invalid)
        return step

    def log_failures(self, invalid: Bool[np.ndarray, "S E"]) -> None:
        """Log the episodes that a step aborted.

        Args:
            invalid: as in `VectorStep`.

        Raises:
            SimulatorError: too many consecutive episodes failed.
        """
        for s, e in np.argwhere(invalid):
            self._log(f"{self._label(s, e)}: episode aborted: {NON_FINITE}")
        if invalid.any():
            check_failure_limits(jax.device_get(self.state.failures), self._label, NON_FINITE)

    def _label(self, s: int, e: int) -> str:
        return f"{self.spec.task}, seed {self.seeds[s]}, environment {e}"

    @property
    def failed_episodes(self) -> Int64[np.ndarray, " S"]:
        """Number of aborted episodes so far, per seed."""
        return np.asarray(self.state.failures.total).sum(axis=1, dtype=np.int64)

    def episode_seed(self, s: int, e: int) -> int:
        """Return the seed with which `Env.reset` reproduces the current episode of environment (s, e)."""
        return episode_seed(self.seeds[s], self.stream, e, int(self.state.episode[s, e]))

    def render(self, s: int, e: int) -> UInt8[np.ndarray, "H W 3"]:
        """Return the current frame of environment (s, e); raises UserError if the task cannot be rendered."""
        return self.env.render(jax.tree.map(lambda x: x[s, e], self.state.env), self._render_size)

    def snapshot(self) -> dict[str, Any]:
        """Return a copy of the state on the host, for `restore`."""
        state = jax.tree.map(np.array, jax.device_get(self.state))
        return {"seeds": np.array(self.seeds), "done": self._needs_reset.copy(), "state": state}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Restore the state of `snapshot`.

        Raises:
            ValueError: the snapshot is of other seeds.
        """
        if tuple(snapshot["seeds"]) != self.seeds:
            raise ValueError(f"the snapshot is of seeds {snapshot['seeds'].tolist()}, expected {list(self.seeds)}")
        self._needs_reset, self.state = snapshot["done"].copy(), jax.tree.map(jnp.array, snapshot["state"])

    def close(self) -> None:
        """Do nothing: the environments hold no resources but memory."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass
