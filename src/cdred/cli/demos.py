"""`cdred demos collect` and `cdred demos info`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from cdred.types import DemoDataset


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
class Info:
    """Say what a demonstration file holds, after checking it."""

    path: Annotated[Path, tyro.conf.Positional]
    """A Minari dataset folder or an .npz file."""


def main(arguments: list[str]) -> None:
    """Do what the sub-verb says."""
    options = tyro.extras.subcommand_cli_from_dict(
        {"collect": Collect, "info": Info}, args=arguments, prog="cdred demos"
    )
    collect(options) if isinstance(options, Collect) else info(options.path)


def collect(options: Collect) -> None:
    """Collect with progress, save, describe."""
    from cdred.data.demos import save_demos
    from cdred.train.demonstrate import collect_scripted

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
    info(options.out)


def info(path: Path) -> None:
    """Print what the demonstrations at `path` are."""
    from cdred.data.demos import open_demos

    dataset = open_demos(path, mixed_horizons=True)
    table = Table(show_header=False, box=None, title=str(path), title_justify="left")
    for name, value in describe(dataset).items():
        table.add_row(name, value)
    Console().print(table)


def describe(dataset: DemoDataset) -> dict[str, str]:
    """The facts about a dataset, ready to read."""
    lengths = [len(one) for one in dataset]
    returns = np.array([one.episode_return for one in dataset])
    actions = np.concatenate([one.action for one in dataset])
    facts = {
        "task": dataset.task,
        "episodes": f"{len(dataset)}, {min(lengths)} to {max(lengths)} decisions",
        "observation": str(dataset[0].obs.shape[1:]),
        "action": f"{actions.shape[1:]}, from {actions.min():.2f} to {actions.max():.2f}",
        "return": f"{returns.mean():,.1f} on average, {returns.min():,.1f} to {returns.max():,.1f}",
    }
    if dataset[0].success is not None:
        any_time, at_end = (np.mean([getattr(one, name) for one in dataset]) for name in ("success_any", "success_end"))
        facts["success"] = f"{any_time:.0%} at any time, {at_end:.0%} at the end"
    return facts | {key: str(value) for key, value in dataset.provenance.items()}
