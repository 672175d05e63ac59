"""From a task's name to an environment: `metaworld/drawer-close`, `dmc/walker-run?repeat=1`, `gym/Hopper-v5`.

A suite is imported when the first of its tasks is made, so each works without the packages of the others.
"""

import importlib
import math
import shlex
from collections.abc import Mapping
from contextlib import closing, suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float32

from cdred.envs.base import Env
from cdred.envs.pixels import PixelEnv
from cdred.envs.remote.interpreter import Interpreter
from cdred.errors import UserError
from cdred.suggest import did_you_mean
from cdred.task_name import (
    FRICTION,
    IMAGE_SIZE,
    KEYS,
    MASS,
    OBS,
    PLAIN_PHYSICS,
    REPEAT,
    SIZE,
    PhysicsFactors,
    parameters_of,
    split_parameters,
    with_obs,
    with_physics,
    with_repeat,
)
from cdred.types import EnvSpec

if TYPE_CHECKING:
    # At run time it would import JAX, which is not needed in processes that only step simulators.
    from cdred.envs.jax_env import JaxEnv


class Suite(NamedTuple):
    """Module of a suite's adapter, and how its dependencies are installed.

    `extra` of this package installs them, if there is one. `command` is used in its place where they need an
    environment of their own.

    An adapter has `make(name, render_size)` and `task_names()`. Optional are `scripted_expert(name)` and
    `planned_expert(name)`, `remote_interpreter()` for a suite with its own interpreter, and `jax_env(name)` for
    simulators that are JAX functions. A suite whose `make` accepts `action_repeat`, for tasks named `?repeat=<n>`, has
    `EPISODE_FRAMES`, which n divides, and the default `ACTION_REPEAT`. `SCALES_PHYSICS` is True if `make` accepts
    `physics`, for tasks named `?mass=<factor>` or `?friction=<factor>`. `RENDERS_SIZE` is True if `make` renders frames
    of `render_size`, which tasks named `?obs=pixels` need. `OBSERVES_IMAGES` is True if `make` accepts `image_size`,
    for environments with an image among their observations (`Gym.observed_image`).
    """

    module: str
    extra: str | None = None
    command: str | None = None


SUITES = {
    "metaworld": Suite("cdred.envs.suites.metaworld", "metaworld"),
    "dmc": Suite("cdred.envs.suites.dmc", "dmc"),
    "gym": Suite("cdred.envs.suites.gym"),
    "env": Suite("cdred.envs.suites.own"),
    "maniskill": Suite("cdred.envs.suites.maniskill", command="make maniskill"),
    "mjx": Suite("cdred.envs.suites.mjx", "mjx", "make mjx"),
    "probe": Suite("cdred.envs.suites.probes"),
    "jaxprobe": Suite("cdred.envs.suites.jax_probes"),
}


# Smaller images leave nothing after the encoder's convolutions; larger ones are not of use to it.
MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 32, 256
# Suites for users; the others test this package.
PUBLIC_SUITES = tuple(name for name in SUITES if not name.endswith("probe"))


class NoExpertError(UserError):
    """The suite has no scripted expert for this task."""


class Expert(Protocol):
    """A scripted expert in one episode; every episode needs a new one."""

    def __call__(self, obs: Float32[np.ndarray, "*obs"], success: bool = False) -> Float32[np.ndarray, " A"]:
        """Return the next action in [-1, 1]; `success` is that of the previous step."""
        ...


class ExpertMaker(Protocol):
    """Constructor of the scripted expert of one episode."""

    def __call__(self, *, stop_after_success: bool = False) -> Expert:
        """Make an expert; with `stop_after_success` it holds still after its first success."""
        ...


class PlannerMaker(Protocol):
    """Constructor of an expert that plans its whole episode in advance."""

    description: str

    def __call__(self, env: Any, seed: int, stop_after_success: bool = False) -> Expert:
        """Plan the episode of `seed` in the process of `env`; `stop_after_success` as for scripted experts."""
        ...


def make(task: str, *, render_size: int | None = None) -> Env:
    """Make the environment of a task.

    Args:
        task: `<suite>/<name>`, with the parameters of `cdred.task_name` where the suite allows them.
        render_size: side of rendered frames in pixels; None selects the suite's default.

    Raises:
        UserError: unknown suite or task (with the nearest names), a parameter that it does not have, or a missing
            package (with the extra to install).
    """
    suite, name, options = _parse(task)
    adapter = _adapter(suite)
    keywords: dict[str, Any] = {"action_repeat": options.repeat} if options.repeat else {}
    if options.physics != PLAIN_PHYSICS:
        keywords["physics"] = options.physics
    if options.obs == "state":
        return adapter.make(name, render_size, **keywords)
    if getattr(adapter, "OBSERVES_IMAGES", False):
        keywords["image_size"] = options.size
    env = adapter.make(name, options.size, **keywords)
    return PixelEnv(env, task, options.size, with_state=options.obs == "both", render_size=render_size)


def get_env_spec(task: str) -> EnvSpec:
    """Return the spec of a task.

    Raises:
        UserError: as `make`.
    """
    with closing(make(task)) as env:
        return env.spec


def list_tasks(suite: str) -> list[str]:
    """List the tasks of a suite as `<suite>/<name>`.

    Raises:
        UserError: unknown suite, or a missing package.
    """
    return [f"{suite}/{name}" for name in _adapter(suite).task_names()]


def install_command(task: str, extra: str | None = None) -> str:
    """Return the command that installs what a task, or all tasks of a suite, need.

    `make ...` and `pip install .` are for the folder of the repository.

    Args:
        task: name of the task or of its suite.
        extra: of this package, for tasks that need another one than their suite.

    Raises:
        UserError: unknown suite.
    """
    suite = _require_suite(task.partition("/")[0])
    extra = extra or suite.extra
    return suite.command or (f"pip install 'cdred[{extra}]'" if extra else "pip install .")


def at_action_repeat(task: str, action_repeat: int) -> str:
    """Return the name of a task at another action repeat.

    Raises:
        UserError: as `make`.
    """
    suite, _, _ = _parse(with_repeat(task, 0, 0))
    named = with_repeat(task, action_repeat, getattr(_adapter(suite), "ACTION_REPEAT", 1))
    _parse(named)
    return named


def without_images(task: str) -> str:
    """Return the name of a task without images, so that its simulator need not render, if it can be observed so.

    Raises:
        UserError: as `make`.
    """
    plain = with_obs(task, "state")
    with suppress(UserError):
        # An observation space with an image is refused where vectors are observed.
        get_env_spec(plain)
        return plain
    return task


def remote_interpreter(task: str) -> Interpreter | None:
    """Return the interpreter of a task's suite, or None if the suite runs in the current one.

    Raises:
        UserError: as `make`, or the interpreter is not set up.
    """
    suite, _, _ = _parse(task)
    find = getattr(_adapter(suite), "remote_interpreter", None)
    return find() if find else None


def jax_env(task: str) -> "JaxEnv | None":
    """Return a task's simulator as JAX functions, the same object at every call; None if it runs on the host.

    Raises:
        UserError: as `make`.
    """
    suite, name, options = _parse(task)
    find = getattr(_adapter(suite), "jax_env", None) if options.obs == "state" else None
    return find(name) if find else None


def scripted_expert(task: str) -> ExpertMaker:
    """Return the constructor of a task's scripted expert: `scripted_expert(task)()(obs)` is an action.

    Raises:
        NoExpertError: there is none.
    """
    suite, name, _ = _parse(task)
    find = getattr(_adapter(suite), "scripted_expert", None)
    maker = find(name) if find else None
    if maker is None:
        raise NoExpertError(
            f"{task} has no scripted expert: give demonstrations with --demos PATH, "
            f"or train an expert with `cdred train-expert {shlex.quote(task)}`."
        )
    return maker


def planned_expert(task: str) -> PlannerMaker | None:
    """Return the constructor of a task's planner, or None: `planned_expert(task)(env, seed)(obs)` is an action."""
    suite, name, _ = _parse(task)
    find = getattr(_adapter(suite), "planned_expert", None)
    return find(name) if find else None


class _Options(NamedTuple):
    """Parameters of a task's name; `repeat` is None if it states none."""

    repeat: int | None = None
    physics: PhysicsFactors = PLAIN_PHYSICS
    obs: str = "state"
    size: int = IMAGE_SIZE


def _parse(task: str) -> tuple[str, str, _Options]:
    """Return the suite, the name within it, and the parameters."""
    path = split_parameters(task)[0]
    suite, slash, name = path.partition("/")
    if not slash or not name:
        raise UserError(f"'{task}' is not a task: expected SUITE/NAME with a suite of {', '.join(PUBLIC_SUITES)}.")
    known = _adapter(suite).task_names()
    # Gymnasium accepts more ids than it lists (those that import their own module) and reports unknown ones itself, as
    # the suite of functions of the user does.
    if suite not in ("gym", "env") and name not in known:
        raise UserError(f"no task '{path}'.{did_you_mean(name, known, prefix=f'{suite}/', num=3)}")
    return suite, name, _options(task, path, _adapter(suite)) if "?" in task else _Options()


def _options(task: str, path: str, adapter: ModuleType) -> _Options:
    """Parse the parameters of a task's name; a default is refused, because a task must have one name."""
    stated = parameters_of(task)
    unknown = next((key for key in stated if key not in KEYS), None)
    if unknown is not None or not stated:
        raise UserError(
            f"'{task}': unknown parameter '{unknown or ''}', expected some of {', '.join(KEYS)}: '{path}?{REPEAT}=1', "
            f"'{path}?{OBS}=pixels&{SIZE}=32'."
        )
    options = _Options(
        _repeat(task, path, stated, adapter),
        PhysicsFactors(*(_factor(task, path, key, stated, adapter) for key in (MASS, FRICTION))),
        *_images(task, path, stated, adapter),
    )
    named = with_physics(with_repeat(path, options.repeat or 0, 0), options.physics)
    named = with_obs(named, options.obs, options.size)
    if task != named:
        raise UserError(f"'{task}': use the name '{named}' of this task.")
    return options


def _repeat(task: str, path: str, stated: Mapping[str, str], adapter: ModuleType) -> int | None:
    if REPEAT not in stated:
        return None
    value, frames = stated[REPEAT], getattr(adapter, "EPISODE_FRAMES", None)
    if frames is None:
        raise UserError(
            f"'{task}': tasks of this suite have no parameter {REPEAT}, expected '{path}'. The action repeat can be "
            f"chosen in dmc and metaworld, as in 'dmc/walker-walk?{REPEAT}=1'."
        )
    divisors = [str(n) for n in range(1, frames + 1) if frames % n == 0]
    if value not in divisors:
        raise UserError(
            f"'{task}': {REPEAT} should be a divisor of the {frames} frames of an episode "
            f"({', '.join(divisors)}), got '{value}'."
        )
    if int(value) == adapter.ACTION_REPEAT:
        raise UserError(f"'{task}': {value} is the suite's action repeat, use the plain name '{path}'.")
    return int(value)


def _factor(task: str, path: str, key: str, stated: Mapping[str, str], adapter: ModuleType) -> float:
    """Return a factor of the simulator's physics."""
    if key not in stated:
        return 1.0
    if not getattr(adapter, "SCALES_PHYSICS", False):
        raise UserError(
            f"'{task}': tasks of this suite have no parameter {key}, expected '{path}'; dmc and metaworld do."
        )
    try:
        factor = float(stated[key])
    except ValueError:
        factor = 0.0
    if not 0.0 < factor < math.inf or factor == 1.0:
        raise UserError(f"'{task}': {key} should be a positive factor other than 1, as 0.5, got '{stated[key]}'.")
    return factor


def _images(task: str, path: str, stated: Mapping[str, str], adapter: ModuleType) -> tuple[str, int]:
    """Return the kind of observation and the size of its images."""
    obs, size = stated.get(OBS, "state"), stated.get(SIZE, str(IMAGE_SIZE))
    if OBS in stated and obs not in ("pixels", "both"):
        raise UserError(f"'{task}': {OBS} should be pixels or both, got '{obs}'; the plain name '{path}' has states.")
    if obs == "state" and SIZE in stated:
        raise UserError(f"'{task}': {SIZE} is that of images, but there are none without {OBS}=pixels or {OBS}=both.")
    if obs != "state" and not getattr(adapter, "RENDERS_SIZE", False):
        raise UserError(f"'{task}': tasks of this suite cannot be rendered as observations; use '{path}'.")
    if not (size.isascii() and size.isdecimal()) or not MIN_IMAGE_SIZE <= int(size) <= MAX_IMAGE_SIZE:
        raise UserError(
            f"'{task}': {SIZE} should be an integer of {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE} pixels, got '{size}'."
        )
    return obs, int(size)


def _require_suite(suite: str) -> Suite:
    if suite not in SUITES:
        near = did_you_mean(suite, PUBLIC_SUITES, num=3)
        raise UserError(f"no suite '{suite}'.{near} There are: {', '.join(PUBLIC_SUITES)}.")
    return SUITES[suite]


def _adapter(suite: str) -> ModuleType:
    module = _require_suite(suite).module
    try:
        return importlib.import_module(module)
    except ImportError as error:
        hint = install_command(suite)
        raise UserError(f"{suite} tasks need a package that cannot be imported ({error}): {hint}") from error
