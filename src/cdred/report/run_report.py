"""The picture of one run: did it reach the expert, and was learning healthy on the way."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec

from cdred.loggers.alarms import ALARMS, levels
from cdred.loggers.progress import RECENT
from cdred.report import plots
from cdred.report.plots import BLUE, GREEN, INK, ORANGE, PALETTE, QUIET, Label
from cdred.report.results import Record, Series, read_record

LEFT, RIGHT = 0.045, 0.925
# Between two panels, as a share of a row.
GAP = 0.12
Panel = Callable[[Axes, Record], None]


def write_report(run_dir: Path) -> Path:
    """Draw `report.png` (1600 x 1000 pixels) into a run's folder, from what the folder holds so far.

    Raises:
        UserError: the folder is not that of a run.
    """
    record = read_record(run_dir)
    figure = Figure(figsize=(16, 10), facecolor="white")
    rows = figure.add_gridspec(2, 1, left=LEFT, right=RIGHT, top=0.825, bottom=0.07, hspace=0.42)
    _headline(figure, record)
    with_success = any(len(record.series(kind, "success")) for kind in ("rollout", "eval"))
    _fill(figure, rows[0], record, [_success] * with_success + [_return])
    with_health = any(line["kind"] == "diagnostics" for line in record.lines)
    _fill(figure, rows[1], record, [_rewards, _losses, _gradient] + [_health] * with_health)
    for axes in figure.axes:
        plots.own_up(axes)
    figure.savefig(run_dir / "report.png", dpi=100)
    return run_dir / "report.png"


def _fill(figure: Figure, row: SubplotSpec, record: Record, panels: Sequence[Panel]) -> None:
    """The panels side by side, with room for the names at their curves' ends."""
    width = (1.0 - (len(panels) - 1) * GAP) / len(panels)
    places = row.subgridspec(1, len(panels), wspace=GAP / width)
    for column, panel in enumerate(panels):
        axes = figure.add_subplot(places[column])
        panel(axes, record)
        if len(panels) > 3:
            axes.locator_params(axis="x", nbins=3)


def _headline(figure: Figure, record: Record) -> None:
    about, seeds = record.about, record.about.get("seeds") or []
    figure.text(LEFT, 0.94, about.get("task", record.folder.name), size=23, weight="bold", color=INK)
    figure.text(LEFT, 0.907, "   ·   ".join(_settings(about)), size=12.5, color=QUIET)
    figure.text(RIGHT, 0.94, _verdict(about.get("eval") or {}), size=14, color=INK, ha="right")
    if len(seeds) > 1:
        figure.text(RIGHT, 0.907, "thin: seeds   bold: their mean", size=11, color=QUIET, ha="right")


def _settings(about: dict) -> list[str]:
    """The settings that are known, in words."""
    seeds, seconds = about.get("seeds"), about.get("wall_seconds")
    parts = [
        about.get("algo"),
        about.get("preset") and f"preset {about['preset']}",
        seeds and f"{len(seeds)} seed{'s' * (len(seeds) > 1)}",
        # A number of demonstrations; a path to them says nothing to the reader of a picture.
        isinstance(about.get("demos"), int) and f"{about['demos']} demonstrations",
        about.get("steps") and f"{about['steps']:,} steps per seed",
        seconds and f"{seconds / 60:.0f} min on {about.get('device', 'this machine')}",
    ]
    return [part for part in parts if part]


def _verdict(outcome: dict) -> str:
    """The final evaluation in a line, as means over the seeds; empty while there is none."""
    scores = [score for score in outcome.get("normalized") or [] if score is not None]
    parts = [f"success {100 * np.mean(outcome['success']):.0f} %"] if outcome.get("success") else []
    parts += [f"normalized return {np.mean(scores):.2f}"] if scores else []
    return f"final evaluation:  {',  '.join(parts)}" if parts else ""


def _success(axes: Axes, record: Record) -> None:
    plots.panel(axes, "Success", _remark(record), record.last_step)
    plots.percent(axes)
    _outcome(axes, record, "success", "success")


def _return(axes: Axes, record: Record) -> None:
    plots.panel(axes, "Return", _remark(record), record.last_step)
    plots.thousands(axes)
    _outcome(axes, record, "episode_return", "return")


def _remark(record: Record) -> str:
    episodes = next((line["episodes"] for line in record.lines if line["kind"] == "eval" and "episodes" in line), None)
    evaluated = f"; evaluation: {episodes:.0f} fresh episodes each" if episodes else ""
    return f"exploring: running mean of {RECENT} batches{evaluated}"


def _outcome(axes: Axes, record: Record, key: str, level: str) -> None:
    """What is reached while exploring and in evaluations, between a random agent and the expert."""
    ends = {
        ("exploring", BLUE): plots.curves(axes, record.series("rollout", key), BLUE, RECENT),
        ("evaluation", ORANGE): plots.points(axes, record.series("eval", key), ORANGE),
    }
    for who, style in (("expert", "--"), ("random", ":")):
        ends[who, QUIET] = record.levels.get(f"{who}_{level}")
        plots.level(axes, ends[who, QUIET], style)
    plots.name_ends(axes, [Label(end, *name) for name, end in ends.items()])


def _rewards(axes: Axes, record: Record) -> None:
    plots.panel(axes, "Learned reward", "the gap closes as the agent nears the expert", record.last_step)
    ends = {
        ("expert data", GREEN): plots.curves(axes, record.series("train", "reward_expert"), GREEN),
        ("own data", BLUE): plots.curves(axes, record.series("train", "reward_agent"), BLUE),
    }
    plots.name_ends(axes, [Label(end, *name) for name, end in ends.items()])


def _losses(axes: Axes, record: Record) -> None:
    plots.panel(axes, "Losses", "without the policy's, whose sign changes", record.last_step)
    names = {
        ("dynamics", BLUE): "consistency_loss",
        ("critic", ORANGE): "critic_loss",
        ("reward", GREEN): "reward_loss",
    }
    ends = {name: plots.curves(axes, record.series("train", key), name[1]) for name, key in names.items()}
    plots.logarithmic(axes)
    plots.name_ends(axes, [Label(end, *name) for name, end in ends.items()])


def _gradient(axes: Axes, record: Record) -> None:
    plots.panel(axes, "Gradient norm", "a steady or falling norm is a healthy one", record.last_step)
    plots.curves(axes, record.series("train", "grad_norm"), BLUE)
    plots.logarithmic(axes)


def _health(axes: Axes, record: Record) -> None:
    plots.panel(axes, "Health", "an alarm begins at 1 (docs/health.md)", record.last_step)
    lines = [line for line in record.lines if line["kind"] == "diagnostics"]
    steps, ends = np.array([line["step"] for line in lines]), {}
    for alarm, colour in zip(ALARMS, PALETTE, strict=False):
        rows = np.array(levels(alarm, lines), float)
        if rows.size and np.isfinite(rows).any():
            ends[alarm.name, colour] = plots.curves(axes, Series(steps, rows), colour)
    plots.level(axes, 1.0, "--")
    plots.name_ends(axes, [Label(end, *name) for name, end in ends.items()])
