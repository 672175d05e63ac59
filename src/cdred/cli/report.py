"""`cdred report`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cdred.cli.words import understood
from cdred.errors import UserError
from cdred.files import check_output_file


@dataclass(frozen=True)
class ReportOptions:
    """Draw report.png into each run folder, and print the table of the finished ones."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders."""
    table: Path | None = None
    """A file for the table, in Markdown."""


def main(arguments: list[str]) -> None:
    """Draw and print."""
    options = understood(
        lambda words: tyro.cli(ReportOptions, args=words, prog="cdred report"), arguments, "cdred report"
    )
    if not options.runs:
        raise UserError("give the folders of one or more runs: cdred report RUN ...")
    from cdred.report.run_report import write_report
    from cdred.report.table import markdown_table

    check_output_file(options.table)
    for run in options.runs:
        print(f"report: {write_report(run)}")
    finished = [run for run in options.runs if (run / "result.json").exists()]
    if finished:
        table = markdown_table(finished)
        print(table)
        if options.table:
            options.table.parent.mkdir(parents=True, exist_ok=True)
            options.table.write_text(table + "\n")
