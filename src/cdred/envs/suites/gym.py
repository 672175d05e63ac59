"""Gymnasium environments with Box observations and actions."""

import warnings

import gymnasium
import numpy as np
from gymnasium.error import DependencyNotInstalled, UnregisteredEnv
from gymnasium.spaces import Box, Space
from jaxtyping import Float32, UInt8

from cdred.action_units import denormalize_actions
from cdred.envs.base import Step, raise_render_error, resize_nearest, validate_step
from cdred.errors import UserError
from cdred.suggest import did_you_mean
from cdred.types import EnvSpec

DEFAULT_TIME_LIMIT = 1000


class Gym:
    """One Gymnasium environment; one frame per step, observations are flattened.

    Success is `info["success"]` or `info["is_success"]` if the first step reports one of them.
    """

    def __init__(self, name: str, render_size: int | None = None):
        task = f"gym/{name}"
        self._env = make_gym(task, name)
        self._action_space = require_box(task, "action", self._env.action_space)
        bounds = np.array([self._action_space.low, self._action_space.high], np.float64).reshape(2, -1)
        if not np.isfinite(bounds).all():
            raise UserError(f"{task}: its action space is unbounded; actions in [-1, 1] cannot be scaled to it.")
        self._low, self._high = bounds
        obs_size = int(np.prod(require_box(task, "observation", self._env.observation_space).shape))
        self._render_size = render_size
        self._elapsed_steps = 0
        length, has_success = time_limit(task, self._env), self._reports_success()
        self.spec = EnvSpec(
            task,
            (obs_size,),
            self._low.size,
            length,
            has_success=has_success,
            can_terminate=True,
            action_low=tuple(self._low.tolist()),
            action_high=tuple(self._high.tolist()),
        )

    def _reports_success(self) -> bool:
        self._env.reset(seed=0)
        info = self._env.step(self._native(np.zeros(self._low.size, np.float32)))[-1]
        return "success" in info or "is_success" in info

    def reset(self, seed: int) -> Float32[np.ndarray, "*obs"]:
        self._elapsed_steps = 0
        return flatten(self._env.reset(seed=int(seed))[0])

    def step(self, action: Float32[np.ndarray, " A"]) -> Step:
        obs, reward, terminated, truncated, info = self._env.step(self._native(action))
        self._elapsed_steps += 1
        # For environments without a time limit; with one, Gymnasium truncates at the same step.
        time_is_up = not terminated and self._elapsed_steps >= self.spec.episode_length
        success = info.get("success", info.get("is_success", False))
        step = Step(flatten(obs), float(reward), bool(terminated), bool(truncated) or time_is_up, success)
        return validate_step(self.spec, step)._replace(success=bool(success))

    def _native(self, action: Float32[np.ndarray, " A"]) -> np.ndarray:
        native = denormalize_actions(action, self._low, self._high)
        return native.reshape(self._action_space.shape).astype(self._action_space.dtype)

    def render(self) -> UInt8[np.ndarray, "H W 3"]:
        if self._env.render_mode != "rgb_array":
            raise UserError(f"{self.spec.task} cannot be rendered: it has no render mode `rgb_array`.")
        try:
            return resize_nearest(np.asarray(self._env.render(), np.uint8), self._render_size)
        except Exception as error:
            raise_render_error(self.spec.task, error)

    def close(self) -> None:
        self._env.close()


def make_gym(task: str, name: str) -> gymnasium.Env:
    """Make the environment `name`, in render mode `rgb_array` if it has one.

    Raises:
        UserError: unknown id, missing package, or invalid environment.
    """
    try:
        env = gymnasium.make(name, disable_env_checker=True)
        if "rgb_array" in env.metadata.get("render_modes", ()):
            env.close()
            env = gymnasium.make(name, disable_env_checker=True, render_mode="rgb_array")
        return env
    except UnregisteredEnv as error:
        hint = did_you_mean(name, task_names(), prefix="gym/", num=3) or f" Gymnasium reports: {error}"
        raise UserError(f"no environment {task}.{hint}") from error
    except (DependencyNotInstalled, ImportError) as error:
        raise UserError(f"{task} needs a package that is missing (pip install 'cdred[mujoco]'?): {error}") from error
    except gymnasium.error.Error as error:
        raise UserError(f"{task} cannot be made: {error}") from error


def require_box(task: str, role: str, space: Space) -> Box:
    """Return `space` unchanged.

    Raises:
        UserError: it is not a Box.
    """
    if not isinstance(space, Box):
        raise UserError(f"{task}: its {role} space is {space}; only continuous (Box) spaces are supported.")
    return space


def time_limit(task: str, env: gymnasium.Env) -> int:
    """Return the registered time limit in steps; without one, warn and return `DEFAULT_TIME_LIMIT`."""
    limit = env.spec.max_episode_steps if env.spec else None
    if limit is None:
        warnings.warn(
            f"{task} has no time limit; its episodes are truncated after {DEFAULT_TIME_LIMIT} steps.", stacklevel=3
        )
        return DEFAULT_TIME_LIMIT
    return limit


def flatten(obs: np.ndarray) -> Float32[np.ndarray, "*obs"]:
    """Copy `obs` to one float32 vector (environments may write to an array after returning it)."""
    return np.array(obs, np.float32).ravel()


def task_names() -> list[str]:
    """List every registered id."""
    return sorted(gymnasium.registry)


make = Gym
