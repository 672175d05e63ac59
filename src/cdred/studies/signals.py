"""Study of the signals that need no reward: how well each ranks agents by their true score.

Read from run folders that other studies or trainings have left. A signal is compared with the score in two ways: over
the runs of a task and method, at their ends ("which of these agents is best?"), and over the evaluations of one seed
("has it converged?").
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cdred.errors import UserError
from cdred.loggers.progress import MISSING
from cdred.report.aggregate import draw_intervals, style_panel
from cdred.report.find_runs import find_runs
from cdred.report.plots import BLUE
from cdred.report.results import RunResults, read_run
from cdred.report.statistics import mean_interval, rank_correlation
from cdred.studies.study import StudyResult

if TYPE_CHECKING:
    # At run time it would delay every command.
    from matplotlib.figure import Figure

# Metrics that need no reward of the environment, by kind of line.
SIGNALS = {
    "train": ("bc_loss", "consistency_loss", "critic_loss", "policy_entropy", "q_pi", "reward_agent", "reward_expert"),
    "diagnostics": (
        "detected_success",
        "dynamics_error_ratio",
        "novelty_expert",
        "open_loop_fvu",
        "q_gradient_share",
        "reward_margin",
    ),
}
COLUMNS = ("run", "task", "method", "seed", "step", "score", "signal", "value")
# Evaluations of a seed, or seeds of a task and method, below which a rank correlation says nothing.
MIN_POINTS = 3


class Point(NamedTuple):
    """Value of a signal, and the true score, of a seed at an evaluation; as in `COLUMNS`."""

    run: str
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


def analyse_signals(runs: Path) -> StudyResult:
    """Correlate the signals of all finished runs in a folder with their scores.

    Raises:
        UserError: there is none.
    """
    folders = [folder for folder in find_runs([runs]) if (folder / "result.json").exists()]
    if not folders:
        raise UserError(f"no finished run in {runs}: give a folder of runs by --runs.")
    points = [point for folder in folders for point in read_points(folder.relative_to(runs), read_run(folder))]
    correlations = correlate(points)
    details = {"runs": [str(folder.relative_to(runs)) for folder in folders]}
    return StudyResult(COLUMNS, points, signal_table(correlations), draw_signals(correlations), details)


def read_points(name: Path, run: RunResults) -> Iterator[Point]:
    """Return the signals of a run at its evaluations after step 0: the last values reported until then."""
    has_success = len(run.series("eval", "success")) > 0
    scores = run.series("eval", "success" if has_success else "episode_return")
    about = run.metadata
    for kind, signals in SIGNALS.items():
        for signal in signals:
            series = run.series(kind, signal)
            for step, row in zip(scores.steps, scores.values, strict=True):
                index = int(np.searchsorted(series.steps, step, side="right")) - 1
                if step == 0 or index < 0:
                    continue
                for seed, score, value in zip(about["seeds"], row, series.values[index], strict=True):
                    if np.isfinite(value) and np.isfinite(score):
                        yield Point(str(name), about["task"], about["algo"], seed, int(step), score, signal, value)


def correlate(points: Sequence[Point]) -> dict[str, Correlations]:
    """Return the rank correlations of every signal, strongest at the ends of runs first.

    Groups in which the signal or the score is constant have none.
    """
    by_signal: dict[str, Correlations] = {}
    for signal in dict.fromkeys(point.signal for point in points):
        of_signal = [point for point in points if point.signal == signal]
        ends: dict[tuple[str, str], list[Point]] = {}
        seeds: dict[tuple[str, int], list[Point]] = {}
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
