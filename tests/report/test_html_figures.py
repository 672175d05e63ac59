"""Scales, downsampling, colours and markers of the SVG figures, and their elements."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdred.report.html.chart import LABEL_LENGTH, Chart, Curve, Level, draw_chart, short_name
from cdred.report.html.elements import append, document, element
from cdred.report.html.scale import (
    MAX_POINTS,
    downsample,
    line_path,
    percent_scale,
    points_per_seed,
    step_scale,
    value_scale,
)
from cdred.report.html.theme import (
    DARK,
    LIGHT,
    MARKERS,
    MIN_CONTRAST_DARK,
    MIN_CONTRAST_LIGHT,
    contrast,
    marker_path,
    readable,
    style_class,
    style_sheet,
)
from cdred.report.plots import PALETTE
from cdred.report.results import Series


def series(steps, *seeds) -> Series:
    return Series(np.array(steps, int), np.array(seeds, float).T)


def paths(figure, class_: str) -> list[str]:
    return [e.get("d") or "" for e in figure.iter("path") if class_ in str(e.get("class")).split()]


def test_scales_map_their_ends_and_have_round_ticks():
    x = step_scale(200, 50.0, 250.0)
    assert x(np.array([0, 100, 200])).tolist() == [50, 150, 250]
    assert [x.label(tick) for tick in step_scale(500_000, 0, 1).ticks][:3] == ["0", "200,000", "400,000"]
    y = value_scale([0.0, 10.0], 200.0, 0.0)
    assert y.ticks == [0, 2.5, 5, 7.5, 10]
    np.testing.assert_allclose(y(np.array([5.0])), [100.0])
    rate = percent_scale(100.0, 0.0)
    assert [rate.label(tick) for tick in rate.ticks] == ["0 %", "25 %", "50 %", "75 %", "100 %"]


def test_log_scale_is_for_positive_values_of_a_wide_range():
    wide = value_scale([1.0, 100.0], 0.0, 100.0, log=True)
    assert wide.log
    np.testing.assert_allclose(wide(np.array([10.0])), [50.0])
    assert wide.ticks == [1, 10, 100]
    assert not value_scale([1.0, 2.0], 0.0, 1.0, log=True).log
    assert not value_scale([0.0, 100.0], 0.0, 1.0, log=True).log


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=5), st.booleans())
def test_scales_of_any_values_are_finite_and_keep_the_order(values, log):
    scale = value_scale(values, 0.0, 100.0, log)
    positions = scale(np.sort(np.array(values, float)))
    assert np.isfinite(positions).all()
    assert ((positions >= -1e-6) & (positions <= 100 + 1e-6)).all()
    assert (np.diff(positions) >= 0).all()
    assert len(scale.ticks) < 30


def test_downsampling_keeps_ends_extremes_and_gaps():
    steps, values = np.arange(10_000), np.sin(np.arange(10_000) / 50)
    values[5003], values[7000:7500] = 40.0, np.nan
    kept_steps, kept = downsample(steps, values)
    assert len(kept) <= MAX_POINTS
    assert kept_steps[[0, -1]].tolist() == [0, 9999]
    assert 5003 in kept_steps
    np.testing.assert_array_equal(kept, values[kept_steps])
    assert np.isnan(kept).any()
    assert np.isfinite(kept[(kept_steps < 6800) | (kept_steps > 7700)]).all()
    assert [points_per_seed(seeds) for seeds in (2, 3, 6, 100)] == [160, 160, 80, 40]
    assert len(downsample(steps, values, 40)[0]) <= 40
    short = np.arange(MAX_POINTS)
    assert downsample(short, short.astype(float))[0] is short


def test_lines_are_interrupted_where_values_are_unknown():
    assert line_path(np.array([0, 1, 2, 3.0]), np.array([0, 1, np.nan, 3.25])) == "M0,0L1,1M3,3.2"


def test_curves_have_a_line_per_seed_and_their_mean():
    chart = Chart("Loss", "", [Curve("critic", series([0, 100], [0, 2], [0, 4]))], last_step=100)
    figure = draw_chart(chart)
    (thin,), (bold,) = paths(figure, "thin"), paths(figure, "line")
    numbers = [float(text) for text in re.findall(r"-?[\d.]+", thin)]
    first, second, mean = numbers[3], numbers[7], float(bold.rpartition(",")[2])
    # Heights of 2 and 4 above 0 are in proportion, and the mean, 3, is between them.
    base = numbers[1]
    assert (base - second) == pytest.approx(2 * (base - first), abs=0.2)
    assert mean == pytest.approx((first + second) / 2, abs=0.1)
    (drawing,) = figure.iter("svg")
    assert json.loads(drawing.get("data-curves") or "") == [
        {"name": "critic", "class": "s0", "x": [0, 100], "y": [0.0, 3.0]}
    ]


def test_points_have_a_ring_per_known_seed():
    curve = Curve("evaluation", series([0, 100], [1, 2], [3, np.nan]), 1, points=True, joined=True)
    figure = draw_chart(Chart("Return", "", [curve], [Level("expert", 5.0), Level("random", None)], last_step=100))
    assert paths(figure, "ring")[0].count("M") == 3
    # Two means, and the marker of the label.
    assert [path.count("M") for path in paths(figure, "mark")] == [2, 1]
    assert len(paths(figure, "level")) == 1
    assert {text.text for text in figure.iter("text")} >= {"evaluation", "expert", "steps per seed"}
    assert next(figure.iter("svg")).get("aria-label") == "Return. evaluation: last mean 2.00; expert: 5.00."


def test_chart_without_values_says_so():
    figure = draw_chart(Chart("Loss", "", [Curve("critic", series([0], [np.nan]))]))
    assert [text.text for text in figure.iter("text")] == ["not reported"]


@pytest.mark.parametrize(("background", "minimum"), [(LIGHT, MIN_CONTRAST_LIGHT), (DARK, MIN_CONTRAST_DARK)])
def test_colours_are_readable_and_those_of_the_palette_where_it_is(background, minimum):
    for colour in PALETTE:
        shown = readable(colour, background, minimum)
        assert contrast(shown, background) >= minimum
        assert (shown == colour) == (contrast(colour, background) >= minimum)


def test_contrast_is_that_of_wcag():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_text_colours_of_the_style_sheet_are_readable():
    css = style_sheet()
    light, dark = css.split("prefers-color-scheme: dark")[:2]
    for theme in (light, dark):
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", theme))
        pairs = [(text, back) for text in ("ink", "quiet", "accent") for back in ("surface", "page", "hover")]
        for text, back in (*pairs, ("warn-ink", "warn")):
            assert contrast(colours[text], colours[back]) >= 4.5, (text, back)
    assert (f"--surface: {LIGHT}" in light, f"--surface: {DARK}" in dark) == (True, True)


def test_seventy_curves_differ_in_colour_or_marker():
    assert len({(style_class(i), i % len(MARKERS)) for i in range(70)}) == 70
    # Without colours, as many as there are markers.
    assert len({marker_path(i, 0.0, 0.0, 1.0) for i in range(len(MARKERS))}) == len(MARKERS) == 7


def test_elements_escape_texts_and_attributes():
    tree = element("p", "a<b>&", element("b", "x"), "tail</p>", title='"><script>')
    text = document("</title><script>", "p{}", "let a = 1 < 2;", tree)
    assert '<p title="&quot;&gt;<script&gt;">' in text
    assert "a&lt;b&gt;&amp;<b>x</b>tail&lt;/p&gt;</p>" in text
    assert "<title>&lt;/title&gt;&lt;script&gt;</title>" in text
    assert "<script>let a = 1 < 2;</script>" in text


def test_children_may_be_nested_and_absent():
    tree = append(element("p", None, ["a", None, ["b", element("i")]], "c"), "d")
    assert tree.text == "ab"
    assert tree[0].tail == "cd"


def test_long_names_keep_their_ends():
    names = [short_name(f"cdred · of the same beginning-{end}") for end in ("centered", "noisy")]
    assert [len(name) for name in names] == [LABEL_LENGTH, LABEL_LENGTH]
    assert names[0].endswith("-centered")
    assert names[0] != names[1]
    assert short_name("cdred") == "cdred"
