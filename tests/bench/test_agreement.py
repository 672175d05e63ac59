"""Comparison of two devices' results, with known differences."""

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def agreement(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import agreement

    return agreement


def test_differences_are_relative_and_name_the_array(agreement):
    reference = {
        "reward": np.array([1.0, 3.0]),
        "first loss": np.array([4.0]),
        "first zero": np.array([0.0]),
        "state.opt[0].mu": np.array([2.0, -8.0]),
        "state.model": np.array([1.0, 1.0]),
    }
    changes = {"reward": 0.5, "first loss": 0.04, "first zero": 0.005, "state.opt[0].mu": 0.8, "state.model": 0.3}
    output = {key: value + changes[key] for key, value in reference.items()}
    row = agreement.differences(reference, output)
    assert row["reward"] == pytest.approx(0.5)  # the standard deviation of 1 and 3 is 1
    assert row["first_update"] == pytest.approx(0.01)
    assert row["first_update_metric"] == "loss"
    assert row["gradient"] == pytest.approx(0.1)
    assert row["state_after_it"] == pytest.approx(0.3)
    assert row["state_array"] == ".model"
    assert row["last_update"] is None


@pytest.mark.slow
def test_one_device_agrees_with_itself_and_rounding_shows(agreement):
    exact, same, rounded = (
        agreement.compute("cpu", "debug", precision, 2) for precision in ("float32", "float32", "bfloat16")
    )
    assert {key.split()[0] for key in exact if " " in key} == {"first", "last"}
    assert agreement.differences(exact, same)["last_update"] == 0
    errors = agreement.differences(exact, rounded)
    assert 1e-4 < errors["gradient"] < 1
    assert errors["reward"] > 1e-5
