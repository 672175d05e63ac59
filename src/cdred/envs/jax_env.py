"""Simulators as JAX functions: pure, written for one environment, compatible with `jit`, `vmap` and `scan`.

`JaxEnvAdapter` wraps one as a host `Env`; `jax_vector_env.JaxVectorEnv` keeps S x E of them on the device, where
collecting and learning are one compiled program (`train.device_loop`).
"""

from functools import cache
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jaxtyping import Array, Bool, Float32, UInt8, UInt32

from cdred.envs.base import Step, validate_step
from cdred.types import EnvSpec

# A pytree of arrays. Raw keys (`jax.random.PRNGKey`), not typed ones, because snapshots are NumPy arrays.
EnvState = Any


class JaxStep(NamedTuple):
    """Result of one step; fields as in `base.Step` without `truncated`: the caller applies the time limit."""

    obs: Float32[Array, "*obs"]
    reward: Float32[Array, ""]
    terminated: Bool[Array, ""]
    success: Bool[Array, ""]


class JaxEnv(Protocol):
    """A simulator as pure functions of its state. Hashable, and the same object for the same task.

    As with `Env` the seed alone determines an episode.
    """

    @property
    def spec(self) -> EnvSpec:
        """Shapes, episode length and action repeat of the task."""
        ...

    def reset(self, seed: UInt32[Array, ""]) -> tuple[EnvState, Float32[Array, "*obs"]]:
        """Return the initial state and the first observation of the episode of `seed`."""
        ...

    def step(self, state: EnvState, action: Float32[Array, " A"]) -> tuple[EnvState, JaxStep]:
        """Take one step; `action` is within [-1, 1]."""
        ...

    def render(self, state: EnvState, size: int | None) -> UInt8[np.ndarray, "H W 3"]:
        """Render a state on the host.

        Args:
            state: state of one environment.
            size: side of the frame in pixels; None selects the suite's default.

        Raises:
            UserError: this machine cannot render, or the task does not support rendering.
        """
        ...


class JaxEnvAdapter:
    """Adapter from `JaxEnv` to the host interface `Env`: one episode at a time, one compiled call per step."""

    def __init__(self, env: JaxEnv, render_size: int | None = None):
        self.spec = env.spec
        self._env, self._render_size = env, render_size
        self._reset, self._step = _compiled(env)
        self._state: EnvState = None
        self._elapsed_steps = 0

    def reset(self, seed: int) -> Float32[np.ndarray, "*obs"]:
        self._state, obs = self._reset(np.uint32(seed))
        self._elapsed_steps = 0
        return np.array(obs)

    def step(self, action: Float32[np.ndarray, " A"]) -> Step:
        clipped = np.clip(action, -1.0, 1.0).astype(np.float32)
        self._state, step = self._step(self._state, clipped)
        obs, reward, terminated, success = jax.device_get(step)
        self._elapsed_steps += 1
        truncated = not terminated and self._elapsed_steps >= self.spec.episode_length
        return validate_step(self.spec, Step(np.array(obs), float(reward), bool(terminated), truncated, bool(success)))

    def render(self) -> UInt8[np.ndarray, "H W 3"]:
        return self._env.render(self._state, self._render_size)

    def close(self) -> None:
        pass


@cache
def _compiled(env: JaxEnv) -> tuple[Any, Any]:
    """Return the jitted `reset` and `step`, shared by all adapters of `env`."""
    return jax.jit(env.reset), jax.jit(env.step)
