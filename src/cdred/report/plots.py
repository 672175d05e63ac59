"""How a panel of a report looks: quiet axes, a curve per seed under their mean, names written at the curves' ends."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from cdred.report.results import Series

INK, QUIET, GRID = "#22262b", "#7b828a", "#e9ebee"
BLUE, ORANGE, GREEN = "#2a6f97", "#d9762b", "#4f8a5b"
# One colour per method of a comparison.
PALETTE = (BLUE, ORANGE, GREEN, "#8e5572", "#b5952d", "#5a6b7b", "#b4483c", "#3d9a9a", "#7a4f2b", "#c77fb0")


class Label(NamedTuple):
    """A name to write beside the right edge at the height of `value`; None leaves it out."""

    value: float | None
    text: str
    colour: str


def panel(axes: Axes, title: str, remark: str, last_step: int) -> None:
    """Strip the axes down to what is read, name them, and let them reach from 0 to `last_step` steps."""
    axes.set_title(title, loc="left", size=14, weight="bold", color=INK, pad=24)
    axes.text(0, 1.025, remark, transform=axes.transAxes, size=10.5, color=QUIET)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(QUIET)
    axes.tick_params(colors=QUIET, labelsize=10.5, length=0, which="both")
    axes.tick_params(axis="x", length=4, which="major")
    axes.grid(axis="y", color=GRID, linewidth=1)
    axes.set_axisbelow(True)
    axes.set_xlim(0, max(1, last_step))
    axes.set_xlabel("steps per seed", size=10.5, color=QUIET)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))


def curves(axes: Axes, series: Series, colour: str, window: int = 1) -> float | None:
    """Thin lines for the seeds under a bold one for their mean, each a running mean over `window` reports.

    Returns:
        Where the bold line ends; None if there is nothing to draw.
    """
    if not len(series):
        return None
    values = running_mean(series.values, window)
    middle = mean_over_seeds(values)
    if values.shape[1] > 1:
        axes.plot(series.steps, values, color=colour, linewidth=1, alpha=0.35)
    # A run's first report is a point, which a line of no length would hide.
    marker = "o" if len(series) == 1 else None
    axes.plot(series.steps, middle, color=colour, linewidth=2.4, marker=marker, markersize=5, clip_on=False)
    known = middle[np.isfinite(middle)]
    return float(known[-1]) if len(known) else None


def points(axes: Axes, series: Series, colour: str) -> float | None:
    """A ring per seed and a dot for their mean, for what is measured now and then; returns the last mean."""
    if not len(series):
        return None
    middle = mean_over_seeds(series.values)
    if series.values.shape[1] > 1:
        axes.plot(series.steps, series.values, "o", mec=colour, mfc="white", mew=1, ms=4.5, alpha=0.7, clip_on=False)
    axes.plot(series.steps, middle, "o", mec="white", mfc=colour, mew=1, ms=8.5, clip_on=False, zorder=5)
    return float(middle[-1]) if np.isfinite(middle[-1]) else None


def level(axes: Axes, value: float | None, style: str) -> None:
    if value is not None:
        axes.axhline(value, color=QUIET, linewidth=1.3, linestyle=style, zorder=1.5)


def logarithmic(axes: Axes) -> None:
    """A log scale with plain numbers, if everything drawn is positive and far enough apart to need one."""
    drawn = np.concatenate([np.ravel(line.get_ydata()) for line in axes.lines] or [np.ones(1)]).astype(float)
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn) or drawn.min() <= 0 or drawn.max() < 3 * drawn.min():
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if drawn.max() / drawn.min() < 20:  # hardly a decade: label 2 and 5 as well, or the axis would be nearly bare
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: _two_or_five(value)))


def name_ends(axes: Axes, labels: Sequence[Label], spacing: float = 0.065) -> None:
    """Write the names at the right edge, moved apart to `spacing` of the panel's height where they would overlap."""
    axes.autoscale_view()  # matplotlib puts it off until drawing, and the heights depend on it
    to_axes = axes.transData + axes.transAxes.inverted()
    known = [(label.value, label) for label in labels if label.value is not None]
    wanted = sorted((float(np.clip(to_axes.transform((0, value))[1], 0, 1)), label) for value, label in known)
    style = {"size": 11.5, "weight": "bold", "va": "center", "annotation_clip": False}
    for height, (_, label) in zip(spread_out([height for height, _ in wanted], spacing), wanted, strict=True):
        place = {"xycoords": "axes fraction", "xytext": (9, 0), "textcoords": "offset points"}
        axes.annotate(label.text, (1, height), color=label.colour, **place, **style)


def spread_out(heights: Sequence[float], spacing: float) -> list[float]:
    """Ascending `heights` moved as little as a few sweeps need to be `spacing` apart."""
    placed = list(heights)
    for _ in range(200):
        for i in range(len(placed) - 1):
            lack = spacing - (placed[i + 1] - placed[i])
            if lack > 1e-6:
                placed[i], placed[i + 1] = placed[i] - lack / 2, placed[i + 1] + lack / 2
    return placed


def mean_over_seeds(values: Float[np.ndarray, "N seeds"]) -> Float[np.ndarray, " N"]:
    """The mean of the seeds that have a number; NaN where none has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(values, axis=1)


def running_mean(values: Float[np.ndarray, "N seeds"], window: int) -> Float[np.ndarray, "N seeds"]:
    """The mean over the last `window` rows, fewer at the beginning; it never looks ahead."""
    known = np.isfinite(values)
    empty = ((window, 0), (0, 0))
    total = np.cumsum(np.pad(np.where(known, values, 0.0), empty), axis=0)
    count = np.cumsum(np.pad(known, empty), axis=0)
    total, count = total[window:] - total[:-window], count[window:] - count[:-window]
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def own_up(axes: Axes) -> None:
    """Say of a panel without curves that it has none, instead of showing an invented scale."""
    if not axes.lines:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "not reported", transform=axes.transAxes, size=12, color=QUIET, ha="center")


def percent(axes: Axes) -> None:
    """Rates from 0 to 1 as `50 %` on the value axis, all of which is shown."""
    axes.set_ylim(-0.015, 1.04)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))


def thousands(axes: Axes) -> None:
    """`4k` for 4,000 on the value axis; smaller numbers as they are."""
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value / 1000:g}k" if abs(value) >= 1000 else f"{value:g}")
    )


def _two_or_five(value: float) -> str:
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""
