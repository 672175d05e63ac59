"""Gymnasium environments with Box actions, and observations of one Box or of Dict and Tuple spaces of them."""

import warnings
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import DependencyNotInstalled, UnregisteredEnv
from gymnasium.wrappers import TimeLimit
from jaxtyping import Float32, UInt8

from cdred.action_units import denormalize_actions
from cdred.envs.base import Step, raise_render_error, resize_nearest, validate_step
from cdred.envs.gym_spaces import join_name, named_parts, obs_boxes, require_box, split_images
from cdred.envs.render_thread import RenderThread
from cdred.errors import UserError
from cdred.resizing import resize_area
from cdred.suggest import did_you_mean
from cdred.types import EnvSpec

DEFAULT_TIME_LIMIT = 1000
RENDERS_SIZE, OBSERVES_IMAGES = True, True
SUCCESS_KEYS = ("success", "is_success")
MUJOCO_ENV = "gymnasium.envs.mujoco.mujoco_env.MujocoEnv"
# Bound on the episode that finds out if a task reports success.
MAX_PROBE_STEPS = 2000
# Result of that episode by task, with the registered environment or function for which it was run: a name may be given
# to another one.
_reports_success: dict[str, tuple[object, bool]] = {}


class Gym:
    """One Gymnasium environment; one frame per step.

    Observations are flattened in the order of the observation space, as Gymnasium's `FlattenObservation` does.
    Success is `info["success"]` or `info["is_success"]`, False in steps whose `info` has neither; a task that reports
    neither at any step of an episode without motion has no success (`reports_success`).

    Args:
        task: name of the task.
        make_env: makes a new environment at each call.
        render_size: side of rendered frames in pixels; None keeps the environment's.
        origin: what `make_env` makes environments from; None for the registered environment of their id.
        image_size: height and width of the image, if the observation space has one; None refuses images.
    """

    def __init__(
        self,
        task: str,
        make_env: Callable[[], gymnasium.Env],
        render_size: int | None = None,
        origin: object | None = None,
        image_size: int | None = None,
    ):
        self._render_thread = RenderThread()
        # With images every call is in the thread, because an environment that observes its own renders in its steps.
        self._call = _call_directly if image_size is None else self._render_thread.run
        self._env = self._call(make_env)
        self._action_space = require_box(task, "action", self._env.action_space)
        bounds = np.array([self._action_space.low, self._action_space.high], np.float64).reshape(2, -1)
        if not np.isfinite(bounds).all():
            raise UserError(f"{task}: its action space is unbounded; actions in [-1, 1] cannot be scaled to it.")
        self._low, self._high = bounds
        space, self._image_size, self._image = self._env.observation_space, image_size, None
        split = (obs_boxes(task, space), None) if image_size is None else split_images(task, space)
        self._obs_boxes, self._image_box = split
        obs_size = sum(box.width for box in self._obs_boxes)
        self._render_size = render_size
        self._elapsed_steps = 0
        length = time_limit(task, self._env)
        origin = _registered(self._env) if origin is None else origin
        motionless = self._native(np.zeros(self._low.size, np.float32))
        probe_call = _call_directly if image_size is None else RenderThread().run
        has_success = probe_call(reports_success, task, make_env, origin, motionless, length)
        self.spec = EnvSpec(
            task,
            (obs_size,),
            self._low.size,
            length,
            has_success=has_success,
            can_terminate=True,
            action_low=tuple(self._low.tolist()),
            action_high=tuple(self._high.tolist()),
            obs_parts=self._obs_parts(),
            control_timestep=control_timestep(self._env),
        )

    def _obs_parts(self) -> tuple[tuple[str, int], ...]:
        image = None if self._image_box is None else join_name(self._image_box.path)
        return tuple(part for part in named_parts(self._env) if part[0] != image)

    def reset(self, seed: int) -> Float32[np.ndarray, "*obs"]:
        self._elapsed_steps = 0
        return self._observe(self._call(self._env.reset, seed=int(seed))[0])

    def step(self, action: Float32[np.ndarray, " A"]) -> Step:
        obs, reward, terminated, truncated, info = self._call(self._env.step, self._native(action))
        self._elapsed_steps += 1
        # For environments without a time limit; with one, Gymnasium truncates at the same step.
        time_is_up = not terminated and self._elapsed_steps >= self.spec.episode_length
        success = self._success(info)
        step = Step(self._observe(obs), float(reward), bool(terminated), bool(truncated) or time_is_up, success)
        return validate_step(self.spec, step)._replace(success=bool(success))

    def _success(self, info: dict[str, Any]) -> Any:
        flag = success_flag(info)
        if flag is not None and not self.spec.has_success:
            warnings.warn(
                f"{self.spec.task} reports success now, but did not in the episode that looked for it, so it is not "
                "counted: put 'success' into the info of every step, or of the last one of every episode.",
                stacklevel=3,
            )
        return flag if flag is not None and self.spec.has_success else False

    def _observe(self, obs: Any) -> Float32[np.ndarray, " obs"]:
        """Copy `obs` to one vector (environments may write to an array after returning it), and keep its image."""
        if self._image_box is not None:
            self._image = self._image_box.read_array(self.spec.task, obs).copy()
        return np.concatenate([np.zeros(0, np.float32), *(box.read(self.spec.task, obs) for box in self._obs_boxes)])

    def observed_image(self) -> UInt8[np.ndarray, "H W 3"] | None:
        """Return the image of the last observation, resized; None if the observation space has none."""
        if self._image is None or self._image_size is None:
            return None
        return resize_area(self._image, self._image_size)

    def _native(self, action: Float32[np.ndarray, " A"]) -> np.ndarray:
        native = denormalize_actions(action, self._low, self._high)
        return native.reshape(self._action_space.shape).astype(self._action_space.dtype)

    def render(self) -> UInt8[np.ndarray, "H W 3"]:
        if self._env.render_mode != "rgb_array":
            raise UserError(f"{self.spec.task} cannot be rendered: it has no render mode `rgb_array`.")
        try:
            return resize_nearest(np.asarray(self._render_thread.run(self._env.render), np.uint8), self._render_size)
        except Exception as error:
            raise_render_error(self.spec.task, error)

    def close(self) -> None:
        self._render_thread.close(self._env.close)


def _call_directly(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def make(name: str, render_size: int | None = None, image_size: int | None = None) -> Gym:
    """Make the environment of the id `name`; with `image_size` its observations may have an image.

    Raises:
        UserError: as `make_gym`, or its spaces are not supported.
    """
    task = f"gym/{name}"
    return Gym(task, partial(make_gym, task, name), render_size, image_size=image_size)


def _registered(env: gymnasium.Env) -> object | None:
    return gymnasium.registry.get(env.spec.id) if env.spec else None


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
        own = "--import the module or file that registers an environment of your own"
        raise UserError(f"no environment {task}.{hint} {own}, also for --vectorization process.") from error
    except (DependencyNotInstalled, ImportError) as error:
        raise UserError(f"{task} needs a package that is missing (pip install 'cdred[mujoco]'?): {error}") from error
    except gymnasium.error.Error as error:
        raise UserError(f"{task} cannot be made: {error}") from error


def success_flag(info: dict[str, Any]) -> Any:
    """Return the success flag of a step; None if it has none."""
    return next((info[key] for key in SUCCESS_KEYS if key in info), None)


def reports_success(
    task: str, make_env: Callable[[], gymnasium.Env], origin: object | None, action: np.ndarray, limit: int
) -> bool:
    """Return True if some step of an episode in which every action is `action` has a success flag.

    It is an episode, not a step, because an environment may report success at the end only, as Stable-Baselines3's
    do. It runs in an instance of its own, and once for each origin.

    Args:
        task: full name of the task.
        make_env: as for `Gym`.
        origin: what environments are made from; None if unknown, and the episode is run at every call.
        action: an action in the environment's own units.
        limit: steps after which an episode ends.
    """
    known_origin, known = _reports_success.get(task, (None, False))
    if origin is None or known_origin is not origin:
        known = _probe_success(task, make_env, action, limit)
        _reports_success[task] = (origin, known)
    return known


def _probe_success(task: str, make_env: Callable[[], gymnasium.Env], action: np.ndarray, limit: int) -> bool:
    unknown = ""
    with closing(make_env()) as probe:
        try:
            probe.reset(seed=0)
            for _ in range(min(limit, MAX_PROBE_STEPS)):
                *_, terminated, truncated, info = probe.step(action)
                if success_flag(info) is not None:
                    return True
                if terminated or truncated:
                    return False
        except Exception as error:  # whatever the simulator raises
            unknown = f"the episode that looked for it failed ({type(error).__name__}: {error})"
    if limit > MAX_PROBE_STEPS and not unknown:
        unknown = f"no step of the first {MAX_PROBE_STEPS} of an episode has it, and later ones were not tried"
    if unknown:
        warnings.warn(f"{task}: no success will be counted, because {unknown}.", stacklevel=4)
    return False


def control_timestep(env: gymnasium.Env) -> float | None:
    """Return the seconds that a step of one of Gymnasium's MuJoCo environments lasts; None for others, which have no
    attribute that always means it."""
    simulator: Any = env.unwrapped
    # By name, because importing the class imports MuJoCo.
    is_mujoco = any(f"{cls.__module__}.{cls.__name__}" == MUJOCO_ENV for cls in type(simulator).__mro__)
    return float(simulator.dt) if is_mujoco else None


def time_limit(task: str, env: gymnasium.Env) -> int:
    """Return the time limit in steps, of a `TimeLimit` wrapper or the registration; without one, warn and return
    `DEFAULT_TIME_LIMIT`."""
    limit = _wrapped_time_limit(env) or (env.spec.max_episode_steps if env.spec else None)
    if limit is None:
        warnings.warn(
            f"{task} has no time limit; its episodes are truncated after {DEFAULT_TIME_LIMIT} steps.", stacklevel=3
        )
        return DEFAULT_TIME_LIMIT
    return limit


def _wrapped_time_limit(env: gymnasium.Env) -> int | None:
    limits = []
    while isinstance(env, gymnasium.Wrapper):
        limits += [env._max_episode_steps] if isinstance(env, TimeLimit) else []
        env = env.env
    return min(limits, default=None)


def task_names() -> list[str]:
    """List every registered id."""
    return sorted(gymnasium.registry)
