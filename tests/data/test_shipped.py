"""The demonstrations that come with the package."""

import numpy as np
import pytest

from cdred.data.demonstrations import load_demos
from cdred.data.shipped import shipped, shipped_sets
from cdred.demos.scripted import collect_scripted, get_demos
from cdred.envs.registry import make


def test_a_task_without_a_set_has_none():
    assert shipped("probe/point") is None


@pytest.mark.parametrize(("task", "path"), shipped_sets().items())
def test_a_set_is_small_fits_its_task_and_says_where_it_comes_from(task, path):
    env = make(task)
    dataset = load_demos(path, env.spec)
    assert path.stat().st_size < 5 * 2**20
    assert dataset.task == task
    assert len(dataset) >= 10
    assert {"expert", "expert_level", "attempts", "versions"} <= set(dataset.provenance)
    env.close()


def test_a_scripted_set_begins_as_a_collection_does():
    """So a number of demonstrations means the same episodes with the set and without it."""
    collected = collect_scripted("metaworld/window-open", 2)
    for one, other in zip(collected, get_demos("metaworld/window-open", 2), strict=True):
        assert one.seed == other.seed
        np.testing.assert_allclose(one.obs, other.obs, atol=1e-5)
        np.testing.assert_allclose(one.action, other.action, atol=1e-5)
