"""Aggregates of several methods over several tasks: known answers, and what the figure shows."""

import numpy as np
import pytest

from cdred.report.aggregate import aggregate, common_tasks, draw_aggregate
from cdred.report.statistics import performance_profile

SCORES = {
    "cdred": {"a": [1.0, 1.0, 1.0, 1.0], "b": [0.5, 0.5, 0.5, 0.5], "c": [0.0]},
    "bc": {"b": [0.0, 0.0, 1.0, 1.0], "a": [0.0, 0.0, 0.0, 0.0]},
}


def test_performance_profile_is_the_fraction_of_higher_scores():
    np.testing.assert_array_equal(
        performance_profile([0.0, 0.5, 1.0, 1.0], [-1, 0, 0.5, 0.9, 1]), [1, 0.75, 0.5, 0.5, 0]
    )


def test_aggregate_is_over_the_tasks_of_all_methods():
    assert common_tasks(SCORES) == ["a", "b"]
    statistics = aggregate(SCORES)
    assert statistics["tasks"] == ["a", "b"]
    cdred, bc = statistics["methods"]["cdred"], statistics["methods"]["bc"]
    # Of 0.5, 0.5, 0.5, 0.5, 1, 1, 1, 1 the middle half is 0.5, 0.5, 1, 1; of six zeros and two ones it has zeros only.
    assert (cdred["seeds"], cdred["iqm"], cdred["interval"]) == (8, 0.75, (0.75, 0.75))
    assert (bc["seeds"], bc["iqm"]) == (8, 0.0)
    assert (cdred["probability_first_is_better"], cdred["probability_interval"]) == (None, None)
    # Always on a, and half of the times on b.
    assert bc["probability_first_is_better"] == 0.75
    low, high = bc["probability_interval"]
    assert 0.5 <= low < 0.75 < high <= 1


def test_statistics_of_one_seed_are_drawn_without_interval():
    scores = {"cdred": {"a": [1.0, 0.9], "b": [0.5]}, "bc": {"a": [0.0, 0.0], "b": [0.2]}}
    statistics = aggregate(scores)
    assert [entry["interval"] for entry in statistics["methods"].values()] == [None, None]
    assert statistics["methods"]["bc"]["probability_first_is_better"] == 1.0
    assert statistics["methods"]["bc"]["probability_interval"] is None
    left, _, right = draw_aggregate(scores, statistics).axes
    assert [len(axes.lines) - len(axes.collections) for axes in (left, right)] == [2, 2]


def test_without_scores_there_is_no_common_task():
    assert common_tasks({}) == []
    assert common_tasks({"cdred": {"a": [1.0]}, "bc": {"b": [1.0]}}) == []


@pytest.mark.parametrize(("methods", "panels"), [(["cdred"], 2), (["cdred", "bc"], 3)])
def test_figure_has_a_panel_per_statistic(methods, panels):
    scores = {method: SCORES[method] for method in methods}
    figure = draw_aggregate(scores, aggregate(scores))
    assert len(figure.axes) == panels
    left, middle, *right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == methods
    profiles = {line.get_label(): line.get_xydata() for line in middle.lines}
    assert list(profiles) == methods
    drawn = scores[methods[0]]
    shares = [score for task in common_tasks(scores) for score in drawn[task]]
    threshold, share = profiles["cdred"][100]
    assert share == np.mean(np.array(shares) > threshold)
    assert [label.get_text() for axes in right for label in axes.get_yticklabels()] == methods[1:]
