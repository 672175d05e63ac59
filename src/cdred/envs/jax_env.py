"""Simulators that are JAX functions: pure, written for one environment, fit for `jit`, `vmap` and `scan`.

They serve two loops. `JaxEnvAdapter` puts one behind the host's `Env`; `jax_grid.JaxVectorEnv` keeps a whole grid of them on the
device, where collecting and learning are one program (`train.scanned`).
"""

from functools import cache
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jaxtyping import Array, Bool, Float32, UInt8, UInt32

from cdred.envs.base import Step, checked
from cdred.types import EnvSpec

# A pytree of arrays. Raw keys (`jax.random.PRNGKey`), not typed ones, which cannot be copied to the host as they are.
EnvState = Any


class JaxStep(NamedTuple):
    """What one step led to; fields as in `base.Step`, without the clock, which the caller keeps."""

    obs: Float32[Array, "*obs"]
    reward: Float32[Array, ""]
    terminated: Bool[Array, ""]
    success: Bool[Array, ""]


class JaxEnv(Protocol):
    """One simulator as pure functions of its state. Hashable, and the same object for the same task.

    As with `Env` the seed alone determines an episode.
    """

    @property
    def spec(self) -> EnvSpec:
        """Shapes, episode length and action repeat of the task."""
        ...

    def reset(self, seed: UInt32[Array, ""]) -> tuple[EnvState, Float32[Array, "*obs"]]:
        """The beginning of the episode of `seed`, and its first observation."""
        ...

    def step(self, state: EnvState, action: Float32[Array, " A"]) -> tuple[EnvState, JaxStep]:
        """One step; `action` is within [-1, 1]."""
        ...

    def picture(self, state: EnvState, size: int | None) -> UInt8[np.ndarray, "H W 3"]:
        """The frame of a state, drawn on the host.

        Raises:
            UserError: this machine cannot render, or the task has no picture.
        """
        ...


class JaxEnvAdapter:
    """A functional simulator as the host's `Env`: one episode at a time, one compiled call a step."""

    def __init__(self, env: JaxEnv, render_size: int | None = None):
        self.spec = env.spec
        self._env, self._render_size = env, render_size
        self._reset, self._step = _compiled(env)
        self._state: EnvState = None
        self._decisions = 0

    def reset(self, seed: int) -> Float32[np.ndarray, "*obs"]:
        self._state, obs = self._reset(np.uint32(seed))
        self._decisions = 0
        return np.array(obs)

    def step(self, action: Float32[np.ndarray, " A"]) -> Step:
        clipped = np.clip(action, -1.0, 1.0).astype(np.float32)
        self._state, step = self._step(self._state, clipped)
        obs, reward, terminated, success = jax.device_get(step)
        self._decisions += 1
        truncated = not terminated and self._decisions >= self.spec.episode_length
        return checked(self.spec, Step(np.array(obs), float(reward), bool(terminated), truncated, bool(success)))

    def render(self) -> UInt8[np.ndarray, "H W 3"]:
        return self._env.picture(self._state, self._render_size)

    def close(self) -> None:
        pass


@cache
def _compiled(env: JaxEnv) -> tuple[Any, Any]:
    """Its two functions, jitted once for all that host it."""
    return jax.jit(env.reset), jax.jit(env.step)
