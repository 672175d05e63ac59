"""Interpreters that environments can live in: this one, and those of suites whose packages clash with ours."""

import os
import sys
from pathlib import Path
from typing import NamedTuple

from cdred.errors import UserError

PROJECT = Path(__file__).parents[4]


class Interpreter(NamedTuple):
    """Where environments live.

    Attributes:
        python: the interpreter's path.
        suite: module that the interpreter imports (`cdred.envs...` or one of its own), see `server`.
        path: its module search path in addition to its own.
        mend: what to do where the interpreter lacks a package.
    """

    python: str
    suite: str
    path: tuple[str, ...] = ()
    mend: str = ""


def current_interpreter() -> Interpreter:
    """This very interpreter, serving every suite that it has."""
    return Interpreter(sys.executable, "cdred.envs.registry", tuple(entry for entry in sys.path if entry))


def environment(host: Interpreter) -> dict[str, str]:
    """Environment variables of a process there: ours, but for what would lead another interpreter astray."""
    own = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    return own | ({"PYTHONPATH": os.pathsep.join(host.path)} if host.path else {})


def interpreter(variable: str, folder: str, mend: str) -> str:
    """The path of a suite's own interpreter: `$variable`, or `folder`/bin/python here or in this project's folder.

    Raises:
        UserError: there is none; `mend` says how to get it.
    """
    told = os.environ.get(variable)
    roots = (Path.cwd(), PROJECT)
    found = [Path(told)] if told else [root / folder / "bin" / "python" for root in roots]
    for path in found:
        if path.is_file():
            return str(path)
    where = f"{variable} names {told}, which is not there" if told else f"there is no {folder} here or in {PROJECT}"
    raise UserError(f"{where}: {mend}")
