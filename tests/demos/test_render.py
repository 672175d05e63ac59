"""Images of demonstrations, rendered in a replay."""

from dataclasses import replace

import numpy as np
import pytest

from cdred.data.demonstrations import load_demos, save_demos
from cdred.demos import scripted
from cdred.demos.episodes import rollout
from cdred.demos.render import render_demos
from cdred.demos.scripted import collect_scripted, get_demos
from cdred.envs.registry import get_env_spec, make
from cdred.errors import UserError

TASK = "probe/point?obs=pixels&size=32"


@pytest.fixture(scope="module")
def demos():
    """Return two episodes of `probe/point`."""
    return collect_scripted("probe/point", 2)


def changed(demos, **fields):
    return replace(demos, trajectories=(demos[0], replace(demos[1], **fields)))


def test_images_are_those_of_the_episode(demos):
    rendered = render_demos(demos, "here", TASK)
    assert rendered.task == "probe/point?obs=both&size=32"
    images = rendered.provenance["images"]
    assert (images["size"], images["largest_state_difference"]) == (32, 0.0)
    for demo, original in zip(rendered, demos, strict=True):
        actions = iter(original.action)
        recorded = rollout(make(TASK), original.seed, lambda _obs, _success, actions=actions: next(actions))
        np.testing.assert_array_equal(demo.image, recorded.image)
        assert replace(demo, image=None) == replace(original, image=None)


def test_replay_that_differs_is_refused(demos):
    with pytest.raises(UserError, match=r"here, episode 1: its replay differs from the recording by .*demos check"):
        render_demos(changed(demos, action=-demos[1].action), "here", TASK)
    with pytest.raises(UserError, match="here, episode 1: its replay differs"):
        render_demos(changed(demos, seed=demos[0].seed), "here", TASK)


def test_episode_without_seed_is_refused(demos):
    with pytest.raises(UserError, match="episode 1: it cannot be rendered, because it has no seed"):
        render_demos(changed(demos, seed=None), "here", TASK)


def test_demonstrations_by_number_are_rendered_once(demos, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []
    monkeypatch.setattr(scripted, "render_demos", lambda *args: calls.append(args) or render_demos(*args))
    first, second = get_demos(TASK, 2), get_demos(TASK, 2)
    assert len(calls) == 1
    assert first[0].obs.shape == (21, 0)
    np.testing.assert_array_equal(first[1].image, second[1].image)
    np.testing.assert_array_equal(first[1].action, demos[1].action)
    # Other episodes are other images.
    assert len(get_demos(TASK, 3)) == 3
    assert len(calls) == 2


def test_collected_demonstrations_of_a_task_with_images_have_them(demos):
    collected = collect_scripted("probe/point?obs=both&size=32", 2)
    np.testing.assert_array_equal(collected[1].obs, demos[1].obs)
    assert collected[1].image.shape == (21, 32, 32, 3)


def test_saved_images_serve_tasks_with_and_without_them(demos, tmp_path):
    save_demos(render_demos(demos, "here", TASK), tmp_path / "demos.npz")
    assert load_demos(tmp_path / "demos.npz", get_env_spec("probe/point"))[0].image is None
    assert load_demos(tmp_path / "demos.npz", get_env_spec(TASK))[0].obs.shape == (21, 0)
