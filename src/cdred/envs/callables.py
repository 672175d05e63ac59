"""Environments that a function or class of the user makes, given as `env=` or named by a task `env/<module>:<name>`.

The name of the task is all that a run records of the function: worker processes, `cdred eval` and a resumed run import
it. A lambda, a function within a function and one of an interactive session cannot be imported; they are known only
within `given_env`.
"""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from cdred.envs.imports import import_modules
from cdred.errors import UserError

if TYPE_CHECKING:
    # At run time it would delay the import of the package.
    import gymnasium

EnvFactory = Callable[[], "gymnasium.Env"]

SUITE = "env"
_given: ContextVar[EnvFactory | None] = ContextVar("given_env", default=None)


class EnvName(NamedTuple):
    """Name of a function that makes environments.

    Attributes:
        task: `env/<module>:<name>`.
        imports: file to import it from, if it is in one that is not part of a package; see `cdred.envs.imports`.
        importable: other processes can import it.
    """

    task: str
    imports: tuple[str, ...]
    importable: bool


@contextmanager
def given_env(env: EnvFactory | None) -> Iterator[None]:
    """Make the environments of every `env/` task by `env` while the body runs; None changes nothing."""
    token = _given.set(env or _given.get())
    try:
        yield
    finally:
        _given.reset(token)


def name_env(env: EnvFactory) -> EnvName:
    """Return the name of a function or class.

    Raises:
        UserError: it has none, as an environment or a `functools.partial`, or needs arguments.
    """
    module, name = getattr(env, "__module__", None), getattr(env, "__qualname__", None)
    if not callable(env) or not module or not name:
        raise UserError(
            f"env should be a function or class that makes a Gymnasium environment, got {type(env).__name__}: define a "
            "function at the top level of a module, which returns a new environment at each call."
        )
    _check_no_arguments(env, name)
    source, file = _module_of(module)
    if source is None or _lookup(sys.modules.get(module), name) is not env:
        # Brackets, as those of a lambda, so that no other function is imported by this name.
        return EnvName(f"{SUITE}/{module}:{name if '<' in name else f'<{name}>'}", (), False)
    return EnvName(f"{SUITE}/{source}:{name}", (file,) if file else (), True)


def _check_no_arguments(env: EnvFactory, name: str) -> None:
    try:
        inspect.signature(env).bind()
    except TypeError as error:
        raise UserError(
            f"env is called without arguments, but {name} has a {error}: give a function without."
        ) from error
    except ValueError:
        return  # builtins have no signature


def _module_of(name: str) -> tuple[str | None, str]:
    """Return the name by which other processes import a module, None if they cannot, and its file if they need it."""
    module, known = sys.modules.get(name), name
    spec, path = getattr(module, "__spec__", None), Path(getattr(module, "__file__", None) or "")
    stem = path.stem if path.suffix == ".py" else None
    if name == "__main__":
        # Of `python -m module` the module's own name, of `python file.py` that of the file.
        known = spec.name if spec else stem
    return known, str(path.resolve()) if known == stem else ""


def _lookup(module: Any, name: str) -> Any:
    """Return the object of a qualified name in a module; None if there is none."""
    for part in name.split("."):
        module = getattr(module, part, None)
    return module


def resolve_env(task: str, name: str) -> EnvFactory:
    """Return the function that makes the environments of a task: the one given, or else the one of this name.

    Args:
        task: full name of the task, for messages.
        name: `<module>:<name>`.

    Raises:
        UserError: none is given, and the name cannot be imported.
    """
    env = _given.get()
    if env is not None:
        return env
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute:
        raise UserError(f"'{task}' is not a task: expected {SUITE}/MODULE:NAME, a function that makes environments.")
    if "<" in attribute:
        raise UserError(
            f"{task} is a lambda, a function within a function or one of an interactive session, which cannot be "
            "imported: give it as env= (cdred.train, cdred.evaluate, cdred.load), or define it at the top level of a "
            "module. --vectorization process and the command line need the latter."
        )
    import_modules([module])
    found = _lookup(sys.modules[module], attribute)
    if not callable(found):
        raise UserError(f"{task}: there is no function {attribute} in {module}.")
    return cast(EnvFactory, found)
