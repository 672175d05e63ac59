import json
from dataclasses import replace

import av
import numpy as np
import pytest

from cdred.data.describe import draw_actions, format_summary, summarize, summarize_findings
from cdred.errors import UserError
from cdred.types import DemoDataset


def test_summary_covers_all_episodes_and_is_json(demos):
    summary = json.loads(json.dumps(summarize(demos)))
    assert (summary["task"], summary["episodes"], summary["terminated"], summary["truncated"]) == (
        "probe/fake",
        3,
        1,
        2,
    )
    assert summary["steps"] == {"min": 4, "max": 6, "total": 16}
    assert summary["success"] == {"once": pytest.approx(2 / 3), "at_end": pytest.approx(2 / 3), "episodes": 3}
    actions = np.concatenate([trajectory.action for trajectory in demos])
    np.testing.assert_allclose(summary["action"]["max"], actions.max(axis=0))
    np.testing.assert_allclose(summary["observation"]["min"], min(trajectory.obs.min() for trajectory in demos))
    assert summary["return"]["mean"] == pytest.approx(np.mean([trajectory.episode_return for trajectory in demos]))


def test_formatted_summary_matches_values(demos):
    text = format_summary(summarize(demos))
    assert text["episodes"] == "3, 4 to 6 steps"
    assert text["ends"] == "1 terminated, 2 truncated"
    assert text["success"] == "67% at least once, 67% at the end"
    assert text["expert"] == "made up"


def test_unknown_values_are_named(make_trajectory):
    dataset = DemoDataset("", (make_trajectory(action=np.zeros((6, 0), np.float32), reward=None, success=None),))
    text = format_summary(summarize(dataset))
    assert (text["task"], text["action"]) == ("unknown", "none (observations only)")
    assert (text["return"], text["success"]) == ("unknown", "unknown")
    summary = json.loads(json.dumps(summarize(dataset) | summarize_findings(dataset, [])))
    assert (summary["return"], summary["success"], summary["episode_quality"][0]["return"]) == (None, None, None)
    assert summarize(dataset)["action"] == {"size": 0, "min": None, "max": None}


def test_partly_unknown_values_are_counted(make_trajectory):
    known = make_trajectory(reward=np.full(6, 2, np.float32))
    unknown = make_trajectory(index=1, reward=None, success=None)
    summary = summarize(DemoDataset("", (known, unknown, unknown)))
    assert summary["return"] == {"mean": 12, "min": 12, "max": 12, "episodes": 1}
    text = format_summary(summary)
    assert text["return"] == "12.0 on average, 12.0 to 12.0; unknown in 2 of 3 episodes"
    assert text["success"] == "100% at least once, 100% at the end; unknown in 2 of 3 episodes"


def pixels(path):
    with av.open(str(path)) as picture:
        return next(picture.decode(video=0)).to_ndarray(format="rgb24")


def test_histogram_depends_on_actions(demos, tmp_path):
    draw_actions(demos, tmp_path / "a.png", "demos")
    zero_actions = tuple(replace(trajectory, action=np.zeros_like(trajectory.action)) for trajectory in demos)
    draw_actions(replace(demos, trajectories=zero_actions), tmp_path / "b.png", "demos")
    first, second = pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png")
    assert first.shape == second.shape
    assert (first != second).any()


def test_plot_requires_actions_and_new_file(demos, make_trajectory, tmp_path):
    dataset = DemoDataset("", (make_trajectory(action=np.zeros((6, 0), np.float32)),))
    with pytest.raises(UserError, match="no actions to draw"):
        draw_actions(dataset, tmp_path / "a.png", "d")
    (tmp_path / "a.png").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        draw_actions(demos, tmp_path / "a.png", "d")
    assert (tmp_path / "a.png").read_text() == "mine"
