"""DeepMind Control suite: 500 steps of 2 frames by default, observations flattened in dm_control's order."""

from collections.abc import Mapping

import numpy as np
from dm_control import suite
from jaxtyping import Float32, UInt8

from cdred.action_units import denormalize_actions
from cdred.envs.base import Step, raise_render_error, validate_step
from cdred.envs.physics import scale_physics
from cdred.envs.render_thread import RenderThread
from cdred.task_name import PLAIN_PHYSICS, PhysicsFactors, with_physics, with_repeat
from cdred.types import EnvSpec

EPISODE_FRAMES = 1000
ACTION_REPEAT = 2
DEFAULT_RENDER_SIZE = 240
RENDERS_SIZE = True
SCALES_PHYSICS = True


class DMControl:
    """One task of the suite, e.g. `cheetah-run` or `ball_in_cup-catch`.

    A discount of 0 marks a terminal state, which only the excluded lqr has; any other end is a truncation.

    Args:
        name: `<domain>-<task>`.
        render_size: side of rendered frames in pixels; None for `DEFAULT_RENDER_SIZE`.
        action_repeat: frames per step, a divisor of `EPISODE_FRAMES`.
        physics: factors of masses and friction coefficients.
    """

    def __init__(
        self,
        name: str,
        render_size: int | None = None,
        action_repeat: int = ACTION_REPEAT,
        physics: PhysicsFactors = PLAIN_PHYSICS,
    ):
        domain, task = name.split("-", 1)
        self._env = suite.load(domain, task)
        scale_physics(self._env.physics.model.ptr, self._env.physics.data.ptr, physics)
        bounds = self._env.action_spec()
        self._low, self._high = (
            np.broadcast_to(bound, bounds.shape).astype(np.float64) for bound in (bounds.minimum, bounds.maximum)
        )
        shape = flatten(self._env.reset().observation).shape
        self.spec = EnvSpec(
            with_physics(with_repeat(f"dmc/{name}", action_repeat, ACTION_REPEAT), physics),
            shape,
            bounds.shape[0],
            EPISODE_FRAMES // action_repeat,
            action_repeat,
            action_low=tuple(self._low.tolist()),
            action_high=tuple(self._high.tolist()),
            control_timestep=self._env.control_timestep() * action_repeat,
        )
        self._render_size = render_size or DEFAULT_RENDER_SIZE
        self._render_thread = RenderThread()
        self._reduce_render_quality()
        self._elapsed_steps = 0

    def _reduce_render_quality(self) -> None:
        # Software rendering is several times faster without multisampling; the first render reads these settings.
        quality = self._env.physics.model.vis.quality
        quality.offsamples, quality.shadowsize = 0, 512

    def reset(self, seed: int) -> Float32[np.ndarray, "*obs"]:
        # dm_control seeds at construction only; a new state of the task's generator has the same effect.
        self._env.task._random = np.random.RandomState(seed)
        self._elapsed_steps = 0
        return flatten(self._env.reset().observation)

    def step(self, action: Float32[np.ndarray, " A"]) -> Step:
        # In float64, as dm_control computes.
        control = denormalize_actions(action, self._low, self._high)
        total, last, discount, observation = 0.0, False, 1.0, {}
        for _ in range(self.spec.action_repeat):
            last, reward, discount, observation = self._frame(control)
            total += reward
            if last:
                break
        self._elapsed_steps += 1
        terminated = last and discount == 0.0
        truncated = not terminated and (last or self._elapsed_steps >= self.spec.episode_length)
        return validate_step(self.spec, Step(flatten(observation), total, terminated, truncated, False))

    def _frame(self, control: np.ndarray) -> tuple[bool, float, float, Mapping[str, np.ndarray]]:
        step = self._env.step(control)
        return step.last(), float(step.reward), float(step.discount), step.observation

    def render(self) -> UInt8[np.ndarray, "H W 3"]:
        try:
            size = self._render_size
            return self._render_thread.run(self._env.physics.render, size, size, camera_id=0)
        except Exception as error:
            raise_render_error(self.spec.task, error)

    def close(self) -> None:
        # The environment's own `close` does nothing.
        self._render_thread.close(self._env.physics.free)


def flatten(observation: Mapping[str, np.ndarray]) -> Float32[np.ndarray, "*obs"]:
    """Concatenate all entries to one vector, in the mapping's order (which dm_control keeps fixed for a task)."""
    return np.concatenate([np.ravel(value) for value in observation.values()]).astype(np.float32)


def task_names() -> list[str]:
    """List every `<domain>-<task>` but `lqr`, which has unbounded actions and no time limit."""
    return sorted(f"{domain}-{task}" for domain, task in suite.ALL_TASKS if domain != "lqr")


make = DMControl
