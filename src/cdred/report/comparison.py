"""Comparison of methods on one task: a table of scores with their uncertainty and cost, and the learning curves."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cdred.loggers.progress import MISSING
from cdred.report import plots
from cdred.report.plots import INK, PALETTE, QUIET, Label
from cdred.report.results import RunResults, read_result, read_run
from cdred.report.statistics import Interval, bootstrap_interval, iqm, probability_of_improvement
from cdred.text import plural

if TYPE_CHECKING:
    # At run time it would delay the start of every training.
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = (
    "method",
    "{score} per seed",
    "mean",
    "normalized return, IQM (95 % interval)",
    "gradient norm, mean / max",
    "P({first} better)",
    "minutes",
)


def write_comparison(folder: Path, runs: Mapping[str, Path]) -> str:
    """Write `table.md`, `table.json` and `curves.png` of finished runs on one task, and return the table.

    Args:
        folder: output folder.
        runs: run folder of each method; the others are compared with the first.

    Raises:
        UserError: a run has no readable result.
    """
    runs_results = {name: read_run(run) for name, run in runs.items()}
    results = {name: read_result(run) for name, run in runs.items()}
    rows = [_row(name, results, runs_results[name]) for name in runs]
    table = _markdown(results, rows)
    (folder / "table.md").write_text(table)
    first = next(iter(results.values()))
    shared = {key: first.get(key) for key in ("task", "preset", "steps", "demos", "seeds", "device", "commit")}
    (folder / "table.json").write_text(json.dumps(shared | {"methods": rows}, indent=1) + "\n")
    draw_curves(runs_results).savefig(folder / "curves.png", dpi=100)
    return table


def _row(name: str, results: Mapping[str, dict[str, Any]], run: RunResults) -> dict[str, Any]:
    scores, first = results[name]["eval"], next(iter(results.values()))["eval"]
    normalized = [score for score in scores.get("normalized") or [] if score is not None]
    return {
        "method": name,
        "success": scores["success"],
        "return": scores["return"],
        "normalized": normalized or None,
        "iqm": iqm(normalized) if normalized else None,
        "interval": bootstrap_interval([normalized]),
        "gradient_norm_mean": _reduce(run, "grad_norm", np.nanmean),
        "gradient_norm_max": _reduce(run, "grad_norm_max", np.nanmax),
        "probability_first_is_better": None
        if scores is first
        else probability_of_improvement(first["return"], scores["return"]),
        "episodes": scores["episodes"],
        "wall_seconds": results[name]["wall_seconds"],
    }


def _reduce(run: RunResults, key: str, reduction: Callable) -> float | None:
    values = run.series("train", key).values
    return float(reduction(values)) if np.isfinite(values).any() else None


def _markdown(results: Mapping[str, dict[str, Any]], rows: list[dict[str, Any]]) -> str:
    first = next(iter(results.values()))
    known = {who: first["eval"].get(f"{who}_success") for who in ("expert", "random")}
    references = [f"{who} {100 * rate:.0f} %" for who, rate in known.items() if rate is not None]
    score = "return" if rows[0]["success"] is None else "success"
    heads = [column.format(first=rows[0]["method"], score=score) for column in COLUMNS]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *(_cells(row) for row in rows)]
    return "\n".join(
        [
            f"{first['task']}, preset {first['preset']}, {plural(first['demos'], 'demonstration')}, {first['steps']:,} "
            f"steps and {plural(rows[0]['episodes'], 'evaluation episode')} per seed"
            f"{'; success of ' * bool(references)}{', '.join(references)}.",
            "",
            *(f"| {' | '.join(line)} |" for line in lines),
            "",
        ]
    )


def _cells(row: dict[str, Any]) -> list[str]:
    interval, norm_mean, norm_max = row["interval"], row["gradient_norm_mean"], row["gradient_norm_max"]
    probability, has_success = row["probability_first_is_better"], row["success"] is not None
    scores = row["success"] or row["return"]
    texts = [f"{100 * score:.0f} %" if has_success else f"{score:.0f}" for score in scores]
    return [
        row["method"],
        ", ".join(texts),
        f"**{100 * np.mean(scores):.0f} %**" if has_success else f"**{np.mean(scores):.0f}**",
        MISSING if row["iqm"] is None else f"{row['iqm']:.2f} ({_shown(interval)})",
        f"{norm_mean:.2g} / {norm_max:.2g}" if norm_mean is not None and norm_max is not None else MISSING,
        MISSING if probability is None else f"{probability:.2f}",
        f"{row['wall_seconds'] / 60:.0f}",
    ]


def _shown(interval: Interval | None) -> str:
    return f"{interval[0]:.2f} to {interval[1]:.2f}" if interval else "no interval"


def draw_curves(runs: Mapping[str, RunResults]) -> "Figure":
    """Draw the evaluations of each method against steps: success, where the task reports it, and return."""
    first = next(iter(runs.values()))
    panels = [("success", "success", "Success")] if len(first.series("eval", "success")) else []
    panels.append(("episode_return", "return", "Return"))
    # The margins hold text; its size does not depend on the number of panels.
    width, left, right = 8.5 * len(panels), 0.75, 1.55
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 6), facecolor="white")
    figure.text(left / width, 0.93, first.metadata.get("task", ""), size=19, weight="bold", color=INK)
    columns = figure.add_gridspec(
        1, len(panels), left=left / width, right=1 - right / width, top=0.76, bottom=0.11, wspace=0.35
    )
    last_step = max(run.last_step for run in runs.values())
    for column, (key, reference_key, title) in enumerate(panels):
        axes = figure.add_subplot(columns[0, column])
        plots.style_axes(axes, title, "evaluations; rings: seeds, line: their mean", last_step)
        if key == "success":
            plots.percent_axis(axes)
        labels = _plot_evaluations(axes, runs, key)
        for who, style in (("expert", "--"), ("random", ":")):
            value = first.reference_scores.get(f"{who}_{reference_key}")
            plots.reference_line(axes, value, style)
            labels.append(Label(value, who, QUIET))
        plots.label_line_ends(axes, labels)
    return figure


def _plot_evaluations(axes: "Axes", runs: Mapping[str, RunResults], key: str) -> list[Label]:
    labels = []
    for colour, (name, run) in zip(PALETTE, runs.items(), strict=False):
        series = run.series("eval", key)
        labels.append(Label(plots.plot_points(axes, series, colour), name, colour))
        if len(series):
            axes.plot(series.steps, plots.mean_over_seeds(series.values), color=colour, linewidth=2)
    return labels
