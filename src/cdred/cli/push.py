"""`cdred push`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cdred.cli.options import parse_options
from cdred.console import print_text
from cdred.hub.push import push


@dataclass(frozen=True)
class PushOptions:
    """Share a run: copy what is needed to evaluate, act with, export and report it, with the size and SHA-256 of every
    file and a model card. Paths of this machine are left out. `cdred pull` copies it to a run folder again."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder."""
    dest: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DEST")]
    """New folder, or hf://OWNER/NAME[/PATH][@REVISION], a repository of the Hugging Face hub, which is created if it
    does not exist. There, an earlier push to the same path is replaced, in one commit."""
    revision: str | None = None
    """Branch of the repository, created if it does not exist; the same as @REVISION in DEST."""
    all_checkpoints: bool = False
    """Push all checkpoints, that of the best evaluation during training too, instead of the newest alone."""
    replay_buffer: bool = False
    """Push the replay buffer, too, without which the run can be evaluated but not resumed."""
    videos: bool = True
    """Push the videos."""
    private: bool = True
    """Make a new repository private. One that exists keeps its visibility."""
    license: str | None = None
    """License to name in the model card, by its identifier on the hub, such as mit; None for no statement."""


def main(arguments: list[str]) -> None:
    """Push, and print where the run is."""
    options = parse_options(PushOptions, arguments, "cdred push")
    pushed = push(
        options.run,
        options.dest,
        revision=options.revision,
        all_checkpoints=options.all_checkpoints,
        replay_buffer=options.replay_buffer,
        videos=options.videos,
        private=options.private,
        license=options.license,
        log=print_text,
    )
    print_text(f"pushed: {pushed}")
