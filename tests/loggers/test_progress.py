"""Averages over seeds and reports, and the formatting of numbers."""

import jax.numpy as jnp
import numpy as np
import pytest

from cdred.loggers.progress import (
    RECENT,
    Progress,
    broadcast_to_seeds,
    format_duration,
    format_number,
    format_percent,
    sparkline,
)


def make_progress() -> Progress:
    return Progress("task", 1000, [0, 1], has_success=True)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (float("nan"), "nan"),
        (12345.6, "12,346"),
        (-123.4, "−123"),
        (12.34, "12.3"),
        (0.9999, "1.00"),
        (0.5, "0.500"),
        (0.00012, "1e−04"),
    ],
)
def test_format_number(value: float | None, text: str) -> None:
    assert format_number(value) == text


def test_format_percent_and_duration() -> None:
    assert (format_percent(0.256), format_percent(None)) == ("26 %", "–")
    assert [format_duration(x) for x in (None, 12.4, 220.0, 3840.0)] == ["–", "12 s", "3 min 40 s", "1 h 04 min"]


def test_sparkline() -> None:
    assert sparkline([], 0.0, 1.0) == ""
    assert sparkline([0.0, 0.5, 1.0, 7.0, -7.0], 0.0, 1.0) == "▁▅██▁"
    assert sparkline(np.linspace(0, 1, 800).tolist(), 0.0, 1.0) == "▁▂▃▄▅▆▇█"
    assert sparkline([3.0, 3.0], 3.0, 3.0) == "▁▁"


def test_broadcast_to_seeds_takes_scalars_lists_and_arrays() -> None:
    for value in (2, 2.0, np.float32(2), np.array(2), jnp.array(2.0), [2, 2], jnp.array([2, 2])):
        assert broadcast_to_seeds(value, 2) == [2.0, 2.0]
    assert broadcast_to_seeds(None, 2) == [None, None]


def test_recent_rollouts_is_the_mean_over_recent_reports() -> None:
    progress = make_progress()
    for report in range(RECENT + 5):
        progress.update(report, {"success": [float(report >= 5), None]}, "rollout")
    assert progress.recent_rollouts("success") == [1.0, None]
    assert progress.recent_rollouts("episode_return") == [None, None]


def test_reference_scores_and_latest_metrics_are_kept() -> None:
    progress = make_progress()
    progress.update(0, {"expert_return": 4.0, "random_success": None}, "reference")
    progress.update(600, {"loss": [1.0, 3.0]}, "train")
    assert progress.reference == {"expert_return": 4.0, "random_success": None}
    assert progress.fraction == 0.6
    assert progress.scalar("train", "loss") == 2.0


def test_time_left_is_unknown_then_a_minimum_then_an_estimate() -> None:
    progress = make_progress()
    assert progress.time_left == "– left"
    progress.update(500, {"steps_per_second": 10.0, "eta_seconds": None, "min_eta_seconds": 50.0}, "train")
    assert progress.time_left == "over 50 s left"
    progress.update(600, {"eta_seconds": 70.0, "min_eta_seconds": 40.0}, "train")
    assert progress.time_left == "1 min 10 s left"
