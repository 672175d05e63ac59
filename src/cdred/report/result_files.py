"""Files of a finished run in a folder of results: its evaluations as CSV, and its settings and result as JSON."""

import csv
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cdred.config import RunConfig
from cdred.report.results import RunResults, read_result, read_run

COLUMNS = ("step", "seed", "return", "success", "episodes")


def write_result_files(folder: Path, config: RunConfig, path: Path, command: str, **extra: Any) -> None:
    """Write the evaluations of a finished run to a CSV file, and JSON beside it.

    Args:
        folder: run folder.
        config: its settings.
        path: the CSV file; the other one ends in `.json`, and has `config`, `result` and `command`.
        command: the command that repeats the run.
        extra: further entries of the JSON.

    Raises:
        UserError: the run has no readable result.
    """
    run = read_run(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(evaluation_rows(run, config.seeds))
    settings = {name: value for name, value in asdict(config).items() if name != "out"}
    document = {"config": settings, "result": read_result(folder), "command": command, **extra}
    path.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")


def evaluation_rows(run: RunResults, seeds: tuple[int, ...]) -> Iterator[tuple[Any, ...]]:
    """Return a row per evaluation and seed, of `COLUMNS`; success is empty where the task has none."""
    for line in run.lines:
        if line["kind"] == "eval":
            success = line.get("success") or [""] * len(seeds)
            for seed, score, rate in zip(seeds, line["episode_return"], success, strict=True):
                yield line["step"], seed, score, rate, line["episodes"]
