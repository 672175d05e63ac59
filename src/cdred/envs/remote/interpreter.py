"""Interpreters that run environments: the current one, and those of suites with conflicting packages."""

import os
import sys
from pathlib import Path
from typing import NamedTuple

from cdred.envs.imports import imported
from cdred.errors import UserError

PROJECT = Path(__file__).parents[4]


class Interpreter(NamedTuple):
    """A Python interpreter that serves the environments of a suite.

    Attributes:
        python: path of the interpreter.
        suite: module that it imports (`cdred.envs...` or one of its own), see `server`.
        path: additional entries of its module search path.
        install_hint: how to install what the interpreter lacks.
        imports: modules to import before an environment is made, see `cdred.envs.imports`.
    """

    python: str
    suite: str
    path: tuple[str, ...] = ()
    install_hint: str = ""
    imports: tuple[str, ...] = ()


def current_interpreter() -> Interpreter:
    """Return the running interpreter, serving all of its suites."""
    # An empty entry is the working directory.
    path = tuple(entry or os.getcwd() for entry in sys.path)
    return Interpreter(sys.executable, "cdred.envs.registry", path, imports=imported())


def subprocess_env(interpreter: Interpreter) -> dict[str, str]:
    """Return the environment variables for a process of `interpreter`: the current ones with another PYTHONPATH."""
    inherited = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    return inherited | ({"PYTHONPATH": os.pathsep.join(interpreter.path)} if interpreter.path else {})


def find_interpreter(variable: str, folder: str, install_hint: str) -> str:
    """Return the path of a suite's own interpreter.

    Args:
        variable: environment variable that may name it.
        folder: virtual environment, searched in the working directory and in this project's folder.
        install_hint: how to create it.

    Raises:
        UserError: it does not exist.
    """
    configured = os.environ.get(variable)
    roots = (Path.cwd(), PROJECT)
    candidates = [Path(configured)] if configured else [root / folder / "bin" / "python" for root in roots]
    for path in candidates:
        if path.is_file():
            return str(path)
    missing = (
        f"{variable}={configured} does not exist"
        if configured
        else f"there is no {folder} in the working directory or in {PROJECT}"
    )
    raise UserError(f"{missing}: {install_hint}")
