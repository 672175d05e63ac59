import numpy as np
import pytest

from cdred.types import DemoDataset, EnvSpec, Trajectory


@pytest.fixture
def spec():
    """Return the spec of the task that `demos` belong to."""
    return EnvSpec("probe/fake", (3,), 2, 6, has_success=True)


@pytest.fixture
def make_trajectory():
    """Return a function that builds a valid trajectory of six steps; keyword arguments replace its fields."""

    def build(steps=6, index=0, **fields):
        generator = np.random.default_rng(index)
        valid = {
            "obs": generator.normal(size=(steps + 1, 3)).astype(np.float32),
            "action": generator.uniform(-1, 1, (steps, 2)).astype(np.float32),
            "reward": generator.normal(size=steps).astype(np.float32),
            "terminated": False,
            "truncated": True,
            "success": np.arange(steps) > 3,
            "seed": 2**32 - 1 - index,
        }
        return Trajectory(**(valid | fields))

    return build


@pytest.fixture
def demos(make_trajectory):
    """Return three valid episodes, one of which terminates early."""
    episodes = (
        make_trajectory(seed=1),
        make_trajectory(4, 2, terminated=True, truncated=False),
        make_trajectory(seed=3),
    )
    return DemoDataset("probe/fake", episodes, {"expert": "made up", "level": {"return": 1.5}})


@pytest.fixture
def assert_equal():
    """Return a function that asserts that two datasets are equal in all fields."""

    def compare(actual, expected):
        assert (actual.task, actual.provenance, len(actual)) == (expected.task, expected.provenance, len(expected))
        for x, y in zip(actual, expected, strict=True):
            assert (x.reward is None) == (y.reward is None)
            for key in ("obs", "action", "reward"):
                if getattr(x, key) is None:
                    continue
                np.testing.assert_array_equal(getattr(x, key), getattr(y, key))
                assert getattr(y, key).dtype == np.float32
            assert (x.terminated, x.truncated, x.seed) == (y.terminated, y.truncated, y.seed)
            assert (x.success is None) == (y.success is None)
            if x.success is not None:
                np.testing.assert_array_equal(x.success, y.success)
                assert y.success.dtype == bool

    return compare
