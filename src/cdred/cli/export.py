"""`cdred export`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cdred.cli.options import parse_options
from cdred.console import print_text
from cdred.export.run import ExportFormat, export


@dataclass(frozen=True)
class ExportOptions:
    """Export the policy of a run, to act without cdred: raw observations in, actions in the environment's units out.

    The planner is not exported: of a run that acts by it, the policy is, and a message says so."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder."""
    to: ExportFormat
    """Format: ONNX, StableHLO of jax.export (for CPU and CUDA), or NumPy arrays."""
    out: Path | None = None
    """New file, named *.<format>; None for policy-seed<seed>.<format> in the run folder."""
    seed: int | None = None
    """One of the run's seeds; None for the first."""
    best: bool = False
    """Export the checkpoint with the best evaluation during training instead of the last one. It is selected by the
    environment's success and return, which an imitation learner does not have."""


def main(arguments: list[str]) -> None:
    """Export the policy and print where it is."""
    options = parse_options(ExportOptions, arguments, "cdred export")
    export(options.run, options.to, options.out, seed=options.seed, best=options.best, log=print_text)
