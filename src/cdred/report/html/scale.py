"""Axes of the SVG figures: ranges, ticks, positions; and curves in few points."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from cdred.report.plots import format_tick

MAX_POINTS = 160
"""Points of a drawn line. Of longer ones, each bin of reports keeps its lowest and its highest value."""
# Values beyond are drawn at this, because differences of two of them may be infinite.
LARGEST = 1e100


@dataclass(frozen=True)
class Scale:
    """Linear or logarithmic map from values to positions.

    Attributes:
        low, high: range of the values.
        start, end: positions of `low` and `high`.
        ticks: values to mark, within the range.
        log: logarithmic.
        label: formats a tick.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: Sequence[float]
    log: bool = False
    label: Callable[[float], str] = format_tick

    def __call__(self, values: Float[np.ndarray, "*N"]) -> Float[np.ndarray, "*N"]:
        """Return the positions of values; NaN for NaN and infinity."""
        values = np.asarray(values, float)
        values = np.clip(np.where(np.isfinite(values), values, np.nan), -LARGEST, LARGEST)
        low, high = self.low, self.high
        if self.log:
            low, high = math.log10(low), math.log10(high)
            values = np.log10(np.where(values > 0, values, np.nan))
        return self.start + (values - low) / (high - low) * (self.end - self.start)


def step_scale(last_step: int, start: float, end: float) -> Scale:
    """Return the scale of an axis from 0 to `last_step` steps."""
    from matplotlib.ticker import MaxNLocator

    high = float(max(1, last_step))
    ticks = MaxNLocator(4, steps=[1, 2, 5, 10], integer=True).tick_values(0, high)
    return Scale(0, high, start, end, _within(ticks, 0, high), label=lambda step: f"{step:,.0f}")


def percent_scale(start: float, end: float) -> Scale:
    """Return the scale of rates, as percentages over the whole range."""
    ticks = [0, 0.25, 0.5, 0.75, 1]
    return Scale(-0.02, 1.03, start, end, ticks, label=lambda rate: f"{100 * rate:.0f} %")


def value_scale(values: Sequence[float], start: float, end: float, log: bool = False) -> Scale:
    """Return the scale of an axis that holds finite values, with a margin.

    Args:
        values: all that are drawn; may be empty.
        start, end: positions of the ends.
        log: use a logarithmic scale if all values are positive and span at least a factor of three.
    """
    from matplotlib.ticker import LogLocator, MaxNLocator

    clipped = np.clip(np.asarray(values, float), -LARGEST, LARGEST)
    low, high = (float(clipped.min()), float(clipped.max())) if len(clipped) else (0.0, 1.0)
    if log and low > 0 and high >= 3 * low:
        margin = (high / low) ** 0.05
        low, high = low / margin, high * margin
        ticks = LogLocator(subs=(1, 2, 5) if high < 50 * low else (1,)).tick_values(low, high)
        return Scale(low, high, start, end, _within(ticks, low, high), log=True)
    margin = 0.05 * (high - low) or max(abs(low), 1.0) * 0.05
    low, high = low - margin, high + margin
    ticks = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return Scale(low, high, start, end, _within(ticks, low, high))


def _within(ticks: Sequence[float], low: float, high: float) -> list[float]:
    return [float(tick) for tick in ticks if low <= tick <= high]


def points_per_seed(seeds: int) -> int:
    """Return the points of a line of one of several seeds: those of more than three share the points of three."""
    return min(MAX_POINTS, max(40, 3 * MAX_POINTS // seeds))


def downsample(
    steps: Int[np.ndarray, " N"], values: Float[np.ndarray, " N"], points: int = MAX_POINTS
) -> tuple[Int[np.ndarray, " M"], Float[np.ndarray, " M"]]:
    """Return a curve in at most `points` points, with its first and last one, all extremes and all long gaps.

    Of each of `points / 2 - 1` bins of reports the lowest and the highest value are kept, at their own steps. A bin
    without a finite value keeps one NaN.
    """
    if len(steps) <= points:
        return steps, values
    kept = {0, len(steps) - 1}
    for part in np.array_split(np.arange(1, len(steps) - 1), points // 2 - 1):
        finite = part[np.isfinite(values[part])]
        kept |= (
            {int(finite[np.argmin(values[finite])]), int(finite[np.argmax(values[finite])])}
            if len(finite)
            else {int(part[0])}
        )
    rows = np.array(sorted(kept))
    return steps[rows], values[rows]


def line_path(x: Float[np.ndarray, " N"], y: Float[np.ndarray, " N"]) -> str:
    """Return a line as SVG path data, interrupted where a position is NaN."""
    data, pen_down = [], False
    for px, py in zip(x.tolist(), y.tolist(), strict=True):
        known = math.isfinite(px) and math.isfinite(py)
        if known:
            data.append(f"{'L' if pen_down else 'M'}{coordinate(px)},{coordinate(py)}")
        pen_down = known
    return "".join(data)


def coordinate(value: float) -> str:
    """Format a position in tenths of a unit."""
    return f"{value:.1f}".removesuffix(".0")
