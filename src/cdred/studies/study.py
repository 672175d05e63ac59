"""What a study is, and the files that it writes."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cdred.provenance import provenance
from cdred.studies.records import RunRecord
from cdred.sweep.sweep_file import SweepFile
from cdred.types import LogFn

if TYPE_CHECKING:
    # At run time it would delay every command.
    from matplotlib.figure import Figure

Scale = Literal["cpu", "paper"]


class RunsPath(str):
    """Path below the folder of a study's runs, as the value of a setting; `{seeds}` in it stands for those of a run."""


class StudyResult(NamedTuple):
    """What a study found.

    Attributes:
        columns: names of the columns of the data.
        rows: the data, a value per column.
        table: Markdown of the statistics.
        figure: the figure.
        details: further entries of `study.json`.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    table: str
    figure: "Figure"
    details: dict[str, Any]


@dataclass(frozen=True)
class TrainingStudy:
    """Study of training runs.

    Attributes:
        question: what it answers, a sentence.
        sweeps: returns the runs at a scale, without folder and seeds; those of several sweeps are put together.
        reference: label of the runs that the others are compared with.
        threshold: fraction of the expert's score of which the table has the steps that it takes.
        references: labels that are compared with others than that, and with which.
        signal: metric of `scores.SIGNALS` that the figure shows against steps, beside the scores; None for none.
        prepare: makes the files that the runs of a scale need, unless they exist, in the folder of the runs.
    """

    question: str
    sweeps: Callable[[Scale], Sequence[SweepFile]]
    reference: str
    threshold: float = 0.9
    references: Mapping[str, str] = field(default_factory=dict)
    signal: str | None = None
    prepare: Callable[[Scale, Path, LogFn], None] | None = None


@dataclass(frozen=True)
class Measurement:
    """Study without runs.

    Attributes:
        question: what it answers, a sentence.
        measure: makes it, at a scale, for a number of seeds; reports its progress.
    """

    question: str
    measure: Callable[[Scale, int, LogFn], StudyResult]


@dataclass(frozen=True)
class RunAnalysis:
    """Study of runs that others have trained.

    Attributes:
        question: what it answers, a sentence.
        analyse: makes it, from the records of all finished runs.
    """

    question: str
    analyse: Callable[[Sequence[RunRecord]], StudyResult]


Study = TrainingStudy | Measurement | RunAnalysis


def write_result(folder: Path, result: StudyResult, **about: Any) -> None:
    """Write `data.csv`, `table.md`, `figure.png` and `study.json` of a study to its folder.

    The device, commit and versions in `study.json` are those of this process.

    Args:
        folder: the folder.
        result: what was found.
        about: further entries of `study.json`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "data.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(result.columns)
        writer.writerows(["" if value is None else value for value in row] for row in result.rows)
    (folder / "table.md").write_text(result.table)
    result.figure.savefig(folder / "figure.png", dpi=100)
    document = about | result.details | provenance()
    (folder / "study.json").write_text(json.dumps(document, indent=1) + "\n")
