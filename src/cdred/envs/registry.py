"""From a task's name to an environment: `metaworld/drawer-close`, `dmc/cheetah-run`, `maniskill/PickCube`.

A suite is imported when the first of its tasks is made, so each works without the packages of the others.
"""

import difflib
import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float32

from cdred.envs.base import Env
from cdred.envs.remote.interpreter import Interpreter
from cdred.errors import UserError

if TYPE_CHECKING:
    # At run time it would import JAX, which processes that only step simulators do without.
    from cdred.envs.jax_env import JaxEnv


class Suite(NamedTuple):
    """Where a suite's adapter lives and which extra of the package brings what it needs (None: nothing more).

    An adapter has `make(name, render_size)` and `names()`. It may have `scripted_expert(name)` or
    `planned_expert(name)`, `host()` where the suite lives in an interpreter of its own, and `functional(name)` where
    its simulators are JAX functions.
    """

    module: str
    extra: str | None = None


SUITES = {
    "metaworld": Suite("cdred.envs.suites.metaworld", "metaworld"),
    "dmc": Suite("cdred.envs.suites.dmc", "dmc"),
    "gym": Suite("cdred.envs.suites.gym"),
    "maniskill": Suite("cdred.envs.suites.maniskill"),
    "mjx": Suite("cdred.envs.suites.mjx", "mjx"),
    "probe": Suite("cdred.envs.suites.probes"),
    "jaxprobe": Suite("cdred.envs.suites.jax_probes"),
}


class NoExpertError(UserError):
    """A task whose suite brings nobody who can do it."""


class Expert(Protocol):
    """A scripted expert for one episode: make a new one for the next."""

    def __call__(self, obs: Float32[np.ndarray, "*obs"], success: bool = False) -> Float32[np.ndarray, " A"]:
        """Its action in [-1, 1]; `success` tells whether the step before reached the goal."""
        ...


class ExpertMaker(Protocol):
    """Makes one expert an episode."""

    def __call__(self, *, hold: bool = False) -> Expert:
        """An expert that, with `hold`, stands still after its first success."""
        ...


class PlannerMaker(Protocol):
    """Makes the expert of one episode, who knows all of it beforehand."""

    about: str

    def __call__(self, env: Any, seed: int, hold: bool = False) -> Expert:
        """The expert of the episode of `seed`, planned where `env` lives; `hold` as for scripted ones."""
        ...


def make(task: str, *, render_size: int | None = None) -> Env:
    """The environment of a task.

    Args:
        task: `<suite>/<name>`.
        render_size: side of rendered frames in pixels; None leaves it to the suite.

    Raises:
        UserError: no such suite or task (with the nearest names), or a package is missing (with the extra to install).
    """
    suite, name = _split(task)
    return _adapter(suite).make(name, render_size)


def names(suite: str) -> list[str]:
    """All tasks of a suite, as `make` takes them.

    Raises:
        UserError: no such suite, or a package is missing.
    """
    return [f"{suite}/{name}" for name in _adapter(suite).names()]


def host(task: str) -> Interpreter | None:
    """The interpreter of its own that a task's suite lives in; None for a suite that lives in this one.

    Raises:
        UserError: as `make`, or that interpreter is not set up (with how to do it).
    """
    suite, _ = _split(task)
    find = getattr(_adapter(suite), "host", None)
    return find() if find else None


def functional(task: str) -> "JaxEnv | None":
    """A task's simulator as pure JAX functions, the same object at every call; None where it lives on the host.

    Raises:
        UserError: as `make`.
    """
    suite, name = _split(task)
    find = getattr(_adapter(suite), "functional", None)
    return find(name) if find else None


def scripted_expert(task: str) -> ExpertMaker:
    """The suite's own expert for a task: `scripted_expert(task)(hold=True)(obs, success)` is an action.

    Raises:
        NoExpertError: there is none.
    """
    suite, name = _split(task)
    find = getattr(_adapter(suite), "scripted_expert", None)
    maker = find(name) if find else None
    if maker is None:
        raise NoExpertError(
            f"{task} has no scripted expert: give demonstrations with --demos PATH, "
            f"or make an expert with `cdred expert {task}`."
        )
    return maker


def planned_expert(task: str) -> PlannerMaker | None:
    """The suite's own planner for a task, if any: `planned_expert(task)(env, seed)(obs, success)` is an action."""
    suite, name = _split(task)
    find = getattr(_adapter(suite), "planned_expert", None)
    return find(name) if find else None


def _split(task: str) -> tuple[str, str]:
    suite, slash, name = task.partition("/")
    if not slash or not name:
        raise UserError(f"'{task}' is not a task: expected SUITE/NAME with a suite of {', '.join(SUITES)}.")
    known = _adapter(suite).names()
    # Gymnasium knows more than it lists (ids that import their own module), and explains itself.
    if suite != "gym" and name not in known:
        raise UserError(f"no task '{task}'.{_did_you_mean(name, known, f'{suite}/')}")
    return suite, name


def _adapter(suite: str) -> ModuleType:
    if suite not in SUITES:
        raise UserError(f"no suite '{suite}'.{_did_you_mean(suite, list(SUITES), '')} There are: {', '.join(SUITES)}.")
    module, extra = SUITES[suite]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        mend = f"pip install 'cdred[{extra}]'" if extra else "reinstall cdred"
        raise UserError(f"{suite} tasks need a package that cannot be imported ({error}): {mend}") from error


def _did_you_mean(word: str, known: list[str], prefix: str) -> str:
    close = difflib.get_close_matches(word, known, n=3)
    return f" Did you mean {', '.join(prefix + one for one in close)}?" if close else ""
