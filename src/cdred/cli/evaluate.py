"""`cdred eval`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table

from cdred.api import evaluate
from cdred.cli.options import parse_options
from cdred.config import PlannerName
from cdred.console import SafeConsole, print_text
from cdred.files import check_output_file


@dataclass(frozen=True)
class EvalOptions:
    """Evaluate the agents of a run on unseen episodes without exploration. Only the run folder is needed."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder."""
    episodes: int = 20
    """Episodes per seed."""
    planner: PlannerName | None = None
    """How to act: MPPI planning (mppi) or the policy alone (policy); None as at the end of the training run, where one
    of these or the pretrained policy was chosen."""
    best: bool = False
    """Evaluate the checkpoint with the best evaluation during training instead of the last one. It is selected by the
    environment's success and return, which an imitation learner does not have: state this when reporting its scores."""
    json: Path | None = None
    """Write the result to this JSON file."""


def main(arguments: list[str]) -> None:
    """Evaluate, write JSON if requested, print a table."""
    options = parse_options(EvalOptions, arguments, "cdred eval")
    check_output_file(options.json)
    result = evaluate(
        options.run, episodes=options.episodes, planner=options.planner, best=options.best, log=print_text
    )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    columns = {
        "seed": [str(seed) for seed in result["seeds"]],
        "return": [f"{value:,.1f}" for value in result["return"]],
        "lowest": [f"{min(values):,.1f}" for values in result["returns"]],
        "highest": [f"{max(values):,.1f}" for values in result["returns"]],
    }
    if result["success"] is not None:
        columns["success"] = [f"{rate:.0%}" for rate in result["success"]]
        columns["success at the end"] = [f"{rate:.0%}" for rate in result["success_at_end"]]
    if result["length"] is not None:
        columns["steps"] = [f"{length:,.0f}" for length in result["length"]]
    table = Table(*columns)
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    SafeConsole().print(table)
