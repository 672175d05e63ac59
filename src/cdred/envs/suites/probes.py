"""Tiny worlds in plain NumPy whose answers are known: for tests of everything that would otherwise need a simulator."""

from collections.abc import Callable
from functools import partial

import numpy as np
from jaxtyping import Float32, UInt8

from cdred.envs.base import Env, Step, checked
from cdred.errors import UserError
from cdred.types import EnvSpec

EPISODE_LENGTH = 20
DEFAULT_RENDER_SIZE = 64
WHITE, GREEN, BLUE = (255, 255, 255), (40, 160, 80), (40, 80, 200)


class Point:
    """A point in the box [-1, 1]^2 that must go to a goal and stay there.

    Observation: position (2), goal (2). Action: velocity (2). Reward: minus the distance to the goal. Success: within
    `RADIUS` of it. Going straight at full speed reaches every goal within 14 of the 20 steps.
    """

    SPEED = 0.15
    RADIUS = 0.1

    def __init__(self, render_size: int | None = None):
        self.spec = EnvSpec("probe/point", (4,), 2, EPISODE_LENGTH, has_success=True)
        self._position = self._goal = np.zeros(2)
        self._decisions = 0
        self._render_size = render_size or DEFAULT_RENDER_SIZE

    def reset(self, seed: int) -> Float32[np.ndarray, " 4"]:
        self._position, self._goal = np.random.default_rng(seed).uniform(-1.0, 1.0, (2, 2))
        self._decisions = 0
        return self._obs()

    def _obs(self) -> Float32[np.ndarray, " 4"]:
        return np.concatenate([self._position, self._goal]).astype(np.float32)

    def step(self, action: Float32[np.ndarray, " 2"]) -> Step:
        velocity = self.SPEED * np.clip(action, -1.0, 1.0)
        self._position = np.clip(self._position + velocity, -1.0, 1.0)
        self._decisions += 1
        distance = float(np.linalg.norm(self._position - self._goal))
        step = Step(self._obs(), -distance, False, self._decisions >= EPISODE_LENGTH, distance <= self.RADIUS)
        return checked(self.spec, step)

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


class Dying:
    """A point on a line that dies beyond -1 and 1, where every step costs 1: the best it can do is die soon.

    Observation: position (1), starting in [-0.5, 0.5]. Action: velocity (1). An episode's return is minus its length,
    and the value beyond a death is 0: whoever forgets that a death ends all costs sees no reason to die.
    """

    SPEED = 0.2

    def __init__(self, render_size: int | None = None):
        del render_size
        self.spec = EnvSpec("probe/dying", (1,), 1, EPISODE_LENGTH, can_terminate=True)
        self._position = 0.0
        self._decisions = 0

    def reset(self, seed: int) -> Float32[np.ndarray, " 1"]:
        self._position = float(np.random.default_rng(seed).uniform(-0.5, 0.5))
        self._decisions = 0
        return self._obs()

    def _obs(self) -> Float32[np.ndarray, " 1"]:
        return np.array([self._position], np.float32)

    def step(self, action: Float32[np.ndarray, " 1"]) -> Step:
        self._position += self.SPEED * float(np.clip(action[0], -1.0, 1.0))
        self._decisions += 1
        dead = abs(self._position) > 1.0
        truncated = not dead and self._decisions >= EPISODE_LENGTH
        return checked(self.spec, Step(self._obs(), -1.0, dead, truncated, False))

    def render(self) -> UInt8[np.ndarray, "H W 3"]:
        raise UserError("probe/dying has no picture.")

    def close(self) -> None:
        pass


_PROBES: dict[str, Callable[[int | None], Env]] = {"point": Point, "dying": Dying}


class PointExpert:
    """Goes straight to the goal of `probe/point` and stays; `hold` and `success` make no difference to it."""

    def __init__(self, hold: bool = False):
        del hold

    def __call__(self, obs: Float32[np.ndarray, " 4"], success: bool = False) -> Float32[np.ndarray, " 2"]:
        del success
        return np.clip((obs[2:] - obs[:2]) / Point.SPEED, -1.0, 1.0).astype(np.float32)


def names() -> list[str]:
    """The probes, without suite."""
    return sorted(_PROBES)


def make(name: str, render_size: int | None = None) -> Env:
    """The probe `name`."""
    return _PROBES[name](render_size)


def scripted_expert(name: str) -> partial[PointExpert] | None:
    """Maker of one expert an episode; None where there is no expert."""
    return partial(PointExpert) if name == "point" else None
