"""Study of the signals that need no reward: how well each ranks agents by their true score.

Read from the records of the runs of other studies. A signal is compared with the score in two ways: over the runs of a
task and method, at their ends ("which of these agents is best?"), and over the evaluations of one seed ("has it
converged?").
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cdred.config import RunConfig
from cdred.errors import UserError
from cdred.loggers.progress import MISSING
from cdred.report.aggregate import draw_intervals, style_panel
from cdred.report.plots import BLUE
from cdred.report.statistics import mean_interval, rank_correlation
from cdred.studies.records import RunRecord
from cdred.studies.study import StudyResult
from cdred.sweep.plan import run_name

if TYPE_CHECKING:
    # At run time it would delay every command.
    from matplotlib.figure import Figure

COLUMNS = ("run", "task", "method", "seed", "step", "score", "signal", "value")
# Evaluations of a seed, or seeds of a task and method, below which a rank correlation says nothing.
MIN_POINTS = 3


class Point(NamedTuple):
    """Value of a signal, and the true score, of a seed at an evaluation; as in `COLUMNS`.

    `run` is the index of its run in `study.json`.
    """

    run: int
    task: str
    method: str
    seed: int
    step: int
    score: float
    signal: str
    value: float


class Correlations(NamedTuple):
    """Rank correlations of a signal with the score.

    Attributes:
        at_ends: one per task and method, over the seeds of its runs at their ends.
        within_runs: one per seed, over its evaluations.
    """

    at_ends: list[float]
    within_runs: list[float]


def analyse_signals(records: Sequence[RunRecord]) -> StudyResult:
    """Correlate the signals of runs with their scores.

    Raises:
        UserError: there is no run.
    """
    runs = distinct_runs(records)
    if not runs:
        raise UserError("no study has finished runs: make one first, as by `cdred study coupling`.")
    points = [point for index, record in enumerate(runs) for point in read_points(index, record)]
    correlations = correlate(points)
    names = [run_name(record.config, record.curves[0].label) for record in runs]
    details = {"runs": names, "run_commits": sorted({str(record.commit) for record in runs})}
    return StudyResult(COLUMNS, points, signal_table(correlations), draw_signals(correlations), details)


def distinct_runs(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Return a record of each training, as studies have runs in common.

    Runs that differ only in the choice of what acts at the end are the same until then, and count once: the one in
    which the agent acts as it was trained.
    """
    by_training: dict[RunConfig, RunRecord] = {}
    for record in records:
        pretrain = record.config.pretrain
        training = replace(record.config, pretrain=replace(pretrain, selection_episodes=0))
        if training not in by_training or not pretrain.selection_episodes:
            by_training[training] = record
    return [*by_training.values()]


def read_points(run: int, record: RunRecord) -> Iterator[Point]:
    """Return the signals of a run at its evaluations of the agent that is trained, and not of its pretrained policy."""
    for curve in record.curves:
        last = len(curve.steps) - (curve.acting == "pretrained")
        for signal, values in curve.signals.items():
            for step, score, value in [*zip(curve.steps, curve.scores, values, strict=True)][:last]:
                if step > 0 and value is not None and np.isfinite(score):
                    yield Point(run, curve.task, record.config.algo, curve.seed, step, score, signal, value)


def correlate(points: Sequence[Point]) -> dict[str, Correlations]:
    """Return the rank correlations of every signal, strongest at the ends of runs first.

    Groups in which the signal or the score is constant have none.
    """
    by_signal: dict[str, Correlations] = {}
    for signal in dict.fromkeys(point.signal for point in points):
        of_signal = [point for point in points if point.signal == signal]
        ends: dict[tuple[str, str], list[Point]] = {}
        seeds: dict[tuple[int, int], list[Point]] = {}
        for point in of_signal:
            seeds.setdefault((point.run, point.seed), []).append(point)
        for history in seeds.values():
            last = max(history, key=lambda point: point.step)
            ends.setdefault((last.task, last.method), []).append(last)
        by_signal[signal] = Correlations(_correlations(ends.values()), _correlations(seeds.values()))
    return dict(sorted(by_signal.items(), key=lambda item: -abs(_mean(item[1].at_ends))))


def _correlations(groups: Iterable[Sequence[Point]]) -> list[float]:
    results = []
    for group in groups:
        values, scores = [point.value for point in group], [point.score for point in group]
        if len(group) >= MIN_POINTS and min(len(set(values)), len(set(scores))) > 1:
            results.append(rank_correlation(values, scores))
    return results


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def signal_table(correlations: dict[str, Correlations]) -> str:
    """Return a row per signal: mean rank correlations, their intervals, and the numbers of groups."""
    lines = [
        ["signal", "at the ends of runs, mean over tasks and methods (95 %)", "within runs, mean over seeds (95 %)"],
        ["---", "---:", "---:"],
        *([signal, _cell(entry.at_ends), _cell(entry.within_runs)] for signal, entry in correlations.items()),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _cell(values: Sequence[float]) -> str:
    if not values:
        return MISSING
    interval = mean_interval(values)
    shown = f" ({interval[0]:+.2f} to {interval[1]:+.2f})" if interval else " (no interval)"
    return f"{_mean(values):+.2f}{shown}, {len(values)}"


def draw_signals(correlations: dict[str, Correlations]) -> "Figure":
    """Draw the mean rank correlations of every signal with their intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 1.6 + 0.42 * len(correlations)), facecolor="white", layout="constrained")
    panels = figure.subplots(1, 2)
    titles = {"at_ends": "At the ends of runs", "within_runs": "Within runs"}
    for axes, (field, title) in zip(panels, titles.items(), strict=True):
        rows = {
            signal: (_mean(values), mean_interval(values))
            for signal, entry in correlations.items()
            if (values := getattr(entry, field))
        }
        style_panel(axes, title, "rank correlation with the true score, mean and 95 % interval")
        draw_intervals(axes, rows, dict.fromkeys(rows, BLUE))
        axes.axvline(0, color="0.5", linewidth=1.3, linestyle="--", zorder=1)
        axes.set_xlim(-1.05, 1.05)
    return figure
