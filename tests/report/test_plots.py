"""The arithmetic behind a panel."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from cdred.report.plots import Label, logarithmic, mean_over_seeds, name_ends, running_mean, spread_out


def test_running_mean_never_looks_ahead_and_skips_holes() -> None:
    values = np.array([[1.0, np.nan], [3.0, np.nan], [5.0, 2.0], [7.0, 4.0]])
    np.testing.assert_array_equal(running_mean(values, 2), [[1, np.nan], [2, np.nan], [4, 2], [6, 3]])
    np.testing.assert_array_equal(running_mean(values, 1), values)
    np.testing.assert_allclose(running_mean(values, 10)[:, 0], [1, 2, 3, 4])


def test_mean_over_seeds_leaves_out_what_is_missing() -> None:
    np.testing.assert_array_equal(mean_over_seeds(np.array([[1, np.nan], [np.nan, np.nan]])), [1, np.nan])


def test_names_are_moved_apart_and_stay_in_order() -> None:
    placed = spread_out([0.1, 0.97, 0.98, 0.99], 0.05)
    assert placed[0] == 0.1
    assert np.diff(placed).min() == pytest.approx(0.05, abs=1e-3)
    assert np.mean(placed[1:]) == pytest.approx(0.98)


def test_names_stand_at_their_curves() -> None:
    axes = Figure().subplots()
    axes.plot([0, 1], [0.0, 10.0])
    axes.set_ylim(0, 10)
    name_ends(axes, [Label(2.5, "quarter", "k"), Label(None, "nowhere", "k")])
    (text,) = axes.texts
    assert text.get_text() == "quarter"
    assert text.xy == pytest.approx((1, 0.25))


@pytest.mark.parametrize(("values", "scale"), [([1, 100], "log"), ([-1, 100], "linear"), ([1, 2], "linear")])
def test_log_only_where_it_helps(values: list[float], scale: str) -> None:
    axes = Figure().subplots()
    axes.plot([0, 1, 2], [*values, np.nan])
    logarithmic(axes)
    assert axes.get_yscale() == scale
