"""`cdred train-expert`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.markup import escape
from rich.progress import Progress

from cdred.cli.demos import Info, info
from cdred.cli.options import parse_options
from cdred.config import PresetName, RunConfig, preset
from cdred.console import SafeConsole
from cdred.experts import train_expert
from cdred.task_name import IMAGE_SIZE, ObsKind
from cdred.types import TrackerName


@dataclass(frozen=True)
class TrainExpertOptions:
    """Train TD-MPC2 on the environment's reward and record episodes of its best seed as demonstrations."""

    task: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TASK")]
    """Task to train on: metaworld/<task>, dmc/<domain>-<task>, gym/<id>."""
    out: Path
    """Output of the demonstrations: a new folder (Minari) or a new .npz file, which images need."""
    obs: ObsKind = "state"
    """As in `cdred train`."""
    image_size: int = IMAGE_SIZE
    """As in `cdred train`."""
    num: int = 100
    """Number of episodes to keep."""
    steps: int = 50_000
    """Training steps per seed."""
    seeds: tuple[int, ...] = (0,)
    """Seeds, trained together; the one with the highest return is recorded."""
    threshold: float | None = None
    """Minimum return of an episode to be kept; None keeps every episode."""
    preset: PresetName = "cpu"
    """Preset of the training settings."""
    run: str = ""
    """Run folder of the training; runs/<task>-tdmpc2-<preset> if empty. An unfinished run is resumed."""
    imports: Annotated[tuple[str, ...], tyro.conf.arg(aliases=("--import",))] = ()
    """As in `cdred train`."""
    trackers: Annotated[tuple[TrackerName, ...], tyro.conf.arg(aliases=("--track",))] = ()
    """As in `cdred train`."""


def main(arguments: list[str]) -> None:
    """Train, record with a progress bar, summarize the demonstrations."""
    options = parse_options(TrainExpertOptions, arguments, "cdred train-expert")
    with Progress(console=SafeConsole(), auto_refresh=False) as progress:
        bar = progress.add_task(escape(options.task), total=options.num, visible=False)

        def on_episode(kept: int, attempts: int) -> None:
            text = escape(f"{options.task}: {kept} of {attempts} episodes kept")
            progress.update(bar, completed=kept, description=text, visible=True, refresh=True)

        train_expert(
            run_config(options), options.out, num=options.num, threshold=options.threshold, on_episode=on_episode
        )
    info(Info(options.out))


def run_config(options: TrainExpertOptions) -> RunConfig:
    """Return the settings of the training run."""
    return replace(
        preset(options.preset),
        algo="tdmpc2",
        task=options.task,
        obs=options.obs,
        image_size=options.image_size,
        steps=options.steps,
        seeds=options.seeds,
        out=options.run,
        imports=options.imports,
        trackers=options.trackers,
    )
