"""Scores with known answers."""

import math

import numpy as np
import pytest

from cdred.report.statistics import bootstrap_interval, iqm, normalized


def test_normalized() -> None:
    assert [normalized(x, random=10.0, expert=110.0) for x in (10.0, 60.0, 110.0, 160.0)] == [0.0, 0.5, 1.0, 1.5]
    assert normalized(-5.0, random=0.0, expert=-10.0) == 0.5
    assert math.isnan(normalized(1.0, random=2.0, expert=2.0))


def test_iqm_is_the_mean_of_the_middle_half() -> None:
    assert iqm([100.0, 2.0, 0.0, 4.0]) == 3.0
    assert iqm([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1000.0]) == 3.5


def test_interval_of_a_large_normal_sample() -> None:
    scores = np.random.default_rng(1).normal(0.5, 1.0, 400)
    low, high = bootstrap_interval([scores.tolist()])
    # The 25 % trimmed mean of a normal sample has about 1.09 times the mean's standard error, here 0.05.
    assert high - low == pytest.approx(2 * 1.96 * 0.05 * 1.09, rel=0.15)
    assert low < iqm(scores.tolist()) < high


def test_interval_draws_within_tasks_and_repeats_itself() -> None:
    assert bootstrap_interval([[1.0], [2.0], [3.0]]) == (2.0, 2.0)
    assert bootstrap_interval([[1.0, 1.0], [5.0, 5.0]]) == (3.0, 3.0)
    uneven = [[0.0, 1.0, 0.5], [0.2, 0.9]]
    assert bootstrap_interval(uneven) == bootstrap_interval(uneven)
