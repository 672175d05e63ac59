"""The example `own_environment.py` runs as it is."""

import importlib.util
from pathlib import Path

import gymnasium
import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example():
    spec = importlib.util.spec_from_file_location("own_environment", EXAMPLES / "own_environment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_example_trains_from_its_own_demonstrations(example, tmp_path, capsys):
    result = example.main(tmp_path / "hover", steps=700, preset="debug")
    assert result["demos"] == 5
    # The expert stays near the middle, and a random policy crashes.
    assert result["eval"]["expert_return"] > 80 > 40 > result["eval"]["random_return"]
    assert np.isfinite(result["eval"]["return"]).all()
    assert "the agent hovered for" in capsys.readouterr().out


def test_expert_of_the_example_does_not_crash(example):
    assert example.TASK in gymnasium.registry
    for seed in range(20, 40):
        trajectory = example.record_expert(seed)
        assert trajectory.truncated
        assert not trajectory.terminated
        assert len(trajectory) == example.EPISODE_LENGTH
