"""`cdred tasks`."""

import json
import warnings
from dataclasses import dataclass
from itertools import groupby
from typing import Annotated, Any

import tyro
from rich.progress import Progress
from rich.table import Column, Table

from cdred.cli.options import parse_options
from cdred.console import SafeConsole
from cdred.demos.catalog import TaskInfo, list_tasks, with_sizes
from cdred.errors import UserError
from cdred.suggest import did_you_mean
from cdred.text import plural

# Environments that are made for their sizes without being asked to.
MAX_MADE = 20
UNKNOWN = "-"
# Columns of the table where the output is no terminal.
WIDE = 140


@dataclass(frozen=True)
class TasksOptions:
    """List tasks: size of observations and actions, steps of an episode, demonstrations, and if the task loads here.

    Sizes are known once the environment has been made, which takes up to seconds per task: this is done for the tasks
    that match PATTERN if they are no more than 20, and for all of them with --sizes. What is not known is shown as "-".
    "loads here" is yes if the environment was made, "installed" if it was not tried, or the command that installs what
    is missing (make: in the folder of the repository). Why an environment cannot be made is below the table."""

    pattern: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATTERN")] = ""
    """Part of a task's name, such as walker, or a pattern of the shell in quotes for the whole name, such as
    'dmc/*-walk'. All tasks without it."""
    sizes: bool = False
    """Make every listed environment for its sizes."""
    json: bool = False
    """Print JSON instead of a table; null is unknown."""


def main(arguments: list[str]) -> None:
    """Print the tasks."""
    options = parse_options(TasksOptions, arguments, "cdred tasks")
    tasks, unlisted = list_tasks(options.pattern)
    if not tasks:
        raise UserError(_no_match(options.pattern, unlisted))
    made = options.sizes or (options.pattern != "" and len(tasks) <= MAX_MADE)
    if made:
        tasks = _make_all(tasks)
    if options.json:
        print(json.dumps([info._asdict() for info in tasks], indent=1))
        return
    console = SafeConsole()
    if not console.is_terminal:
        console.width = WIDE
    console.print(task_table(tasks))
    for note in _notes(tasks, unlisted, made):
        console.print(note, soft_wrap=True)


def _no_match(pattern: str, unlisted: dict[str, str]) -> str:
    names = [info.task for info in list_tasks()[0]]
    missing = f" Suites that are not installed cannot list their tasks: {', '.join(unlisted)}." if unlisted else ""
    return f"no task matches '{pattern}'.{did_you_mean(pattern, names, num=3)}{missing}"


def _make_all(tasks: list[TaskInfo]) -> list[TaskInfo]:
    """Add the sizes of the tasks, with a progress bar on standard error."""
    console = SafeConsole(stderr=True)
    with (
        warnings.catch_warnings(),
        Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        # Of a missing time limit, or an old version of a task: they are for a run.
        warnings.simplefilter("ignore")
        bar = progress.add_task("making environments", total=len(tasks))
        return with_sizes(tasks, lambda done: progress.update(bar, completed=done))


def task_table(tasks: list[TaskInfo]) -> Table:
    """Make the table of tasks, in sections of suites."""
    columns = ("observation", "action", "steps", "demonstrations", "loads here")
    table = Table(Column("task", no_wrap=True), *columns, box=None, pad_edge=False)
    for _, group in groupby(tasks, key=lambda info: info.task.partition("/")[0]):
        for info in group:
            table.add_row(*_row(info))
        table.add_section()
    return table


def _row(info: TaskInfo) -> tuple[str, ...]:
    shape = UNKNOWN if info.obs_shape is None else " x ".join(map(str, info.obs_shape))
    return (
        info.task,
        shape,
        _number(info.action_dim),
        _number(info.episode_length),
        demonstrations(info),
        loads_here(info),
    )


def _number(value: Any) -> str:
    return UNKNOWN if value is None else str(value)


def demonstrations(info: TaskInfo) -> str:
    """Say where demonstrations of a task come from."""
    sources = [f"bundled {info.bundled}"] if info.bundled else []
    experts = {"scripted": "scripted expert", "planned": "motion planner", None: "", "none": ""}
    sources += filter(None, [experts[info.expert]])
    return ", ".join(sources) or (UNKNOWN if info.expert is None else "none")


def loads_here(info: TaskInfo) -> str:
    """Say if a task loads here, or how to install what is missing; no if no command is known."""
    if info.loads is None:
        return "installed"
    if info.loads:
        return "yes"
    return info.install or "no"


def _notes(tasks: list[TaskInfo], unlisted: dict[str, str], made: bool) -> list[str]:
    suites = {info.task.partition("/")[0] for info in tasks}
    notes = [plural(len(tasks), "task")]
    refused = [info for info in tasks if info.loads is False and not info.install]
    notes += [f"no: {info.task}: {(info.reason or '').removeprefix(info.task).lstrip(': ')}" for info in refused]
    if not made:
        notes.append("Sizes: give a PATTERN that matches up to 20 tasks, or --sizes.")
    if "gym" in suites and not made:
        notes.append("gym lists every registered id; those with discrete actions or images are refused.")
    notes += [f"{suite} cannot list its tasks: {command}" for suite, command in unlisted.items()]
    notes.append("env/<module>:<function> is any function that makes a Gymnasium environment.")
    return notes
