"""`cdred train`."""

import tyro

from cdred.api import run_folder, train
from cdred.cli.presets import preset_config
from cdred.config import RunConfig

DESCRIPTION = (
    "Train an agent from expert demonstrations. All outputs are written to the run folder; "
    "the same command again resumes an interrupted run."
)


def main(arguments: list[str]) -> None:
    """Parse the settings and train."""
    config = parse(arguments)
    train(config)
    print(f"finished: {run_folder(config)}")


def parse(arguments: list[str]) -> RunConfig:
    """Parse command-line options on top of the preset that they name.

    Raises:
        SystemExit: with code 2 after a usage error, with code 0 after `--help`.
    """
    return tyro.cli(
        RunConfig, args=arguments, default=preset_config(arguments), prog="cdred train", description=DESCRIPTION
    )
