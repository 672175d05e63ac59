"""Statistics with known answers."""

import math

import numpy as np
import pytest

from cdred.report.statistics import (
    bootstrap_interval,
    improvement_interval,
    iqm,
    mean_improvement,
    normalized_score,
    probability_of_improvement,
)


def test_normalized_score() -> None:
    scores = [normalized_score(x, random=10.0, expert=110.0) for x in (10.0, 60.0, 110.0, 160.0)]
    assert scores == [0.0, 0.5, 1.0, 1.5]
    assert normalized_score(-5.0, random=0.0, expert=-10.0) == 0.5
    assert math.isnan(normalized_score(1.0, random=2.0, expert=2.0))


def test_iqm_is_the_mean_of_the_middle_half() -> None:
    assert iqm([100.0, 2.0, 0.0, 4.0]) == 3.0
    assert iqm([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1000.0]) == 3.5


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        # No ties: of 3 x 2 pairs, 5 > {1, 4}, 3 > {1} and 0 > {} are won.
        ([5.0, 0.0, 3.0], [4.0, 1.0], 3 / 6),
        ([4.0, 1.0], [5.0, 0.0, 3.0], 3 / 6),
        ([2.0], [1.0, 0.0, 3.0, 5.0], 2 / 4),
        ([1.0, 2.0], [0.0, 0.5], 1.0),
        ([0.0, 0.5], [1.0, 2.0], 0.0),
        ([9.0, 2.0, 2.5], [1.0, 3.0], 4 / 6),
        # A tie counts half.
        ([1.0, 2.0], [1.0, 2.0], 0.5),
        ([0.0, 3.0], [1.0, 1.0, 3.0], 2.5 / 6),
    ],
)
def test_probability_of_improvement(x: list[float], y: list[float], expected: float) -> None:
    assert probability_of_improvement(x, y) == pytest.approx(expected)
    assert probability_of_improvement(y, x) == pytest.approx(1 - expected)


def test_interval_of_a_large_normal_sample() -> None:
    scores = np.random.default_rng(1).normal(0.5, 1.0, 400)
    low, high = bootstrap_interval([scores.tolist()])
    # The 25 % trimmed mean of a normal sample has about 1.09 times the mean's standard error, here 0.05.
    assert high - low == pytest.approx(2 * 1.96 * 0.05 * 1.09, rel=0.15)
    assert low < iqm(scores.tolist()) < high


def test_interval_resamples_within_tasks_and_is_deterministic() -> None:
    assert bootstrap_interval([[1.0, 1.0], [5.0, 5.0]]) == (3.0, 3.0)
    uneven = [[0.0, 1.0, 0.5], [0.2, 0.9]]
    assert bootstrap_interval(uneven) == bootstrap_interval(uneven)


def test_improvement_over_several_tasks():
    better, worse = [0.9, 0.8], [0.2, 0.1]
    assert mean_improvement([(better, worse), (worse, better)]) == 0.5
    assert mean_improvement([(better, worse), (better, better)]) == 0.75
    # Separate scores stay separate however seeds are drawn; where one of two is better, half of a task is uncertain.
    assert improvement_interval([(better, worse)] * 2) == (1.0, 1.0)
    assert improvement_interval([(better, worse), ([0.5, 0.1], [0.3, 0.3])]) == (0.5, 1.0)


def test_one_seed_of_a_task_has_no_interval():
    pair = ([0.9, 0.8], [0.2, 0.1])
    assert bootstrap_interval([]) is None
    assert bootstrap_interval([[1.0, 2.0, 3.0], [2.0]]) is None
    assert improvement_interval([pair, ([0.5, 0.1], [0.3])]) is None
    assert improvement_interval([pair, ([0.5], [0.3, 0.2])]) is None
