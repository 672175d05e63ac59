"""Plotting functions shared by the reports: axis style, a curve per seed with its mean, labels at the curves' ends."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from cdred.report.results import Series

if TYPE_CHECKING:
    # At run time it would delay the start of every training.
    from matplotlib.axes import Axes

INK, QUIET, GRID = "#22262b", "#7b828a", "#e9ebee"
BLUE, ORANGE, GREEN = "#2a6f97", "#d9762b", "#4f8a5b"
# One colour per method of a comparison.
PALETTE = (BLUE, ORANGE, GREEN, "#8e5572", "#b5952d", "#5a6b7b", "#b4483c", "#3d9a9a", "#7a4f2b", "#c77fb0")

# Heights of the labels beside a panel, as fractions of its height: above the ticks of the steps, below the subtitle.
LABEL_RANGE = (0.0, 0.985)
# Between the labels of a panel and the ticks of the next, in pixels.
TEXT_DISTANCE = 8.0


class Label(NamedTuple):
    """Text beside the right edge of a panel at the height of `value`; None omits it."""

    value: float | None
    text: str
    colour: str


def style_axes(axes: "Axes", title: str, subtitle: str, last_step: int) -> None:
    """Apply the common style and titles, with an x-axis from 0 to `last_step` steps."""
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, loc="left", size=14, weight="bold", color=INK, pad=24)
    axes.text(0, 1.025, subtitle, transform=axes.transAxes, size=10.5, color=QUIET)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(QUIET)
    axes.tick_params(colors=QUIET, labelsize=10.5, length=0, which="both")
    axes.tick_params(axis="x", length=4, which="major")
    axes.grid(axis="y", color=GRID, linewidth=1)
    axes.set_axisbelow(True)
    axes.set_xlim(0, max(1, last_step))
    axes.set_xlabel("steps per seed", size=10.5, color=QUIET)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    axes.yaxis.set_major_formatter(lambda value, _: format_tick(value))


def plot_curves(axes: "Axes", series: Series, colour: str, window: int = 1) -> float | None:
    """Plot a thin line per seed and a bold line for the mean, each a running mean over `window` reports.

    Returns:
        The last finite value of the mean; None if there is none.
    """
    if not len(series):
        return None
    values = running_mean(series.values, window)
    means = mean_over_seeds(values)
    if values.shape[1] > 1:
        axes.plot(series.steps, values, color=colour, linewidth=1, alpha=0.35)
    # A line through a single report would be invisible.
    marker = "o" if len(series) == 1 else None
    axes.plot(series.steps, means, color=colour, linewidth=2.4, marker=marker, markersize=5, clip_on=False)
    known = means[np.isfinite(means)]
    return float(known[-1]) if len(known) else None


def plot_points(axes: "Axes", series: Series, colour: str) -> float | None:
    """Plot a ring per seed and a dot for the mean, for infrequent measurements; return the last mean."""
    if not len(series):
        return None
    means = mean_over_seeds(series.values)
    if series.values.shape[1] > 1:
        axes.plot(series.steps, series.values, "o", mec=colour, mfc="white", mew=1, ms=4.5, alpha=0.7, clip_on=False)
    axes.plot(series.steps, means, "o", mec="white", mfc=colour, mew=1, ms=8.5, clip_on=False, zorder=5)
    return float(means[-1]) if np.isfinite(means[-1]) else None


def reference_line(axes: "Axes", value: float | None, style: str) -> None:
    """Draw a horizontal line at `value`, if it is known."""
    if value is not None:
        axes.axhline(value, color=QUIET, linewidth=1.3, linestyle=style, zorder=1.5)


def log_scale_if_wide(axes: "Axes") -> None:
    """Use a log scale with plain numbers if all plotted values are positive and span at least a factor of three."""
    values = np.concatenate([np.ravel(line.get_ydata()) for line in axes.lines] or [np.ones(1)]).astype(float)
    values = values[np.isfinite(values)]
    if not len(values) or values.min() <= 0 or values.max() < 3 * values.min():
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: format_tick(value))
    if values.max() / values.min() < 20:  # about one decade, which has one or two major ticks: label 2 and 5 as well
        axes.yaxis.set_minor_formatter(lambda value, _: _two_or_five(value))


def label_line_ends(axes: "Axes", labels: Sequence[Label], spacing: float = 0.065) -> None:
    """Write labels at the right edge, `spacing` of the panel's height apart if they fit beside it."""
    axes.autoscale_view()  # matplotlib delays it until drawing, but the heights depend on it
    to_axes = axes.transData + axes.transAxes.inverted()
    known = [(label.value, label) for label in labels if label.value is not None]
    heights = sorted((float(np.clip(to_axes.transform((0, value))[1], 0, 1)), label) for value, label in known)
    placement = {"xycoords": "axes fraction", "xytext": (9, 0), "textcoords": "offset points"}
    style = {"size": 11.5, "weight": "bold", "va": "center", "annotation_clip": False}
    separated = separate_labels([height for height, _ in heights], spacing)
    for height, (_, label) in zip(separated, heights, strict=True):
        axes.annotate(label.text, (1, height), color=label.colour, **placement, **style)


def text_between(left: "Axes", right: "Axes") -> float:
    """Return the width in pixels of the labels of one panel and the ticks of the next."""
    from matplotlib.text import Annotation

    edge = left.get_window_extent().x1
    labels = max(
        [text.get_window_extent().x1 - edge for text in left.texts if isinstance(text, Annotation)],
        default=0,
    )
    edge = right.get_window_extent().x0
    ticks = max([edge - tick.get_window_extent().x0 for tick in right.get_yticklabels()], default=0)
    return labels + ticks + TEXT_DISTANCE


def separate_labels(heights: Sequence[float], spacing: float) -> list[float]:
    """Move ascending `heights` apart, symmetrically, until they are `spacing` apart, within `LABEL_RANGE`.

    More of them than fit are as far apart as they can be.
    """
    low, high = LABEL_RANGE
    spacing = min(spacing, (high - low) / max(1, len(heights) - 1))
    placed = list(heights)
    for _ in range(200):
        for i in range(len(placed) - 1):
            overlap = spacing - (placed[i + 1] - placed[i])
            if overlap > 1e-6:
                placed[i], placed[i + 1] = placed[i] - overlap / 2, placed[i + 1] + overlap / 2
    # A label at rank i has i labels below it, and the others above it.
    above = range(len(placed) - 1, -1, -1)
    return [
        min(max(y, low + i * spacing), high - j * spacing) for i, (y, j) in enumerate(zip(placed, above, strict=True))
    ]


def mean_over_seeds(values: Float[np.ndarray, "N seeds"]) -> Float[np.ndarray, " N"]:
    """Return the mean over the seeds that are not NaN; NaN where all are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(values, axis=1)


def running_mean(values: Float[np.ndarray, "N seeds"], window: int) -> Float[np.ndarray, "N seeds"]:
    """Return the mean over the current and the `window - 1` previous rows, ignoring NaN."""
    known = np.isfinite(values)
    padding = ((window, 0), (0, 0))
    total = np.cumsum(np.pad(np.where(known, values, 0.0), padding), axis=0)
    count = np.cumsum(np.pad(known, padding), axis=0)
    total, count = total[window:] - total[:-window], count[window:] - count[:-window]
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def mark_empty(axes: "Axes") -> None:
    """Annotate a panel without finite data with "not reported", and remove its y-ticks."""
    if not any(np.isfinite(np.asarray(line.get_ydata(), float)).any() for line in axes.lines):
        axes.set_yticks([])
        axes.text(0.5, 0.5, "not reported", transform=axes.transAxes, size=12, color=QUIET, ha="center")


def percent_axis(axes: "Axes") -> None:
    """Show rates from 0 to 1 as percentages, over the whole range."""
    axes.set_ylim(-0.015, 1.04)
    axes.yaxis.set_major_formatter(lambda rate, _: f"{100 * rate:.0f} %")


def format_tick(value: float) -> str:
    """Format the tick of a value axis in few characters: 4,000 as `4k`, 2,500,000 as `2.5M`, 0.0002 as `2e-4`."""
    for unit, symbol in ((1, ""), (1e3, "k"), (1e6, "M")):
        if (1e-3 if unit == 1 else unit) <= abs(value) < 1000 * unit:
            return f"{value / unit:g}{symbol}"
    mantissa, exponent = f"{value:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}" if value else "0"


def _two_or_five(value: float) -> str:
    return format_tick(value) if f"{value:e}"[0] in "25" else ""
