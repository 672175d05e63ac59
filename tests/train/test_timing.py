"""Speed and time left of a run, with a clock of the test."""

from types import SimpleNamespace

import pytest

from cdred.config import preset
from cdred.train.loop import episodes_left
from cdred.train.timing import COMPILING_BLOCKS, RunTimer


class Clock:
    """Clock that the test advances."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def compiled_timer() -> tuple[RunTimer, Clock]:
    """Return a timer after the blocks that compile, at step 40."""
    clock = Clock()
    timer = RunTimer(clock)
    for block in range(1, COMPILING_BLOCKS + 1):
        clock.now += 50.0
        timer.end_block(20 * block)
    return timer, clock


def test_compilation_is_no_part_of_the_speed():
    timer, clock = compiled_timer()
    assert timer.rates(40, 1000, 0) == {"steps_per_second": None, "eta_seconds": None, "min_eta_seconds": None}
    clock.now += 2.0
    timer.end_block(60)
    assert timer.rates(60, 1000, 0)["steps_per_second"] == 10.0
    assert timer.seconds() == 50.0 * COMPILING_BLOCKS + 2.0


def test_time_left_counts_evaluations_once_one_is_measured():
    timer, clock = compiled_timer()
    clock.now += 2.0
    assert timer.rates(60, 100, 30) == {"steps_per_second": 10.0, "eta_seconds": None, "min_eta_seconds": 4.0}
    clock.now += 15.0
    timer.record_evaluation(15.0, episodes=5)
    clock.now += 1.0
    # The evaluation is no part of the second that 10 steps took.
    expected = {"steps_per_second": 10.0, "eta_seconds": 3.0 + 25 * 3.0, "min_eta_seconds": 3.0}
    assert timer.rates(70, 100, 25) == pytest.approx(expected)


def test_time_of_an_evaluation_is_that_of_the_fastest():
    timer, clock = compiled_timer()
    for seconds in (60.0, 10.0, 12.0):
        clock.now += seconds
        timer.record_evaluation(seconds, episodes=5)
    clock.now += 1.0
    assert timer.rates(50, 100, 10)["eta_seconds"] == pytest.approx(5.0 + 10 * 2.0)


@pytest.mark.parametrize(
    ("steps", "pretraining", "episodes"),
    [(0, None, 3), (99, None, 3), (100, None, 2), (180, None, 2), (0, "some", 4)],
)
def test_episodes_left(steps, pretraining, episodes):
    """The preset `debug`: evaluations of 1 episode at step 100 and of 2 at step 200, and 1 to choose who acts."""
    algorithm = SimpleNamespace(pretraining=pretraining)
    run = SimpleNamespace(config=preset("debug"), fns=SimpleNamespace(algorithm=algorithm))
    assert episodes_left(run, steps) == episodes
