"""Final scores of the methods on one task as inline SVG: a row per method, a ring per seed, a marker for the mean."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np

from cdred.loggers.progress import Formatter, finite, mean
from cdred.report.html.chart import CHARACTER, DASHES, Level, short_name
from cdred.report.html.elements import element
from cdred.report.html.scale import Scale, coordinate, percent_scale, value_scale
from cdred.report.html.theme import marker_path, style_class

ROW, TOP, BOTTOM, WIDTH = 32, 26, 28, 460


@dataclass(frozen=True)
class Row:
    """Final scores of one method.

    Attributes:
        name: the method.
        style: number of its colour and marker.
        scores: per seed; None if unknown.
        absent: text in place of unknown scores.
    """

    name: str
    style: int
    scores: Sequence[float | None]
    absent: str = "unknown"


def draw_dot_plot(
    title: str, rows: Sequence[Row], levels: Sequence[Level], show: Formatter, *, percent: bool
) -> Element:
    """Draw rows of final scores with reference levels as vertical lines.

    Args:
        title: of the figure.
        rows: the methods, from above.
        levels: reference scores.
        show: formats a score.
        percent: scores are rates from 0 to 1.
    """
    levels = [level for level in levels if level.value is not None and math.isfinite(level.value)]
    values = [value for row in rows for value in finite(row.scores)] + [level.value or 0.0 for level in levels]
    height = TOP + ROW * len(rows) + BOTTOM
    names = [short_name(row.name) for row in rows]
    left, right = 14 + CHARACTER * max(map(len, names), default=0), WIDTH - 52
    x = percent_scale(left, right) if percent else value_scale(values, left, right)
    content = [*_axis(x, height), *_levels(levels, x, height)]
    for index, (row, name) in enumerate(zip(rows, names, strict=True)):
        content += _row(row, name, x, TOP + ROW * (index + 0.5), show)
    drawing = element(
        "svg", content, viewBox=f"0 0 {WIDTH} {height}", role="img", aria_label=_describe(title, rows, show)
    )
    note = "rings: seeds, filled: their mean, which is at the right"
    caption = element("figcaption", element("strong", title), element("span", note))
    return element("figure", caption, drawing, class_="chart")


def _describe(title: str, rows: Sequence[Row], show: Formatter) -> str:
    means = [(row, mean(finite(row.scores))) for row in rows]
    texts = [f"{row.name}: {row.absent if value is None else show(value)}" for row, value in means]
    return f"{title}, mean over seeds. {'; '.join(texts)}."


def _axis(x: Scale, height: int) -> list[Element]:
    base, parts = height - BOTTOM, []
    for tick, position in zip(x.ticks, x(np.array(x.ticks)), strict=True):
        at = coordinate(float(position))
        parts.append(element("path", d=f"M{at},{TOP}V{base}", class_="grid"))
        parts.append(element("text", x.label(tick), x=at, y=base + 17, class_="tick middle"))
    return parts


def _levels(levels: Sequence[Level], x: Scale, height: int) -> list[Element]:
    """Draw vertical lines, with their names above in the order of the values, apart from each other."""
    dashed = zip(levels, DASHES, strict=False)
    places = sorted((float(x(np.array(level.value, float))), level.name, dash) for level, dash in dashed)
    parts, free = [], 0.0
    for at, name, dash in places:
        parts.append(
            element("path", d=f"M{coordinate(at)},{TOP - 4}V{height - BOTTOM}", class_="level", stroke_dasharray=dash)
        )
        half = CHARACTER * len(name) / 2
        middle = max(at, free + half)
        free = middle + half + 6
        parts.append(element("text", name, x=coordinate(middle), y=TOP - 9, class_="label quiet middle"))
    return parts


def _row(row: Row, name: str, x: Scale, y: float, show: Formatter) -> list[Element]:
    known, class_ = finite(row.scores), style_class(row.style)
    parts = [element("text", name, x=coordinate(x.start - 10), y=coordinate(y), dy=4, class_="label end")]
    if not known:
        place = {"x": coordinate(x.start + 8), "y": coordinate(y)}
        return [*parts, element("text", row.absent, dy=4, class_="tick", **place)]
    positions, centre = x(np.array(known)), float(np.mean(known))
    at = float(x(np.array(centre)))
    if len(known) > 1:
        span = f"M{coordinate(float(positions.min()))},{coordinate(y)}H{coordinate(float(positions.max()))}"
        rings = "".join(marker_path(row.style, float(position), y, 3.4) for position in positions)
        parts += [element("path", d=span, class_=f"thin {class_}"), element("path", d=rings, class_=f"ring {class_}")]
    parts.append(element("path", d=marker_path(row.style, at, y, 6.0), class_=f"mark {class_}"))
    text = show(centre)
    return [*parts, element("text", text, x=WIDTH - 4, y=coordinate(y), dy=4, class_="label end strong")]
