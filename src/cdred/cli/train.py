"""`cdred train`."""

from dataclasses import replace

import tyro

from cdred.api import run_folder, train
from cdred.cli.options import parse_options
from cdred.cli.presets import MAIN_SETTINGS, preset_config
from cdred.config import RunConfig
from cdred.console import print_text

DESCRIPTION = (
    "Train an agent from expert demonstrations. All outputs are written to the run folder; "
    "the same command again resumes an interrupted run."
)


def main(arguments: list[str]) -> None:
    """Parse the settings and train."""
    config = parse(arguments)
    train(config)
    print_text(f"finished: {run_folder(config)}")


def parse(arguments: list[str]) -> RunConfig:
    """Parse command-line options on top of the preset that they name.

    Raises:
        UserError, SystemExit: as `parse_options`.
    """
    # A missing default makes the task required.
    default = replace(preset_config(arguments), task=tyro.MISSING)
    return parse_options(
        RunConfig, arguments, "cdred train", default=default, description=DESCRIPTION, main_options=MAIN_SETTINGS
    )
