import json
from dataclasses import replace

import av
import numpy as np
import pytest

from cdred.data.describe import draw_actions, facts, lines
from cdred.errors import UserError
from cdred.types import DemoDataset


def test_facts_are_counted_over_all_episodes_and_fit_into_json(demos):
    found = json.loads(json.dumps(facts(demos)))
    assert (found["task"], found["episodes"], found["terminated"], found["truncated"]) == ("probe/fake", 3, 1, 2)
    assert found["steps"] == {"min": 4, "max": 6, "total": 16}
    assert found["success"] == {"any": pytest.approx(2 / 3), "end": pytest.approx(2 / 3)}
    actions = np.concatenate([one.action for one in demos])
    np.testing.assert_allclose(found["action"]["max"], actions.max(axis=0))
    np.testing.assert_allclose(found["observation"]["min"], min(one.obs.min() for one in demos))
    assert found["return"]["mean"] == pytest.approx(np.mean([one.episode_return for one in demos]))


def test_lines_read_as_the_facts_do(demos):
    text = lines(facts(demos))
    assert text["episodes"] == "3, 4 to 6 steps"
    assert text["ends"] == "1 terminated by the world, 2 truncated"
    assert text["success"] == "67% at any time, 67% at the end"
    assert text["expert"] == "made up"


def test_what_is_not_known_is_not_made_up(make_trajectory):
    seen = DemoDataset("", (make_trajectory(action=np.zeros((6, 0), np.float32), success=None),))
    text = lines(facts(seen))
    assert (text["task"], text["action"]) == ("not said", "none: observations only")
    assert "success" not in text
    assert facts(seen)["action"] == {"size": 0, "min": None, "max": None}


def pixels(path):
    with av.open(str(path)) as picture:
        return next(picture.decode(video=0)).to_ndarray(format="rgb24")


def test_the_picture_shows_where_the_actions_are(demos, tmp_path):
    draw_actions(demos, tmp_path / "a.png", "demos")
    held = tuple(replace(one, action=np.zeros_like(one.action)) for one in demos)
    draw_actions(replace(demos, trajectories=held), tmp_path / "b.png", "demos")
    first, second = pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png")
    assert first.shape == second.shape
    assert (first != second).any()


def test_nothing_is_drawn_of_nothing_or_over_something(demos, make_trajectory, tmp_path):
    seen = DemoDataset("", (make_trajectory(action=np.zeros((6, 0), np.float32)),))
    with pytest.raises(UserError, match="no actions in it to draw"):
        draw_actions(seen, tmp_path / "a.png", "d")
    (tmp_path / "a.png").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        draw_actions(demos, tmp_path / "a.png", "d")
    assert (tmp_path / "a.png").read_text() == "mine"
