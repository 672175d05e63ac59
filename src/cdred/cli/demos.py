"""`cdred demos collect`, `cdred demos convert`, `cdred demos info` and `cdred demos list`."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from cdred.cli.words import understood
from cdred.data.formats.registry import FormatName, require_place
from cdred.files import check_new_path


@dataclass(frozen=True)
class Collect:
    """Record successful episodes of a task's scripted expert or planner: a Minari dataset folder, or an .npz file."""

    task: Annotated[str, tyro.conf.Positional]
    """metaworld/<task>, maniskill/<task>"""
    out: Path
    """Where to; must not exist."""
    num: int = 10
    """Episodes to keep."""
    seed: int = 0
    """Seed of the collection."""


@dataclass(frozen=True)
class Convert:
    """Rewrite demonstrations of any known format (Minari, LeRobot, robomimic, ManiSkill, D4RL, npz) for training."""

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")]
    """The folder or file to read; its format is seen from what is in it."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DST")]
    """Where to; must not exist."""
    task: str | None = None
    """The task that they are of, as `cdred train` names it, such as metaworld/window-open; None keeps what is there."""
    obs_keys: tuple[str, ...] | None = None
    """Where observations are in several parts: those to join, in this order. None for what is usual in the format,
    which is all vectors sorted by name, in LeRobot the state and the environment's state, and never pictures."""
    format: FormatName | None = None
    """What to write; None for npz where the name ends in .npz, and minari elsewhere."""
    rescale_actions: bool = False
    """Bring actions to [-1, 1]: from the bounds that the file declares, else from the smallest and the largest in it
    (then the environment must use the same bounds). Which they were is kept in the provenance."""


@dataclass(frozen=True)
class Info:
    """Say what a demonstration file holds, and whether it is fit to learn from."""

    path: Annotated[Path, tyro.conf.Positional]
    """A folder or file in any format that `cdred demos convert` reads."""
    obs_keys: tuple[str, ...] | None = None
    """As in `cdred demos convert`."""
    plot: Path | None = None
    """Draw histograms of the action's components into this PNG; must not exist."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class List:
    """List the demonstrations that come with the package, which `cdred train TASK --demos N` takes."""


def main(arguments: list[str]) -> None:
    """Do what the sub-verb says."""
    verbs = {"collect": Collect, "convert": Convert, "info": Info, "list": List}
    prog = "cdred demos"
    options = understood(
        lambda words: tyro.extras.subcommand_cli_from_dict(verbs, args=words, prog=prog), arguments, prog
    )
    {Collect: collect, Convert: convert, Info: info, List: list_shipped}[type(options)](options)


def collect(options: Collect) -> None:
    """Collect with progress, save, describe."""
    from cdred.data.demonstrations import save_demos
    from cdred.demos.scripted import collect_scripted

    require_place(options.out)
    with Progress() as progress:
        bar = progress.add_task(options.task, total=options.num)
        dataset = collect_scripted(
            options.task,
            options.num,
            seed=options.seed,
            on_episode=lambda kept, attempts: progress.update(
                bar, completed=kept, description=f"{options.task}: {kept} of {attempts} episodes kept"
            ),
        )
    save_demos(dataset, options.out)
    info(Info(options.out))


def convert(options: Convert) -> None:
    """Read, rename, save, describe what was saved."""
    from cdred.data.demonstrations import load_demos, save_demos

    require_place(options.out, options.format)
    with _progress(f"reading {options.source}") as told:
        dataset = load_demos(
            options.source,
            allow_variable_horizon=True,
            obs_keys=options.obs_keys,
            rescale_actions=options.rescale_actions,
            require_actions=False,
            on_progress=told,
        )
    dataset = dataset if options.task is None else replace(dataset, task=options.task)
    with _progress(f"writing {options.out}") as told:
        save_demos(dataset, options.out, options.format, on_progress=told)
    info(Info(options.out))


def info(options: Info) -> None:
    """Print what the demonstrations are; draw them if asked to."""
    from cdred.data.demonstrations import inspect_demos
    from cdred.data.describe import draw_actions, facts, lines

    if options.plot:
        check_new_path(options.plot)
    with _progress(f"reading {options.path}") as told:
        dataset, unfit = inspect_demos(options.path, options.obs_keys, told)
    found = facts(dataset)
    if options.json:
        print(json.dumps(found | {"unfit": unfit}, indent=1))
    else:
        table = Table(show_header=False, box=None, title=str(options.path), title_justify="left")
        for name, value in (lines(found) | {"fit to learn from": f"no: {unfit}" if unfit else "yes"}).items():
            table.add_row(name, value)
        Console().print(table)
    if options.plot:
        draw_actions(dataset, options.plot, options.path.name)


def list_shipped(_options: List) -> None:
    """Print a line for each task."""
    from cdred.data.demonstrations import load_demos
    from cdred.data.shipped import shipped_sets

    table = Table("task", "number", "return", "expert", box=None)
    for task, path in shipped_sets().items():
        dataset = load_demos(path)
        returns = [one.episode_return for one in dataset]
        spread = f"{sum(returns) / len(returns):,.0f} ({min(returns):,.0f} to {max(returns):,.0f})"
        table.add_row(task, str(len(dataset)), spread, str(dataset.provenance["expert"]))
    Console().print(table)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that vanishes when the work is done, apart from what is printed."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)
