"""Figures of curves against steps as inline SVG. A script shows their values in tooltips."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np

from cdred.loggers.progress import format_number, format_percent
from cdred.report.html.elements import append, element
from cdred.report.html.scale import (
    MAX_POINTS,
    Scale,
    coordinate,
    downsample,
    line_path,
    percent_scale,
    points_per_seed,
    step_scale,
    value_scale,
)
from cdred.report.html.theme import marker_path, style_class
from cdred.report.plots import mean_over_seeds, running_mean, separate_labels
from cdred.report.results import Series

# Widths are those of wide fonts: a page does not know its reader's.
TOP, BOTTOM, CHARACTER, LABEL_LENGTH, LABEL_HEIGHT = 10, 40, 8.4, 18, 15
# Markers along a line, so that lines can be told apart without their colours.
MARKERS_PER_LINE = 4


@dataclass(frozen=True)
class Curve:
    """A metric of one or more seeds.

    Attributes:
        name: its label.
        series: steps and values per seed.
        style: number of its colour and marker.
        points: rings for the seeds and a marker for their mean at each report, for infrequent measurements.
        joined: with `points`, a line through the means.
        window: reports over which a running mean is drawn.
    """

    name: str
    series: Series
    style: int = 0
    points: bool = False
    joined: bool = False
    window: int = 1


@dataclass(frozen=True)
class Level:
    """A horizontal line at `value`; None omits it."""

    name: str
    value: float | None


@dataclass(frozen=True)
class Chart:
    """A figure.

    Attributes:
        title: its name.
        note: what is drawn, below the title.
        curves: those without a finite value are omitted.
        levels: reference lines.
        last_step: end of the axis of steps.
        percent: values are rates from 0 to 1.
        log: use a logarithmic scale for positive values of a wide range.
        x_name: what is counted on the axis of steps.
        width, height: in the units of the SVG, about pixels.
    """

    title: str
    note: str
    curves: Sequence[Curve]
    levels: Sequence[Level] = ()
    last_step: int = 1
    percent: bool = False
    log: bool = False
    x_name: str = "steps per seed"
    width: int = 360
    height: int = 230

    @property
    def known(self) -> list[Curve]:
        """Curves with a finite value."""
        return [curve for curve in self.curves if np.isfinite(curve.series.values).any()]


def draw_chart(chart: Chart) -> Element:
    """Draw a chart as a figure; with the words "not reported" if no curve has a value."""
    curves = [_Drawn(curve) for curve in chart.known]
    levels = [level for level in chart.levels if level.value is not None and math.isfinite(level.value)]
    names = [curve.name for curve in chart.known] + [level.name for level in levels]
    right = chart.width - 20 - CHARACTER * min(LABEL_LENGTH, max(map(len, names), default=0))
    if curves:
        y = _value_axis(chart, curves, levels)
        left = 8 + CHARACTER * max((len(y.label(tick)) for tick in y.ticks), default=1)
        x = step_scale(chart.last_step, left, right)
        content = [*_axes(chart, x, y), *_level_lines(levels, x, y)]
        content += [part for curve in curves for part in curve.draw(x, y)]
        content += _end_labels(curves, levels, x, y)
        data = {"data_plot": json.dumps([x.start, x.end, x.high, y.end, y.start]), "data_percent": int(chart.percent)}
        data["data_x"], data["data_curves"] = (
            chart.x_name,
            json.dumps([c.data() for c in curves], separators=(",", ":")),
        )
    else:
        middle = {"x": chart.width / 2, "y": chart.height / 2, "text_anchor": "middle"}
        content, data = [element("text", "not reported", class_="quiet", **middle)], {}
    drawing = element(
        "svg",
        content,
        viewBox=f"0 0 {chart.width} {chart.height}",
        role="img",
        aria_label=describe(chart),
        **data,
    )
    caption = element("figcaption", element("strong", chart.title), element("span", chart.note))
    return element("figure", caption, drawing, class_="chart")


def describe(chart: Chart) -> str:
    """Describe a chart in words: the last mean of each curve, and the levels."""
    shown = format_percent if chart.percent else format_number
    parts = [f"{curve.name}: last mean {shown(_Drawn(curve).last)}" for curve in chart.known]
    parts += [f"{level.name}: {shown(level.value)}" for level in chart.levels if level.value is not None]
    return f"{chart.title}. {'; '.join(parts) or 'Not reported'}."


class _Drawn:
    """A curve with its running mean and the mean over its seeds."""

    def __init__(self, curve: Curve):
        self.curve = curve
        self.values = running_mean(curve.series.values, curve.window)
        self.means = mean_over_seeds(self.values)
        self.class_ = style_class(curve.style)

    @property
    def last(self) -> float | None:
        known = self.means[np.isfinite(self.means)]
        return float(known[-1]) if len(known) else None

    def data(self) -> dict:
        """Return what tooltips show: the means, in four significant digits."""
        steps, means = downsample(self.curve.series.steps, self.means)
        values = [float(f"{value:.4g}") if math.isfinite(value) else None for value in means.tolist()]
        return {"name": self.curve.name, "class": self.class_, "x": steps.tolist(), "y": values}

    def draw(self, x: Scale, y: Scale) -> list[Element]:
        return self._draw_points(x, y) if self.curve.points else self._draw_lines(x, y)

    def _draw_lines(self, x: Scale, y: Scale) -> list[Element]:
        steps, seeds = self.curve.series.steps, self.values.shape[1]
        points = points_per_seed(seeds)
        thin = "".join(self._path(steps, self.values[:, i], x, y, points) for i in range(seeds)) if seeds > 1 else ""
        parts = [element("path", d=thin, class_=f"thin {self.class_}")] if thin else []
        bold = self._path(steps, self.means, x, y)
        known = np.flatnonzero(np.isfinite(self.means))
        marked = known[np.unique(np.linspace(0, len(known) - 1, MARKERS_PER_LINE + 1).astype(int))[1:]]
        # A line through a single report would be invisible.
        marked = known if len(known) == 1 else marked
        return [*parts, element("path", d=bold, class_=f"line {self.class_}"), self._marks(marked, x, y, 3.2)]

    def _draw_points(self, x: Scale, y: Scale) -> list[Element]:
        px, py, style = x(self.curve.series.steps), y(self.values), self.curve.style
        known = np.argwhere(np.isfinite(py)) if self.values.shape[1] > 1 else ()
        rings = "".join(marker_path(style, float(px[i]), float(py[i, j]), 2.6) for i, j in known)
        parts = [element("path", d=rings, class_=f"ring {self.class_}")] if rings else []
        if self.curve.joined:
            parts.append(element("path", d=line_path(px, y(self.means)), class_=f"line {self.class_}"))
        return [*parts, self._marks(np.flatnonzero(np.isfinite(self.means)), x, y, 4.4)]

    def _path(self, steps: np.ndarray, values: np.ndarray, x: Scale, y: Scale, points: int = MAX_POINTS) -> str:
        steps, values = downsample(steps, values, points)
        return line_path(x(steps), y(values))

    def _marks(self, rows: np.ndarray, x: Scale, y: Scale, radius: float) -> Element:
        px, py = x(self.curve.series.steps[rows]), y(self.means[rows])
        marks = [marker_path(self.curve.style, a, b, radius) for a, b in zip(px, py, strict=True) if math.isfinite(b)]
        return element("path", d="".join(marks), class_=f"mark {self.class_}")


def _value_axis(chart: Chart, curves: Sequence[_Drawn], levels: Sequence[Level]) -> Scale:
    start, end = chart.height - BOTTOM, TOP
    if chart.percent:
        return percent_scale(start, end)
    drawn = [np.ravel(curve.values) for curve in curves] + [np.array([level.value], float) for level in levels]
    values = np.concatenate(drawn)
    return value_scale(values[np.isfinite(values)].tolist(), start, end, chart.log)


def _axes(chart: Chart, x: Scale, y: Scale) -> list[Element]:
    parts = []
    for tick, position in zip(y.ticks, y(np.array(y.ticks)), strict=True):
        at = coordinate(float(position))
        parts.append(element("path", d=f"M{coordinate(x.start)},{at}H{coordinate(x.end)}", class_="grid"))
        parts.append(element("text", y.label(tick), x=coordinate(x.start - 6), y=at, dy=4, class_="tick end"))
    base = coordinate(y.start)
    parts.append(element("path", d=f"M{coordinate(x.start)},{base}H{coordinate(x.end)}", class_="axis"))
    for tick, position in zip(x.ticks, x(np.array(x.ticks)), strict=True):
        at = coordinate(float(position))
        parts.append(element("path", d=f"M{at},{base}v4", class_="axis"))
        parts.append(element("text", x.label(tick), x=at, y=coordinate(y.start + 17), class_="tick middle"))
    middle = coordinate((x.start + x.end) / 2)
    name = element("text", chart.x_name, x=middle, y=coordinate(chart.height - 5.0), class_="tick middle")
    return [*parts, name]


DASHES = ("7 4", "2 3", "8 3 2 3", "4 2")


def _level_lines(levels: Sequence[Level], x: Scale, y: Scale) -> list[Element]:
    parts = []
    for level, dash in zip(levels, DASHES, strict=False):
        at = coordinate(float(y(np.array(level.value, float))))
        line = f"M{coordinate(x.start)},{at}H{coordinate(x.end)}"
        parts.append(element("path", d=line, class_="level", stroke_dasharray=dash))
    return parts


def short_name(name: str) -> str:
    """Return a name in at most `LABEL_LENGTH` characters; of longer ones begin and end, where names differ."""
    half = LABEL_LENGTH // 2
    return name if len(name) <= LABEL_LENGTH else f"{name[: half - 1]}…{name[-half:]}"


def _end_labels(curves: Sequence[_Drawn], levels: Sequence[Level], x: Scale, y: Scale) -> list[Element]:
    """Label curves and levels at the right edge, at their last values, without overlaps."""
    entries = [(curve.last, curve.curve.name, curve.curve.style) for curve in curves]
    entries += [(level.value, level.name, None) for level in levels]
    span = y.start - y.end
    positions = [(float(y(np.array(value, float))), name, style) for value, name, style in entries if value is not None]
    heights = [(min(1.0, max(0.0, (y.start - at) / span)), name, style) for at, name, style in positions if at == at]
    heights.sort(key=lambda entry: entry[0])
    group = element("g", class_="labels")
    separated = separate_labels([height for height, _, _ in heights], LABEL_HEIGHT / span)
    for height, (_, name, style) in zip(separated, heights, strict=True):
        at, left = y.start - height * span, x.end + 10
        if style is not None:
            append(group, element("path", d=marker_path(style, left, at, 3.2), class_=f"mark {style_class(style)}"))
        text = short_name(name)
        place = {"x": coordinate(left + 7 if style is not None else left - 3), "y": coordinate(at), "dy": 4}
        append(group, element("text", text, class_="label" if style is not None else "label quiet", **place))
    return [group]
