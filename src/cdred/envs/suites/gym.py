"""Any Gymnasium environment whose observations and actions are boxes."""

import difflib
import warnings

import gymnasium
import numpy as np
from gymnasium.error import DependencyNotInstalled, UnregisteredEnv
from gymnasium.spaces import Box, Space
from jaxtyping import Float32, UInt8

from cdred.envs.base import Step, checked, raise_render_error, resize_nearest
from cdred.errors import UserError
from cdred.types import EnvSpec

LIMIT_WHERE_NONE = 1000


class Gym:
    """One Gymnasium id; one frame is one step, observations are flattened.

    Success is read from `info["success"]` or `info["is_success"]` where a first step shows one of them.
    """

    def __init__(self, name: str, render_size: int | None = None):
        task = f"gym/{name}"
        self._env = opened(task, name)
        self._action_space = box(task, "action", self._env.action_space)
        bounds = np.array([self._action_space.low, self._action_space.high], np.float64).reshape(2, -1)
        if not np.isfinite(bounds).all():
            raise UserError(f"{task}: its actions have no bounds, so [-1, 1] cannot be scaled to them.")
        self._low, self._span = bounds[0], bounds[1] - bounds[0]
        obs_size = int(np.prod(box(task, "observation", self._env.observation_space).shape))
        self._render_size = render_size
        self._decisions = 0
        length, has_success = episode_length(task, self._env), self._reports_success()
        self.spec = EnvSpec(task, (obs_size,), self._low.size, length, has_success=has_success, can_terminate=True)

    def _reports_success(self) -> bool:
        self._env.reset(seed=0)
        info = self._env.step(self._native(np.zeros(self._low.size, np.float32)))[-1]
        return "success" in info or "is_success" in info

    def reset(self, seed: int) -> Float32[np.ndarray, "*obs"]:
        self._decisions = 0
        return flatten(self._env.reset(seed=int(seed))[0])

    def step(self, action: Float32[np.ndarray, " A"]) -> Step:
        obs, reward, terminated, truncated, info = self._env.step(self._native(action))
        self._decisions += 1
        # Our own clock for environments without one; elsewhere Gymnasium's strikes at the same step.
        late = not terminated and self._decisions >= self.spec.episode_length
        success = info.get("success", info.get("is_success", False))
        step = Step(flatten(obs), float(reward), bool(terminated), bool(truncated) or late, success)
        return checked(self.spec, step)._replace(success=bool(success))

    def _native(self, action: Float32[np.ndarray, " A"]) -> np.ndarray:
        unit = (np.clip(action, -1.0, 1.0).astype(np.float64) + 1.0) / 2.0
        native = self._low + unit * self._span
        return native.reshape(self._action_space.shape).astype(self._action_space.dtype)

    def render(self) -> UInt8[np.ndarray, "H W 3"]:
        if self._env.render_mode != "rgb_array":
            raise UserError(f"{self.spec.task} cannot be rendered: it offers no `rgb_array` frames.")
        try:
            return resize_nearest(np.asarray(self._env.render(), np.uint8), self._render_size)
        except Exception as error:
            raise_render_error(self.spec.task, error)

    def close(self) -> None:
        self._env.close()


def opened(task: str, name: str) -> gymnasium.Env:
    """The environment `name`, with frames if it has any.

    Raises:
        UserError: no such id, a missing package, or an environment that refuses to be made.
    """
    try:
        env = gymnasium.make(name, disable_env_checker=True)
        if "rgb_array" in env.metadata.get("render_modes", ()):
            env.close()
            env = gymnasium.make(name, disable_env_checker=True, render_mode="rgb_array")
        return env
    except UnregisteredEnv as error:
        close = difflib.get_close_matches(name, names(), n=3)
        hint = f" Did you mean {', '.join(f'gym/{one}' for one in close)}?" if close else f" Gymnasium says: {error}"
        raise UserError(f"no environment {task}.{hint}") from error
    except (DependencyNotInstalled, ImportError) as error:
        raise UserError(f"{task} needs a package that is missing (pip install 'cdred[mujoco]'?): {error}") from error
    except gymnasium.error.Error as error:
        raise UserError(f"{task} cannot be made: {error}") from error


def box(task: str, role: str, space: Space) -> Box:
    """`space` itself.

    Raises:
        UserError: it is not a Box.
    """
    if not isinstance(space, Box):
        raise UserError(f"{task}: its {role} space is {space}; only continuous (Box) spaces can be used.")
    return space


def episode_length(task: str, env: gymnasium.Env) -> int:
    """The registered time limit in steps; where there is none, 1000, with a warning that says so."""
    limit = env.spec.max_episode_steps if env.spec else None
    if limit is None:
        warnings.warn(f"{task} has no time limit; its episodes are cut at {LIMIT_WHERE_NONE} steps.", stacklevel=3)
        return LIMIT_WHERE_NONE
    return limit


def flatten(obs: np.ndarray) -> Float32[np.ndarray, "*obs"]:
    """`obs` as one float32 vector of its own (environments may write to the array they returned)."""
    return np.array(obs, np.float32).ravel()


def names() -> list[str]:
    """Every registered id."""
    return sorted(gymnasium.registry)


make = Gym
