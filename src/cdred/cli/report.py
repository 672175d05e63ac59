"""`cdred report`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cdred.cli.options import parse_options
from cdred.console import print_text
from cdred.errors import UserError
from cdred.files import check_output_file
from cdred.report.run_report import write_report
from cdred.report.table import markdown_table


@dataclass(frozen=True)
class ReportOptions:
    """Draw report.png in each run folder and print a table of the finished runs."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folders."""
    table: Path | None = None
    """Write the table to this Markdown file."""


def main(arguments: list[str]) -> None:
    """Draw the reports and print the table."""
    options = parse_options(ReportOptions, arguments, "cdred report")
    if not options.runs:
        raise UserError("no run folder given. Usage: cdred report RUN ...")
    check_output_file(options.table)
    for run in options.runs:
        print_text(f"report: {write_report(run)}")
    finished = [run for run in options.runs if (run / "result.json").exists()]
    if finished:
        table = markdown_table(finished)
        print_text(table)
        if options.table:
            options.table.parent.mkdir(parents=True, exist_ok=True)
            options.table.write_text(table + "\n")
