"""Aggregate figures of several methods on several tasks, after arXiv 2108.13264."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cdred.report.plots import BLUE, GRID, INK, PALETTE, QUIET
from cdred.report.statistics import (
    Interval,
    bootstrap_interval,
    improvement_interval,
    iqm,
    mean_improvement,
    performance_profile,
)
from cdred.text import plural

if TYPE_CHECKING:
    # At run time it would delay the start of every training.
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Scores of each method by task, one per seed.
Scores = Mapping[str, Mapping[str, Sequence[float]]]
PROFILE_POINTS = 201


def common_tasks(scores: Scores) -> list[str]:
    """Return the tasks of which every method has scores: only these are comparable."""
    first = next(iter(scores.values()), {})
    return [task for task in first if all(task in by_task for by_task in scores.values())]


def aggregate(scores: Scores) -> dict[str, Any]:
    """Compute the aggregate statistics of each method over the common tasks.

    Returns:
        `{"tasks": [...], "methods": {method: {"seeds", "iqm", "interval", "probability_first_is_better",
        "probability_interval"}}}`; the last two are None for the first method. Intervals are 95 % bootstrap intervals
        over the seeds of each task, and None where a task has one seed.
    """
    tasks, first = common_tasks(scores), next(iter(scores))
    methods = {}
    for method, by_task in scores.items():
        runs = [by_task[task] for task in tasks]
        pairs = None if method == first else [(scores[first][task], by_task[task]) for task in tasks]
        methods[method] = {
            "seeds": sum(map(len, runs)),
            "iqm": iqm([score for task_scores in runs for score in task_scores]),
            "interval": bootstrap_interval(runs),
            "probability_first_is_better": mean_improvement(pairs) if pairs else None,
            "probability_interval": improvement_interval(pairs) if pairs else None,
        }
    return {"tasks": tasks, "methods": methods}


def draw_aggregate(scores: Scores, statistics: Mapping[str, Any]) -> "Figure":
    """Draw interquartile means, performance profiles, and the probabilities that the first method is better.

    Args:
        scores: of each method by task; those of the common tasks are drawn.
        statistics: as from `aggregate`.
    """
    from matplotlib.figure import Figure

    tasks, methods = statistics["tasks"], list(statistics["methods"])
    colours = dict(zip(methods, (PALETTE * len(methods))[: len(methods)], strict=True))
    height = 2.2 + 0.42 * max(3, len(methods))
    figure = Figure(figsize=(15, height), facecolor="white", layout="constrained")
    # One method alone has nothing to be compared with.
    left, middle, *right = figure.subplots(1, 3 if len(methods) > 1 else 2)
    rows = {method: (entry["iqm"], entry["interval"]) for method, entry in statistics["methods"].items()}
    drawn = {method: [score for task in tasks for score in scores[method][task]] for method in methods}
    values = np.concatenate(list(drawn.values()))
    thresholds = np.linspace(min(0.0, values.min()), max(1.0, values.max()), PROFILE_POINTS)
    style_panel(left, "Interquartile mean", f"score over {plural(len(tasks), 'task')}, 95 % interval over seeds")
    draw_intervals(left, rows, colours)
    left.set_xlim(thresholds[0] - 0.05, thresholds[-1] + 0.05)
    style_panel(middle, "Performance profile", "fraction of seeds with a higher score")
    for method, method_scores in drawn.items():
        profile = performance_profile(method_scores, thresholds.tolist())
        middle.step(thresholds, profile, where="post", color=colours[method], linewidth=2, label=method)
    middle.set_ylim(-0.02, 1.02)
    middle.set_xlabel("score", size=10.5, color=QUIET)
    middle.legend(fontsize=9.5, frameon=False, loc="lower left")
    for axes in right:
        compared = {
            method: (entry["probability_first_is_better"], entry["probability_interval"])
            for method, entry in statistics["methods"].items()
            if entry["probability_first_is_better"] is not None
        }
        style_panel(axes, f"P({methods[0]} better)", "mean over tasks, 95 % interval over seeds")
        draw_intervals(axes, compared, colours)
        axes.axvline(0.5, color=QUIET, linewidth=1.3, linestyle="--", zorder=1)
        axes.set_xlim(-0.02, 1.02)
    return figure


def style_panel(axes: "Axes", title: str, subtitle: str) -> None:
    """Apply the style and titles of a panel with a row per method."""
    axes.set_title(title, loc="left", size=13, weight="bold", color=INK, pad=22)
    axes.text(0, 1.02, subtitle, transform=axes.transAxes, size=10, color=QUIET)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(QUIET)
    axes.tick_params(colors=QUIET, labelsize=10.5, length=0)
    axes.grid(color=GRID, linewidth=1)
    axes.set_axisbelow(True)


def draw_intervals(axes: "Axes", rows: Mapping[str, tuple[float, Interval | None]], colours: Mapping[str, str]) -> None:
    """Draw a dot per row, the first at the top, with its interval if that is known."""
    for position, (method, (value, interval)) in enumerate(rows.items()):
        colour = colours.get(method, BLUE)
        if interval:
            axes.hlines(position, *interval, color=colour, linewidth=6, alpha=0.35)
        axes.plot(value, position, "o", color=colour, markersize=9, mec="white")
        label = {"xytext": (0, 9), "textcoords": "offset points", "ha": "center", "size": 9.5}
        axes.annotate(f"{value:.2f}", (value, position), color=INK, **label)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.4, -0.7)
