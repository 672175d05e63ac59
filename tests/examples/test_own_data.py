"""Recordings of `own_data.py` in four formats are read to the same arrays."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from cdred.envs.callables import given_env, name_env
from cdred.envs.registry import make

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_data.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("own_data", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def recordings(example, tmp_path_factory):
    """Folder with the same episodes in every format."""
    folder = tmp_path_factory.mktemp("recordings")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder))
        for name, record in example.RECORDERS.items():
            record(folder / name)
    return folder


def test_formats_are_read_to_equal_arrays(example, recordings):
    first, *others = (example.read(recordings / name) for name in example.RECORDERS)
    assert [trajectory.obs.shape for trajectory in first] == [(41, 6)] * example.NUM_DEMOS
    actions = np.concatenate([trajectory.action for trajectory in first])
    assert (actions.min(), actions.max()) == (-1, 1), "the expert does not reach the bounds"
    for other in others:
        for x, y in zip(first, other, strict=True):
            for key in ("obs", "action", "reward"):
                np.testing.assert_array_equal(getattr(x, key), getattr(y, key))
                assert getattr(y, key).dtype == np.float32
            assert (x.terminated, x.truncated) == (y.terminated, y.truncated) == (False, True)


def test_actions_reproduce_the_recording(example, recordings):
    """From the recorded actions, in [-1, 1], the task takes the same steps."""
    with given_env(example.make_env):
        env = make(name_env(example.make_env).task)
    assert env.spec.obs_parts == (("position", 2), ("target", 2), ("velocity", 2))
    for seed, trajectory in enumerate(example.read(recordings / "cart.npz")):
        np.testing.assert_array_equal(env.reset(seed), trajectory.obs[0])
        steps = [env.step(action) for action in trajectory.action]
        np.testing.assert_allclose([step.obs for step in steps], trajectory.obs[1:], atol=1e-5)
        np.testing.assert_array_equal([step.success for step in steps], trajectory.success)
