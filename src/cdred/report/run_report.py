"""Report of one run as a figure: scores against the expert, learned reward, losses and diagnostics."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cdred.loggers.alarms import ALARMS, alarm_levels
from cdred.loggers.progress import RECENT
from cdred.report import plots
from cdred.report.plots import BLUE, GREEN, INK, ORANGE, PALETTE, QUIET, Label
from cdred.report.results import RunResults, Series, read_run
from cdred.text import plural

if TYPE_CHECKING:
    # At run time it would delay the start of every training.
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import SubplotSpec

LEFT, RIGHT = 0.055, 0.925
# Between two panels, as a fraction of a row.
MIN_GAP = 0.12
Panel = Callable[["Axes", RunResults], None]


def write_report(run_dir: Path) -> Path:
    """Draw `report.png` (1600 x 1000 pixels) into a run folder from its current content, and return its path.

    Raises:
        UserError: the folder is not a run folder.
    """
    path = run_dir / "report.png"
    draw_report(read_run(run_dir)).savefig(path, dpi=100)
    return path


def draw_report(results: RunResults) -> "Figure":
    """Draw the report of a run, finished or not."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 10), facecolor="white")
    rows = figure.add_gridspec(2, 1, left=LEFT, right=RIGHT, top=0.825, bottom=0.07, hspace=0.42)
    _headline(figure, results)
    has_success = any(len(results.series(kind, "success")) for kind in ("rollout", "eval"))
    _add_panels(figure, rows[0], results, [_success] * has_success + [_return])
    has_diagnostics = any(line["kind"] == "diagnostics" for line in results.lines)
    _add_panels(figure, rows[1], results, [_rewards, _losses, _gradient_norm] + [_alarms] * has_diagnostics)
    for axes in figure.axes:
        plots.mark_empty(axes)
    return figure


def _add_panels(figure: "Figure", row: "SubplotSpec", results: RunResults, panels: Sequence[Panel]) -> None:
    """Draw the panels side by side, with space for the labels at their right edges."""
    drawn = [figure.add_subplot(column) for column in row.subgridspec(1, len(panels))]
    for axes, panel in zip(drawn, panels, strict=True):
        panel(axes, results)
        if len(panels) > 3:
            axes.locator_params(axis="x", nbins=3)
    box = row.get_position(figure)
    text = max((plots.text_between(left, right) for left, right in pairwise(drawn)), default=0)
    gap = max(MIN_GAP * box.width, text / figure.bbox.width)
    width = (box.width - (len(panels) - 1) * gap) / len(panels)
    for column, axes in enumerate(drawn):
        axes.set_position((box.x0 + column * (width + gap), box.y0, width, box.height))


def _headline(figure: "Figure", results: RunResults) -> None:
    metadata, seeds = results.metadata, results.metadata.get("seeds") or []
    figure.text(LEFT, 0.94, metadata.get("task", results.folder.name), size=23, weight="bold", color=INK)
    figure.text(LEFT, 0.907, "   ·   ".join(_settings(metadata)), size=12.5, color=QUIET)
    figure.text(RIGHT, 0.94, _final_scores(metadata.get("eval") or {}), size=14, color=INK, ha="right")
    if len(seeds) > 1:
        figure.text(RIGHT, 0.907, "thin: seeds   bold: their mean", size=11, color=QUIET, ha="right")


def _settings(metadata: dict) -> list[str]:
    """Return the known settings as short texts."""
    seeds, seconds = metadata.get("seeds"), metadata.get("wall_seconds")
    parts = [
        metadata.get("algo"),
        metadata.get("preset") and f"preset {metadata['preset']}",
        seeds and plural(len(seeds), "seed"),
        # An unfinished run has a string here, which may be a long path.
        isinstance(metadata.get("demos"), int) and plural(metadata["demos"], "demonstration"),
        metadata.get("steps") and f"{metadata['steps']:,} steps per seed",
        seconds and f"{seconds / 60:.0f} min on {metadata.get('device', 'this machine')}",
    ]
    return [part for part in parts if part]


def _final_scores(scores: dict) -> str:
    """Return the final evaluation as means over the seeds; empty before the run has finished."""
    normalized = [score for score in scores.get("normalized") or [] if score is not None]
    parts = [f"success {100 * np.mean(scores['success']):.0f} %"] if scores.get("success") else []
    parts += [f"normalized return {np.mean(normalized):.2f}"] if normalized else []
    return f"final evaluation:  {',  '.join(parts)}" if parts else ""


def _success(axes: "Axes", results: RunResults) -> None:
    plots.style_axes(axes, "Success", _score_subtitle(results), results.last_step)
    plots.percent_axis(axes)
    _plot_scores(axes, results, "success", "success")


def _return(axes: "Axes", results: RunResults) -> None:
    plots.style_axes(axes, "Return", _score_subtitle(results), results.last_step)
    _plot_scores(axes, results, "episode_return", "return")


def _score_subtitle(results: RunResults) -> str:
    counts = sorted({line["episodes"] for line in results.lines if line["kind"] == "eval" and "episodes" in line})
    smallest, largest = (f"{count:.0f}" for count in (counts[0], counts[-1])) if counts else ("", "")
    episodes = plural(largest, "episode") if smallest == largest else f"{smallest} to {largest} episodes"
    evaluation = f"; evaluation: {episodes} each" if counts else ""
    return f"rollouts: running mean of {RECENT} reports{evaluation}"


def _plot_scores(axes: "Axes", results: RunResults, key: str, reference_key: str) -> None:
    """Plot the scores of rollouts and evaluations with those of expert, random policy and pretrained policy (BC)."""
    labels = [
        Label(plots.plot_curves(axes, results.series("rollout", key), BLUE, RECENT), "rollouts", BLUE),
        Label(plots.plot_points(axes, results.series("eval", key), ORANGE), "evaluation", ORANGE),
    ]
    levels = {who: results.reference_scores.get(f"{who}_{reference_key}") for who in ("expert", "random")}
    levels["BC"] = results.pretrained_score(key)
    for (who, value), style in zip(levels.items(), ("--", ":", "-."), strict=True):
        plots.reference_line(axes, value, style)
        labels.append(Label(value, who, QUIET))
    plots.label_line_ends(axes, labels)


def _rewards(axes: "Axes", results: RunResults) -> None:
    plots.style_axes(axes, "Learned reward", "closer as the agent nears the expert", results.last_step)
    curves = (("expert data", GREEN, "reward_expert"), ("agent data", BLUE, "reward_agent"))
    plots.label_line_ends(axes, _plot_train_metrics(axes, results, curves))


def _losses(axes: "Axes", results: RunResults) -> None:
    plots.style_axes(axes, "Losses", "without the policy loss", results.last_step)
    curves = (
        ("dynamics", BLUE, "consistency_loss"),
        ("critic", ORANGE, "critic_loss"),
        ("reward", GREEN, "reward_loss"),
    )
    labels = _plot_train_metrics(axes, results, curves)
    plots.log_scale_if_wide(axes)
    plots.label_line_ends(axes, labels)


def _plot_train_metrics(axes: "Axes", results: RunResults, curves: Sequence[tuple[str, str, str]]) -> list[Label]:
    """Plot training metrics, given as (label, colour, key)."""
    return [
        Label(plots.plot_curves(axes, results.series("train", key), colour), name, colour)
        for name, colour, key in curves
    ]


def _gradient_norm(axes: "Axes", results: RunResults) -> None:
    plots.style_axes(axes, "Gradient norm", "steady or falling in stable training", results.last_step)
    plots.plot_curves(axes, results.series("train", "grad_norm"), BLUE)
    plots.log_scale_if_wide(axes)


def _alarms(axes: "Axes", results: RunResults) -> None:
    plots.style_axes(axes, "Diagnostics", "an alarm is active from 1", results.last_step)
    lines, labels = [line for line in results.lines if line["kind"] == "diagnostics"], []
    steps = np.array([line["step"] for line in lines])
    for alarm, colour in zip(ALARMS, PALETTE, strict=False):
        levels = np.array(alarm_levels(alarm, lines), float)
        if levels.size and np.isfinite(levels).any():
            labels.append(Label(plots.plot_curves(axes, Series(steps, levels), colour), alarm.name, colour))
    plots.reference_line(axes, 1.0, "--")
    plots.label_line_ends(axes, labels)
