"""Minimal environments in NumPy with known optimal policies, for tests without a simulator."""

from collections.abc import Callable
from functools import partial

import numpy as np
from jaxtyping import Float32, UInt8

from cdred.envs.base import Env, Step, validate_step
from cdred.errors import UserError
from cdred.types import EnvSpec

EPISODE_LENGTH = 20
DEFAULT_RENDER_SIZE = 64
RENDERS_SIZE = True
WHITE, GREEN, BLUE = (255, 255, 255), (40, 160, 80), (40, 80, 200)


class Point:
    """Point mass in the box [-1, 1]^2 that must reach a goal and stay there.

    Observation: position (2), goal (2). Action: velocity (2). Reward: minus the distance to the goal. Success: within
    `RADIUS` of it. Moving straight at full speed reaches every goal within 14 of the 20 steps.
    """

    SPEED = 0.15
    RADIUS = 0.1

    def __init__(self, render_size: int | None = None):
        self.spec = EnvSpec("probe/point", (4,), 2, EPISODE_LENGTH, has_success=True)
        self._position = self._goal = np.zeros(2)
        self._elapsed_steps = 0
        self._render_size = render_size or DEFAULT_RENDER_SIZE

    def reset(self, seed: int) -> Float32[np.ndarray, " 4"]:
        self._position, self._goal = np.random.default_rng(seed).uniform(-1.0, 1.0, (2, 2))
        self._elapsed_steps = 0
        return self._obs()

    def _obs(self) -> Float32[np.ndarray, " 4"]:
        return np.concatenate([self._position, self._goal]).astype(np.float32)

    def step(self, action: Float32[np.ndarray, " 2"]) -> Step:
        velocity = self.SPEED * np.clip(action, -1.0, 1.0)
        self._position = np.clip(self._position + velocity, -1.0, 1.0)
        self._elapsed_steps += 1
        distance = float(np.linalg.norm(self._position - self._goal))
        step = Step(self._obs(), -distance, False, self._elapsed_steps >= EPISODE_LENGTH, distance <= self.RADIUS)
        return validate_step(self.spec, step)

    def render(self) -> UInt8[np.ndarray, "H W 3"]:
        size = self._render_size
        frame = np.full((size, size, 3), WHITE, np.uint8)
        axis = np.linspace(-1.0, 1.0, size)
        for (x, y), color in ((self._goal, GREEN), (self._position, BLUE)):
            # Rows count downwards, so the last row is y = -1.
            frame[(axis[None, :] - x) ** 2 + (axis[::-1, None] - y) ** 2 <= self.RADIUS**2] = color
        return frame

    def close(self) -> None:
        pass


class TerminatingLine:
    """Point on a line with terminal states beyond -1 and 1 and reward -1 per step: the optimum is to terminate soon.

    Observation: position (1), starting in [-0.5, 0.5]. Action: velocity (1). An episode's return is minus its length.
    The value of a terminal state is 0; an agent that bootstraps from it instead has no incentive to terminate.
    """

    SPEED = 0.2

    def __init__(self, render_size: int | None = None):
        del render_size
        self.spec = EnvSpec("probe/dying", (1,), 1, EPISODE_LENGTH, can_terminate=True)
        self._position = 0.0
        self._elapsed_steps = 0

    def reset(self, seed: int) -> Float32[np.ndarray, " 1"]:
        self._position = float(np.random.default_rng(seed).uniform(-0.5, 0.5))
        self._elapsed_steps = 0
        return self._obs()

    def _obs(self) -> Float32[np.ndarray, " 1"]:
        return np.array([self._position], np.float32)

    def step(self, action: Float32[np.ndarray, " 1"]) -> Step:
        self._position += self.SPEED * float(np.clip(action[0], -1.0, 1.0))
        self._elapsed_steps += 1
        terminated = abs(self._position) > 1.0
        truncated = not terminated and self._elapsed_steps >= EPISODE_LENGTH
        return validate_step(self.spec, Step(self._obs(), -1.0, terminated, truncated, False))

    def render(self) -> UInt8[np.ndarray, "H W 3"]:
        raise UserError("probe/dying does not support rendering.")

    def close(self) -> None:
        pass


_PROBES: dict[str, Callable[[int | None], Env]] = {"point": Point, "dying": TerminatingLine}


class PointExpert:
    """Expert of `probe/point`: moves straight to the goal and stays there."""

    def __init__(self, stop_after_success: bool = False):
        del stop_after_success

    def __call__(self, obs: Float32[np.ndarray, " 4"], success: bool = False) -> Float32[np.ndarray, " 2"]:
        del success
        return np.clip((obs[2:] - obs[:2]) / Point.SPEED, -1.0, 1.0).astype(np.float32)


def task_names() -> list[str]:
    """List the probes, without suite."""
    return sorted(_PROBES)


def make(name: str, render_size: int | None = None) -> Env:
    """Make the probe `name`."""
    return _PROBES[name](render_size)


def scripted_expert(name: str) -> partial[PointExpert] | None:
    """Return the constructor of one episode's expert; None if there is none."""
    return partial(PointExpert) if name == "point" else None
