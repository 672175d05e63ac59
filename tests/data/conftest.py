import numpy as np
import pytest

from cdred.types import DemoDataset, EnvSpec, Trajectory


@pytest.fixture
def spec():
    """The task that `demos` are of."""
    return EnvSpec("probe/fake", (3,), 2, 6, has_success=True)


@pytest.fixture
def make_trajectory():
    """Builds a valid trajectory of six steps; named fields replace its own."""

    def build(steps=6, draw=0, **fields):
        generator = np.random.default_rng(draw)
        valid = {
            "obs": generator.normal(size=(steps + 1, 3)).astype(np.float32),
            "action": generator.uniform(-1, 1, (steps, 2)).astype(np.float32),
            "reward": generator.normal(size=steps).astype(np.float32),
            "terminated": False,
            "truncated": True,
            "success": np.arange(steps) > 3,
            "seed": 2**32 - 1 - draw,
        }
        return Trajectory(**(valid | fields))

    return build


@pytest.fixture
def demos(make_trajectory):
    """Three valid episodes, one of which terminates early."""
    episodes = (
        make_trajectory(seed=1),
        make_trajectory(4, 2, terminated=True, truncated=False),
        make_trajectory(seed=3),
    )
    return DemoDataset("probe/fake", episodes, {"expert": "made up", "level": {"return": 1.5}})


@pytest.fixture
def assert_equal():
    """Compares two datasets in all they hold."""

    def compare(one, other):
        assert (one.task, one.provenance, len(one)) == (other.task, other.provenance, len(other))
        for a, b in zip(one, other, strict=True):
            for key in ("obs", "action", "reward"):
                np.testing.assert_array_equal(getattr(a, key), getattr(b, key))
                assert getattr(b, key).dtype == np.float32
            assert (a.terminated, a.truncated, a.seed) == (b.terminated, b.truncated, b.seed)
            assert (a.success is None) == (b.success is None)
            if a.success is not None:
                np.testing.assert_array_equal(a.success, b.success)
                assert b.success.dtype == bool

    return compare
