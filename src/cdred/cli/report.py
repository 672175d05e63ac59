"""`cdred report`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cdred.cli.options import parse_options
from cdred.console import print_text
from cdred.errors import UserError
from cdred.files import check_output_file
from cdred.report.find_runs import find_runs
from cdred.report.run_report import write_report
from cdred.report.table import markdown_table


@dataclass(frozen=True)
class ReportOptions:
    """Draw report.png in each run folder, or one HTML page of all runs, and print a table of the finished runs."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folders, or folders that contain some, such as those of `cdred compare`."""
    html: Path | None = None
    """Write one HTML page of all runs to this file, instead of images. It needs no other file and no network: figures
    and videos, up to 16 MiB of these, are in the page. The run folders are only read."""
    table: Path | None = None
    """Write the table to this Markdown file."""


def main(arguments: list[str]) -> None:
    """Draw the reports and print the table."""
    options = parse_options(ReportOptions, arguments, "cdred report")
    if not options.runs:
        raise UserError("no run folder given. Usage: cdred report RUN ...")
    check_output_file(options.table)
    check_output_file(options.html)
    runs = find_runs(options.runs)
    if options.html:
        from cdred.report.html.page import write_html  # here: reports as images need none of it

        print_text(f"report: {write_html(options.html, runs)}")
    else:
        for run in runs:
            print_text(f"report: {write_report(run)}")
    finished = [run for run in runs if (run / "result.json").exists()]
    if finished:
        table = markdown_table(finished)
        print_text(table)
        if options.table:
            options.table.parent.mkdir(parents=True, exist_ok=True)
            options.table.write_text(table + "\n")
