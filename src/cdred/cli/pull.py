"""`cdred pull`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cdred.cli.options import parse_options
from cdred.console import print_text
from cdred.hub.pull import pull


@dataclass(frozen=True)
class PullOptions:
    """Copy a run that was pushed to a new run folder, and verify size and SHA-256 of every file.

    Nothing is executed."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")]
    """Folder that `cdred push` wrote, or hf://OWNER/NAME[/PATH][@REVISION], a repository of the Hugging Face hub."""
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """New run folder. One with the same files is left as it is; one with others is an error."""
    revision: str | None = None
    """Branch, tag or commit of the repository; the same as @REVISION in SRC."""


def main(arguments: list[str]) -> None:
    """Pull, with messages of what is downloaded and where it is."""
    options = parse_options(PullOptions, arguments, "cdred pull")
    pull(options.source, options.run, revision=options.revision, log=print_text)
