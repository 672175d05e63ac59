"""`cdred report`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class ReportOptions:
    """Draw report.png into each run folder, and print the table of the finished ones."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders."""
    table: Path | None = None
    """A file for the table, in Markdown."""


def main(arguments: list[str]) -> None:
    """Draw and print."""
    options = tyro.cli(ReportOptions, args=arguments, prog="cdred report")
    from cdred.studies.report import write_report
    from cdred.studies.table import markdown_table

    for run in options.runs:
        print(f"report: {write_report(run)}")
    finished = [run for run in options.runs if (run / "result.json").exists()]
    if finished:
        table = markdown_table(finished)
        print(table)
        if options.table:
            options.table.write_text(table + "\n")
