"""Plot of update and planning times against sizes."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from cdred.report.plots import BLUE, GRID, INK, ORANGE, QUIET

COLOURS = {"update_ms": ("one update", BLUE), "plan_ms": ("one plan", ORANGE)}


def plot_scaling(sweeps: Mapping[str, Mapping[int, Mapping[str, float]]], path: Path) -> None:
    """Plot one log-log panel per size; dotted lines show linear scaling.

    Args:
        sweeps: `{size: {value: {"update_ms": ..., "plan_ms": ...}}}`, from `benchmarks.sweep`.
        path: image file.
    """
    figure = Figure(figsize=(3.6 * len(sweeps), 3.9), facecolor="white")
    panels = figure.subplots(1, len(sweeps), squeeze=False)
    for axes, (size, rows) in zip(panels[0], sweeps.items(), strict=True):
        values = list(rows)
        for name, (label, colour) in COLOURS.items():
            ms = [rows[value][name] for value in values]
            linear = [ms[0] * value / values[0] for value in values]
            axes.loglog(values, ms, color=colour, linewidth=2.4, marker="o", markersize=5, label=label)
            axes.loglog(values, linear, color=colour, linestyle=":", linewidth=1)
        axes.set_title(size, loc="left", size=13, weight="bold", color=INK)
        axes.set_xticks(values, [f"{value:,}" for value in values])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda ms, _: f"{ms:,g}"))
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda ms, _: f"{ms:,g}" if str(ms)[0] in "25" else ""))
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(colors=QUIET, labelsize=9, length=0, which="both")
        axes.grid(axis="y", color=GRID, linewidth=1, which="both")
    panels[0][0].set_ylabel("milliseconds, all seeds and environments", color=QUIET)
    panels[0][0].legend(frameon=False, labelcolor=INK)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
