"""DeepMind Control suite: action repeat 2, 500 steps, observations flattened in dm_control's own order."""

from collections.abc import Mapping

import numpy as np
from dm_control import suite
from jaxtyping import Float32, UInt8

from cdred.envs.base import Step, checked, raise_render_error
from cdred.types import EnvSpec

ACTION_REPEAT = 2
EPISODE_LENGTH = 500
DEFAULT_RENDER_SIZE = 240


class DMControl:
    """One task of the suite, e.g. `cheetah-run` or `ball_in_cup-catch`.

    A discount of 0 would be a termination, which no task of the suite but the excluded lqr knows; any other end is a
    truncation.
    """

    def __init__(self, name: str, render_size: int | None = None):
        domain, task = name.split("-", 1)
        self._env = suite.load(domain, task)
        bounds = self._env.action_spec()
        self._low, self._high = bounds.minimum, bounds.maximum
        shape = flatten(self._env.reset().observation).shape
        self.spec = EnvSpec(f"dmc/{name}", shape, bounds.shape[0], EPISODE_LENGTH, ACTION_REPEAT)
        self._render_size = render_size or DEFAULT_RENDER_SIZE
        self._cheapen_rendering()
        self._decisions = 0

    def _cheapen_rendering(self) -> None:
        # Software rendering is several times faster without multisampling; only the first render reads these.
        quality = self._env.physics.model.vis.quality
        quality.offsamples, quality.shadowsize = 0, 512

    def reset(self, seed: int) -> Float32[np.ndarray, "*obs"]:
        # dm_control seeds at construction only; a new state for the task's generator is what construction would do.
        self._env.task._random = np.random.RandomState(seed)
        self._decisions = 0
        return flatten(self._env.reset().observation)

    def step(self, action: Float32[np.ndarray, " A"]) -> Step:
        # Through float64, as dm_control itself computes.
        unit = (np.clip(action, -1.0, 1.0).astype(np.float64) + 1.0) / 2.0
        control = self._low + unit * (self._high - self._low)
        total, last, discount, observation = 0.0, False, 1.0, {}
        for _ in range(ACTION_REPEAT):
            last, reward, discount, observation = self._frame(control)
            total += reward
            if last:
                break
        self._decisions += 1
        terminated = last and discount == 0.0
        truncated = not terminated and (last or self._decisions >= EPISODE_LENGTH)
        return checked(self.spec, Step(flatten(observation), total, terminated, truncated, False))

    def _frame(self, control: np.ndarray) -> tuple[bool, float, float, Mapping[str, np.ndarray]]:
        step = self._env.step(control)
        return step.last(), float(step.reward), float(step.discount), step.observation

    def render(self) -> UInt8[np.ndarray, "H W 3"]:
        try:
            return self._env.physics.render(self._render_size, self._render_size, camera_id=0)
        except Exception as error:
            raise_render_error(self.spec.task, error)

    def close(self) -> None:
        self._env.close()


def flatten(observation: Mapping[str, np.ndarray]) -> Float32[np.ndarray, "*obs"]:
    """One vector of all entries, in the mapping's order (which dm_control keeps fixed for a task)."""
    return np.concatenate([np.ravel(value) for value in observation.values()]).astype(np.float32)


def names() -> list[str]:
    """Every `<domain>-<task>` of the suite but `lqr`, whose actions have no bounds and whose episodes have no end."""
    return sorted(f"{domain}-{task}" for domain, task in suite.ALL_TASKS if domain != "lqr")


make = DMControl
