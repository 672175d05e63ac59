"""The examples run as they are."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example():
    spec = importlib.util.spec_from_file_location("own_environment", EXAMPLES / "own_environment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_own_environment_example_trains_from_its_own_demonstrations(example, tmp_path, capsys):
    result = example.main(tmp_path / "hover", steps=700, preset="debug")
    assert result["demos"] == 5
    # The expert stays near the middle, and a random agent crashes.
    assert result["eval"]["expert_return"] > 80 > 40 > result["eval"]["random_return"]
    assert np.isfinite(result["eval"]["return"]).all()
    assert "it flew" in capsys.readouterr().out


def test_the_examples_expert_does_not_crash(example):
    import gymnasium

    if example.TASK not in gymnasium.registry:
        gymnasium.register(example.TASK, example.Hover, max_episode_steps=example.LENGTH)
    for seed in range(20, 40):
        one = example.demonstrate(seed)
        assert one.truncated
        assert not one.terminated
        assert len(one) == example.LENGTH
