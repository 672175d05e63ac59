"""The action repeat of demonstrations: its comparison with the task's, and folding of steps."""

from dataclasses import replace

import numpy as np
import pytest

from cdred.data.action_repeat import fold_steps, stated_repeat
from cdred.data.demonstrations import load_demos, save_demos
from cdred.data.validate import validate_demos
from cdred.envs.base import Env
from cdred.envs.registry import make
from cdred.errors import UserError
from cdred.types import DemoDataset, EnvSpec, Trajectory

SPEC = EnvSpec("dmc/walker-walk", (3,), 2, 500, 2)


def held(steps, num=2, **fields):
    """Return an episode whose actions are held for `num` steps; observation t is t, reward t is t."""
    time = np.arange(steps + 1, dtype=np.float32)
    valid = {
        "obs": np.stack([time, -time, time], axis=1),
        "action": np.repeat(np.linspace(-1, 1, -(-steps // num), dtype=np.float32), num)[:steps, None] * np.ones(2),
        "reward": time[:-1],
        "terminated": False,
        "truncated": True,
        "success": time[:-1] == 5,
        "seed": 7,
    } | fields
    return Trajectory(**valid)


def dataset_of(*trajectories, task="dmc/walker-walk", **provenance):
    return DemoDataset(task, trajectories, provenance)


def rollout(env: Env, seed, actions):
    """Return the episode of these actions."""
    obs, steps = [env.reset(seed)], [env.step(action) for action in actions]
    rewards = np.array([step.reward for step in steps], np.float32)
    return Trajectory(np.stack([*obs, *(step.obs for step in steps)]), actions, rewards, False, True, None, seed)


@pytest.mark.parametrize(
    ("task", "provenance", "repeat"),
    [
        ("dmc/walker-walk", {}, None),
        ("dmc/walker-walk", {"action_repeat": 4}, 4),
        ("dmc/walker-walk?repeat=1", {}, 1),
        ("", {}, None),
    ],
)
def test_stated_action_repeat(task, provenance, repeat):
    assert stated_repeat(dataset_of(held(4), task=task, **provenance), "here") == repeat


@pytest.mark.parametrize("value", ["2", 2.0, 0, True, [2]])
def test_malformed_action_repeat_is_refused(value):
    with pytest.raises(UserError, match=r"here: its provenance states action_repeat .*, expected a positive integer"):
        validate_demos(dataset_of(held(4), action_repeat=value), "here", SPEC)


def test_same_action_repeat_is_accepted():
    assert len(validate_demos(dataset_of(held(4), action_repeat=2), "here", SPEC)) == 1


@pytest.mark.parametrize("task", ["dmc/walker-walk", "dmc/walker-walk?repeat=1", ""])
def test_other_action_repeat_names_both_and_the_ways_on(task):
    with pytest.raises(UserError) as caught:
        validate_demos(dataset_of(held(4), task=task, action_repeat=1), "here", SPEC)
    message = str(caught.value)
    assert "here: it was recorded at an action repeat of 1, expected 2, that of dmc/walker-walk" in message
    assert "'dmc/walker-walk?repeat=1'" in message
    assert "--action-repeat 2" in message


def test_demos_at_a_larger_action_repeat_cannot_be_folded():
    spec = replace(SPEC, task="dmc/walker-walk?repeat=1", action_repeat=1, episode_length=1000)
    with pytest.raises(UserError, match=r"that repeat, dmc/walker-walk \(.*1 is not a multiple of 2"):
        validate_demos(dataset_of(held(4), action_repeat=2), "here", spec)


def test_length_of_another_action_repeat_is_recognised():
    with pytest.raises(
        UserError, match=r"1000 steps, but .* end after 500. If .* repeat of 1, .*'dmc/walker-walk\?rep"
    ):
        validate_demos(dataset_of(held(1000)), "here", SPEC)
    with pytest.raises(UserError, match=r"600 steps, but .* end after 500\.$"):
        validate_demos(dataset_of(held(600)), "here", SPEC)
    with pytest.raises(UserError, match=r"1000 steps, but .* end after 500\.$"):
        validate_demos(dataset_of(held(1000), action_repeat=2), "here", SPEC)


def test_folded_steps_sum_rewards_and_keep_success():
    folded = fold_steps(dataset_of(held(8)), "here", 2, None)
    (episode,) = folded
    np.testing.assert_array_equal(episode.obs[:, 0], [0, 2, 4, 6, 8])
    np.testing.assert_array_equal(episode.reward, [0 + 1, 2 + 3, 4 + 5, 6 + 7])
    np.testing.assert_array_equal(episode.success, [False, False, True, False])
    np.testing.assert_array_equal(episode.action[:, 0], np.linspace(-1, 1, 4, dtype=np.float32))
    assert (episode.terminated, episode.truncated, episode.seed) == (False, True, 7)
    assert folded.provenance == {
        "action_repeat": 2,
        "steps_folded": {"recorded_at": 1, "known_from": "nothing, assumed", "dropped_steps": 0},
    }


def test_stated_repeat_decides_how_many_steps_are_folded():
    folded = fold_steps(dataset_of(held(8), action_repeat=2), "here", 4, 2)
    assert len(folded[0]) == 4
    assert folded.provenance["action_repeat"] == 4
    assert folded.provenance["steps_folded"]["known_from"] == "the file"
    with pytest.raises(UserError, match=r"at an action repeat of 2, so --action-repeat should be a multiple .*, got 3"):
        fold_steps(dataset_of(held(8)), "here", 3, 2)
    with pytest.raises(UserError, match="got 0"):
        fold_steps(dataset_of(held(8)), "here", 0, None)


def test_incomplete_last_step_is_dropped_from_a_truncated_episode():
    folded = fold_steps(dataset_of(held(9, truncated=False)), "here", 2, 1)
    np.testing.assert_array_equal(folded[0].obs[:, 0], [0, 2, 4, 6, 8])
    assert (folded[0].terminated, folded[0].truncated) == (False, True)
    assert folded.provenance["steps_folded"]["dropped_steps"] == 1


def test_terminal_incomplete_last_step_is_kept():
    folded = fold_steps(dataset_of(held(9, terminated=True, truncated=False)), "here", 2, 1)
    np.testing.assert_array_equal(folded[0].obs[:, 0], [0, 2, 4, 6, 8, 9])
    np.testing.assert_array_equal(folded[0].reward, [1, 5, 9, 13, 8])
    assert (folded[0].terminated, folded[0].truncated) == (True, False)
    assert folded.provenance["steps_folded"]["dropped_steps"] == 0


def test_unknown_rewards_stay_unknown_in_folded_steps():
    assert fold_steps(dataset_of(held(8, reward=None)), "here", 2, 1)[0].reward is None


def test_actions_that_are_not_held_are_refused():
    slightly, clearly = held(8).action.copy(), held(8).action.copy()
    slightly[1, 0] += 0.01
    clearly[5, 1] -= 0.25
    dataset = dataset_of(held(8), held(8, action=slightly), held(8, action=clearly))
    with pytest.raises(UserError, match=r"^here, episode 2: actions 4 and 5 differ by 0.25, the largest difference"):
        fold_steps(dataset, "here", 2, 1)


def test_episodes_that_cannot_be_folded_are_refused():
    with pytest.raises(UserError, match="episode 1: 1 steps, expected at least 2"):
        fold_steps(dataset_of(held(2), held(1)), "here", 2, 1)
    with pytest.raises(UserError, match="needs actions"):
        fold_steps(dataset_of(held(2, action=np.zeros((2, 0), np.float32))), "here", 2, 1)


def test_folded_recording_equals_that_of_the_environment():
    pytest.importorskip("dm_control")
    actions = np.random.default_rng(0).uniform(-1, 1, (10, 6)).astype(np.float32)
    frames = rollout(make("dmc/walker-walk?repeat=1"), 3, np.repeat(actions, 2, axis=0))
    expected = rollout(make("dmc/walker-walk"), 3, actions)
    (folded,) = fold_steps(dataset_of(frames), "here", 2, 1)
    np.testing.assert_array_equal(folded.obs, expected.obs)
    np.testing.assert_array_equal(folded.action, expected.action)
    np.testing.assert_allclose(folded.reward, expected.reward, rtol=1e-6)


def test_action_repeat_survives_saving(tmp_path):
    save_demos(fold_steps(dataset_of(held(8)), "here", 2, 1), tmp_path / "demos")
    assert stated_repeat(load_demos(tmp_path / "demos", SPEC), "here") == 2
