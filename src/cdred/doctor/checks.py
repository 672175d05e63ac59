"""Result of a check, and checks in another process with a time limit."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from cdred.text import shorten

Mark = Literal["ok", "missing", "problem"]
# Characters of an error message that are shown.
MAX_REASON = 300


class Check(NamedTuple):
    """Result of one check.

    Attributes:
        name: what was checked.
        mark: `ok`; `missing` for what is optional and cannot be used here; `problem` for what is needed or installed,
            and does not work.
        result: what was found, in one line.
        fix: commands that make it ok, one per line; empty if there is nothing to do or no command is known.
    """

    name: str
    mark: Mark
    result: str
    fix: str = ""


class ProbeError(Exception):
    """A check in another process failed, ended that process, or took too long; the message is the reason."""


def run_probe(
    module: str, arguments: tuple[str, ...] = (), *, seconds: float, variables: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run `python -m MODULE ARGUMENTS` and return the JSON object in the last line of its output.

    Args:
        module: prints the object and exits with code 0.
        arguments: its arguments.
        seconds: after which the process is killed.
        variables: environment variables to set in addition.

    Raises:
        ProbeError: it takes longer, exits with another code or prints no object.
    """
    # -P: without the working directory, where files may have the names of packages.
    command = [sys.executable, "-P", "-m", module, *arguments]
    try:
        process = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            env=os.environ | (variables or {}),
        )
    except subprocess.TimeoutExpired:
        raise ProbeError(f"not finished after {seconds:g} s, and stopped") from None
    if process.returncode:
        raise ProbeError(_reason(process))
    try:
        return json.loads(process.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise ProbeError(f"no result from {module}") from None


def _reason(process: subprocess.CompletedProcess[str]) -> str:
    lines = process.stderr.split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    code = process.returncode
    ended = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
    return shorten(f"{last} ({ended})" if last else ended, MAX_REASON)
