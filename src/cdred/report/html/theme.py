"""Colours and markers of the HTML report, and its style sheet: the palette of `report/plots.py` in light and dark."""

import math
from importlib.resources import files

import numpy as np

from cdred.report.plots import PALETTE

# Backgrounds of figures, as in style.css.
LIGHT, DARK = "#ffffff", "#1b1f24"
# Contrast that WCAG 2.2 asks of graphics, criterion 1.4.11; in dark mode thin lines need more.
MIN_CONTRAST_LIGHT, MIN_CONTRAST_DARK = 3.0, 4.5


def _polygon(corners: int, start: float) -> list[tuple[float, float]]:
    """Return the corners of a regular polygon on the unit circle, from an angle in degrees on, 0 pointing up."""
    angles = [math.radians(start + 360 * i / corners) for i in range(corners)]
    return [(math.sin(angle), -math.cos(angle)) for angle in angles]


_PLUS = [(-0.4, -1.1), (0.4, -1.1), (0.4, -0.4), (1.1, -0.4), (1.1, 0.4), (0.4, 0.4)]
_PLUS += [(0.4, 1.1), (-0.4, 1.1), (-0.4, 0.4), (-1.1, 0.4), (-1.1, -0.4), (-0.4, -0.4)]
# None is a circle. Their number has no factor in common with that of the colours, so 70 curves differ in one of both.
MARKERS = (
    None,
    [(0.9 * x * 2**0.5, 0.9 * y * 2**0.5) for x, y in _polygon(4, 45)],
    [(1.25 * x, 1.25 * y) for x, y in _polygon(3, 0)],
    [(1.2 * x, 1.2 * y) for x, y in _polygon(4, 0)],
    [(1.25 * x, 1.25 * y) for x, y in _polygon(3, 180)],
    _PLUS,
    [(1.1 * x, 1.1 * y) for x, y in _polygon(5, 0)],
)


def style_sheet() -> str:
    """Return the CSS of the page, with a class `s0`, `s1`, ... per colour of the palette."""
    css = (files("cdred.report.html") / "style.css").read_text(encoding="utf-8")
    light = "".join(f".s{i}{{--c:{readable(c, LIGHT, MIN_CONTRAST_LIGHT)}}}" for i, c in enumerate(PALETTE))
    dark = "".join(f".s{i}{{--c:{readable(c, DARK, MIN_CONTRAST_DARK)}}}" for i, c in enumerate(PALETTE))
    return f"{css}{light}\n@media screen and (prefers-color-scheme:dark){{{dark}}}\n"


def style_class(style: int) -> str:
    """Return the class of the colour of a curve by its number."""
    return f"s{style % len(PALETTE)}"


def marker_path(style: int, x: float, y: float, radius: float) -> str:
    """Return the marker of a curve, by its number, as SVG path data."""
    corners = MARKERS[style % len(MARKERS)]
    if corners is None:
        arc = f"a{radius:g},{radius:g} 0 1,0"
        return f"M{x - radius:.1f},{y:.1f}{arc} {2 * radius:g},0{arc} {-2 * radius:g},0z"
    return "M" + "L".join(f"{x + radius * dx:.1f},{y + radius * dy:.1f}" for dx, dy in corners) + "z"


def readable(colour: str, background: str, minimum: float) -> str:
    """Return a colour, mixed with black or white, away from the background, until their contrast is `minimum`."""
    target = np.zeros(3) if luminance(background) > 0.5 else np.ones(3)
    for share in np.linspace(0, 1, 101):
        mixed = _hex((1 - share) * _rgb(colour) + share * target)
        if contrast(mixed, background) >= minimum:
            return mixed
    raise ValueError(f"no mixture of {colour} has a contrast of {minimum} to {background}")


def contrast(colour: str, other: str) -> float:
    """Return the contrast ratio of two colours, 1 to 21, as WCAG 2.2 defines it."""
    darker, lighter = sorted((luminance(colour), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour `#rrggbb`, 0 to 1, as WCAG 2.2 defines it."""
    rgb = _rgb(colour)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))


def _rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255


def _hex(rgb: np.ndarray) -> str:
    return "#" + "".join(f"{round(255 * float(value)):02x}" for value in rgb)
