"""`cdred expert`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.progress import Progress

from cdred.cli.words import understood
from cdred.config import PresetName, RunConfig, preset


@dataclass(frozen=True)
class Expert:
    """Train TD-MPC2 on the environment's own reward and record its best seed's episodes as demonstrations."""

    task: Annotated[str, tyro.conf.Positional]
    """metaworld/<task>, dmc/<domain>-<task>, gym/<id>."""
    out: Path
    """Where the demonstrations go: a new folder, or a new .npz file."""
    num: int = 100
    """Episodes to keep."""
    steps: int = 50_000
    """Steps of training, per seed."""
    seeds: tuple[int, ...] = (0,)
    """Seeds, trained in lockstep; the best one is recorded."""
    threshold: float | None = None
    """Least return of an episode that is kept; every one if not given."""
    preset: PresetName = "cpu"
    """Settings of the training."""
    run: str = ""
    """Run folder of the training; runs/<task>-tdmpc2-<preset> if empty. One that is there is gone on with."""


def main(arguments: list[str]) -> None:
    """Train, record with progress, describe."""
    options = understood(lambda words: tyro.cli(Expert, args=words, prog="cdred expert"), arguments, "cdred expert")
    from cdred.api import train_expert
    from cdred.cli.demos import Info, info

    with Progress(auto_refresh=False) as progress:
        bar = progress.add_task(options.task, total=options.num, visible=False)

        def show(kept: int, attempts: int) -> None:
            text = f"{options.task}: {kept} of {attempts} episodes kept"
            progress.update(bar, completed=kept, description=text, visible=True, refresh=True)

        train_expert(run_config(options), options.out, num=options.num, threshold=options.threshold, on_episode=show)
    info(Info(options.out))


def run_config(options: Expert) -> RunConfig:
    """Settings of the training run that `options` ask for."""
    return replace(
        preset(options.preset),
        task=options.task,
        algo="tdmpc2",
        steps=options.steps,
        seeds=options.seeds,
        out=options.run,
    )
