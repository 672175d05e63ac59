"""Computations and annotations of the plotting functions."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from cdred.report.plots import (
    LABEL_RANGE,
    Label,
    format_tick,
    label_line_ends,
    log_scale_if_wide,
    mark_empty,
    mean_over_seeds,
    plot_curves,
    plot_points,
    running_mean,
    separate_labels,
)
from cdred.report.results import Series


@pytest.fixture
def axes():
    return Figure().subplots()


def series(*rows: list[float]) -> Series:
    return Series(np.arange(len(rows)), np.array(rows, float).reshape(len(rows), -1))


def test_running_mean_is_causal_and_ignores_nan() -> None:
    values = np.array([[1.0, np.nan], [3.0, np.nan], [5.0, 2.0], [7.0, 4.0]])
    np.testing.assert_array_equal(running_mean(values, 2), [[1, np.nan], [2, np.nan], [4, 2], [6, 3]])
    np.testing.assert_array_equal(running_mean(values, 1), values)
    np.testing.assert_allclose(running_mean(values, 10)[:, 0], [1, 2, 3, 4])


def test_mean_over_seeds_ignores_nan() -> None:
    np.testing.assert_array_equal(mean_over_seeds(np.array([[1, np.nan], [np.nan, np.nan]])), [1, np.nan])


def test_curves_of_several_seeds_have_a_mean(axes) -> None:
    assert plot_curves(axes, series([0, 2], [2, 4], [np.nan, np.nan]), "k") == 3
    first, second, mean = (line.get_ydata() for line in axes.lines)
    np.testing.assert_array_equal([first, second, mean], [[0, 2, np.nan], [2, 4, np.nan], [1, 3, np.nan]])


def test_curve_of_one_seed_is_a_single_line(axes) -> None:
    assert plot_curves(axes, series([1.0], [5.0]), "k", window=2) == 3
    (line,) = axes.lines
    np.testing.assert_array_equal(line.get_ydata(), [1, 3])


def test_points_have_a_ring_per_seed(axes) -> None:
    assert plot_points(axes, series([0, 2], [2, 4]), "k") == 3
    assert [line.get_marker() for line in axes.lines] == ["o"] * 3
    assert [line.get_markerfacecolor() for line in axes.lines] == ["white", "white", "k"]


def test_nothing_is_plotted_of_an_empty_series(axes) -> None:
    empty = Series(np.zeros(0, int), np.zeros((0, 2)))
    assert (plot_curves(axes, empty, "k"), plot_points(axes, empty, "k")) == (None, None)
    assert len(axes.lines) == 0


@pytest.mark.parametrize(
    ("values", "texts"), [([], ["not reported"]), ([np.nan, np.nan], ["not reported"]), ([np.nan, 1.0], [])]
)
def test_panel_without_finite_values_is_annotated(axes, values, texts) -> None:
    if values:
        plot_curves(axes, series(*([value] for value in values)), "k")
    mark_empty(axes)
    assert [text.get_text() for text in axes.texts] == texts


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.25, "0.25"), (-999, "-999"), (4000, "4k"), (2.5e6, "2.5M"), (1e9, "1e9"), (-2e-4, "-2e-4")],
)
def test_ticks_are_short(value, text) -> None:
    assert format_tick(value) == text


def test_close_labels_are_moved_symmetrically() -> None:
    assert separate_labels([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])


@pytest.mark.parametrize("heights", [[0.0] * 5, [1.0] * 5, [0.0] * 40, [0.0, 0.0, 1.0, 1.0], [], [2.0]])
def test_labels_stay_beside_the_panel(heights) -> None:
    placed = separate_labels(heights, 0.05)
    low, high = LABEL_RANGE
    spacing = min(0.05, (high - low) / max(1, len(heights) - 1))
    assert all(low - 1e-9 <= height <= high + 1e-9 for height in placed)
    assert all(np.diff(placed) >= spacing - 1e-3)


def test_labels_are_moved_apart_and_stay_in_order() -> None:
    placed = separate_labels([0.1, 0.97, 0.98, 0.99], 0.05)
    assert placed[0] == 0.1
    assert np.diff(placed).min() == pytest.approx(0.05, abs=1e-3)
    assert max(placed) == LABEL_RANGE[1]


def test_labels_are_at_the_height_of_their_values(axes) -> None:
    axes.plot([0, 1], [0.0, 10.0])
    axes.set_ylim(0, 10)
    label_line_ends(axes, [Label(2.5, "quarter", "k"), Label(None, "unknown", "k")])
    (text,) = axes.texts
    assert text.get_text() == "quarter"
    assert text.xy == pytest.approx((1, 0.25))


@pytest.mark.parametrize(("values", "scale"), [([1, 100], "log"), ([-1, 100], "linear"), ([1, 2], "linear")])
def test_log_scale_only_for_wide_positive_ranges(axes, values: list[float], scale: str) -> None:
    axes.plot([0, 1, 2], [*values, np.nan])
    log_scale_if_wide(axes)
    assert axes.get_yscale() == scale
