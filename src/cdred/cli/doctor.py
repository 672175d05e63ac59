"""`cdred doctor`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from cdred.cli.options import parse_options
from cdred.console import SafeConsole
from cdred.doctor.checks import Check
from cdred.doctor.device import check_device
from cdred.doctor.packages import check_packages, check_python
from cdred.doctor.rendering import check_rendering
from cdred.doctor.self_test import check_training
from cdred.doctor.suites import probe_suites, task_spec
from cdred.errors import UserError
from cdred.types import EnvSpec, PresetName

STYLES = {"ok": "green", "missing": "yellow", "problem": "bold red"}


@dataclass(frozen=True)
class DoctorOptions:
    """Check what is installed and what works: Python and packages, device, precision, memory of a preset, simulator
    suites, rendering, and a short training.

    Marks: ok; missing, for what is optional and cannot be used here; problem, for what is needed or installed and does
    not work. The exit code is 1 if there is a problem, else 0. Nothing is downloaded, and no files are left.
    Simulators, rendering and the training are tried in other processes with a time limit."""

    preset: PresetName = "cpu"
    """Compute the memory on the device of one seed of this preset."""
    task: str | None = None
    """Take the sizes of observations and actions for the memory from this task; None for one that can be made here."""
    self_test: bool = True
    """Train for some updates on a small task without a simulator, in a temporary folder, load the checkpoint and act.
    This takes about a minute of processor time, most of it to compile."""
    json: bool = False
    """Print JSON instead of a table."""


def main(arguments: list[str]) -> int:
    """Print the checks; returns 1 if there is a problem, else 0."""
    options = parse_options(DoctorOptions, arguments, "cdred doctor")
    console = SafeConsole(stderr=True)
    with console.status("checking") if console.is_terminal else console:
        checks = list(run_checks(options))
    problems = [check.name for check in checks if check.mark == "problem"]
    if options.json:
        print(json.dumps({"ok": not problems, "checks": [check._asdict() for check in checks]}, indent=1))
    else:
        print_checks(checks, problems)
    return 1 if problems else 0


def run_checks(options: DoctorOptions) -> Iterator[Check]:
    """Yield the results of all checks."""
    yield check_python()
    yield check_packages()
    suites = probe_suites()
    spec = next((suite.spec for suite in suites if suite.spec), None)
    yield from check_device(options.preset, _spec(options.task) if options.task else spec)
    for suite in suites:
        yield suite.check
    yield check_rendering()
    if options.self_test:
        yield check_training()


def _spec(task: str) -> EnvSpec:
    """Return the spec of a task.

    Raises:
        UserError: it cannot be made.
    """
    try:
        return task_spec(task)[0]
    except UserError:
        raise
    except Exception as error:  # whatever the simulator raises
        raise UserError(f"--task {task} cannot be made: {error}") from error


def print_checks(checks: list[Check], problems: list[str]) -> None:
    """Print a table, then how to fix what is not ok."""
    table = Table("check", "", "result", box=None, pad_edge=False)
    for check in checks:
        table.add_row(check.name, Text(check.mark, style=STYLES[check.mark]), check.result)
    console = SafeConsole()
    console.print(table)
    fixes = [check for check in checks if check.fix]
    if fixes:
        console.print("\nTo install or change what is not ok (make and pip install . in the folder of the repository):")
    for check in fixes:
        for command in check.fix.splitlines():
            # A command is copied: it must not be broken into lines.
            console.print(f"  {check.name}: {command}", soft_wrap=True)
    console.print(f"\nproblem: {', '.join(problems)}" if problems else "\nno problem", style="bold")
