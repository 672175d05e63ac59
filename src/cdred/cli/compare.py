"""`cdred compare`."""

from dataclasses import dataclass, fields
from typing import Annotated

import tyro

from cdred.api import compare
from cdred.cli.options import parse_options
from cdred.cli.presets import MAIN_SETTINGS, preset_config
from cdred.config import AlgoName, RunConfig
from cdred.console import print_text


@dataclass(frozen=True)
class CompareOptions(RunConfig):
    """Train several methods one after another with the same settings, demonstrations and seeds, and compare them.

    The folder --out gets a run folder per method, table.md, table.json and curves.png. The same command again resumes.
    """

    algo: Annotated[AlgoName, tyro.conf.Fixed, tyro.conf.Suppress] = "cdred"
    algos: tuple[AlgoName, ...] = ("cdred", "iqmpc", "iqlearn-sac", "gail", "red", "bc")
    """Methods to train; the others are compared with the first."""


def main(arguments: list[str]) -> None:
    """Parse the settings, train, print the table."""
    options = parse(arguments)
    print_text(compare(RunConfig(**_run_settings(options)), options.algos))


def parse(arguments: list[str]) -> CompareOptions:
    """Parse command-line options on top of the preset that they name.

    Raises:
        UserError, SystemExit: as `parse_options`.
    """
    # A missing default makes the task required.
    default = CompareOptions(**_run_settings(preset_config(arguments)) | {"task": tyro.MISSING})
    shown = (*MAIN_SETTINGS, "algos")
    return parse_options(CompareOptions, arguments, "cdred compare", default=default, main_options=shown)


def _run_settings(config: RunConfig) -> dict:
    return {field.name: getattr(config, field.name) for field in fields(RunConfig)}
