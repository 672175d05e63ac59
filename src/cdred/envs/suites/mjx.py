"""MuJoCo Playground's DeepMind Control suite: physics in JAX (MJX), so that a run is one program on the device.

Playground's episodes are 1000 control steps without action repeat, its control steps as long as dm_control's. Here a
step is two of them and an episode 500 steps, as with `dmc/`. Its physics differs slightly from dm_control's.
"""

# These packages need another MuJoCo than the other suites and are installed in another interpreter.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from functools import cache

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float32, UInt8, UInt32
from mujoco_playground import dm_control_suite

from cdred.envs.base import raise_render_error
from cdred.envs.jax_env import EnvState, JaxEnvAdapter, JaxStep
from cdred.types import EnvSpec

# Playground 0.2.0 compares MuJoCo's version as text, takes 3.17 for older than 3.3, and calls `find_body`, the method's
# name before 3.3, in its reacher tasks.
if not hasattr(mujoco.MjSpec, "find_body"):
    mujoco.MjSpec.find_body = mujoco.MjSpec.body

ACTION_REPEAT = 2
DEFAULT_RENDER_SIZE = 240


class Playground:
    """One task of the suite as a `JaxEnv`, e.g. `CheetahRun`. No task has terminal states.

    Playground's `done` marks a non-finite state, which the caller detects in the observation.
    """

    def __init__(self, name: str):
        # Playground's default is its CUDA-only Warp back end; the JAX one runs on any device.
        self._env = dm_control_suite.load(name, config_overrides={"impl": "jax"})
        state = jax.eval_shape(self._env.reset, jax.random.PRNGKey(0))
        episode_length = dm_control_suite.get_default_config(name).episode_length // ACTION_REPEAT
        self.spec = EnvSpec(f"mjx/{name}", (state.obs.size,), self._env.action_size, episode_length, ACTION_REPEAT)

    def reset(self, seed: UInt32[Array, ""]) -> tuple[EnvState, Float32[Array, " obs"]]:
        state = self._env.reset(jax.random.PRNGKey(seed))
        return state, jnp.ravel(state.obs)

    def step(self, state: EnvState, action: Float32[Array, " A"]) -> tuple[EnvState, JaxStep]:
        def frame(state, _):
            state = self._env.step(state, action)
            return state, state.reward

        state, rewards = jax.lax.scan(frame, state, length=ACTION_REPEAT)
        return state, JaxStep(jnp.ravel(state.obs), jnp.sum(rewards), jnp.zeros((), bool), jnp.zeros((), bool))

    def render(self, state: EnvState, size: int | None) -> UInt8[np.ndarray, "H W 3"]:
        size = size or DEFAULT_RENDER_SIZE
        try:
            return self._env.render(jax.device_get(state), size, size, camera=0)
        except Exception as error:
            raise_render_error(self.spec.task, error)


def task_names() -> list[str]:
    """List Playground's names of its dm_control_suite tasks."""
    return sorted(dm_control_suite.ALL_ENVS)


@cache
def jax_env(name: str) -> Playground:
    """Return the task as JAX functions."""
    return Playground(name)


def make(name: str, render_size: int | None = None) -> JaxEnvAdapter:
    """Make the task as a host environment."""
    return JaxEnvAdapter(jax_env(name), render_size)
