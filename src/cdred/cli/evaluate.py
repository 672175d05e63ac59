"""`cdred eval`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cdred.cli.words import understood
from cdred.config import PlannerName
from cdred.files import check_output_file


@dataclass(frozen=True)
class EvalOptions:
    """Evaluate a run's agents on fresh episodes without exploration; needs the run's folder alone."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder."""
    episodes: int = 20
    """Episodes per seed."""
    planner: PlannerName | None = None
    """How to act: planning, or the policy prior alone; as the run was trained if not given."""
    best: bool = False
    """Evaluate the agents that did best in one of the run's evaluations, not the last ones. They are chosen by the
    environment's own success and return, which an imitator does not have: say so where you report them."""
    json: Path | None = None
    """A file for the result."""


def main(arguments: list[str]) -> None:
    """Evaluate, print a table, write JSON if asked."""
    options = understood(lambda words: tyro.cli(EvalOptions, args=words, prog="cdred eval"), arguments, "cdred eval")
    from rich.console import Console
    from rich.table import Table

    from cdred.api import evaluate_run

    check_output_file(options.json)
    result = evaluate_run(options.run, episodes=options.episodes, planner=options.planner, best=options.best)
    columns = {"seed": [str(seed) for seed in result["seeds"]], "return": [f"{one:,.1f}" for one in result["return"]]}
    if result["success"] is not None:
        columns["success"] = [f"{one:.0%}" for one in result["success"]]
        columns["success at the end"] = [f"{one:.0%}" for one in result["success_at_end"]]
    if result["length"] is not None:
        columns["steps"] = [f"{one:,.0f}" for one in result["length"]]
    table = Table(*columns)
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    Console().print(table)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")
