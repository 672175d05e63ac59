"""Replay of demonstrations in their environment."""

from dataclasses import replace

import numpy as np
import pytest

from cdred.data.demonstrations import bundled_demos, load_demos
from cdred.demos.episodes import rollout
from cdred.demos.replay import replay_demos
from cdred.demos.scripted import collect_scripted
from cdred.envs.failures import SimulatorError
from cdred.envs.registry import make
from cdred.errors import UserError
from cdred.types import DemoDataset

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def demos():
    """Return two episodes of `probe/point`."""
    return collect_scripted("probe/point", 2)


@pytest.fixture
def check(demos):
    """Return a function that replays one of `demos` with changed fields."""

    def compare(tolerance=TOLERANCE, **fields):
        dataset = replace(demos, trajectories=(replace(demos[0], **fields),))
        (result,) = replay_demos(dataset, "here", make("probe/point"), tolerance)
        return result

    return compare


def test_recording_agrees_with_its_environment(demos):
    for index, replay in enumerate(replay_demos(demos, "here", make("probe/point"), 0.0)):
        assert (replay.episode, replay.seed) == (index, demos[index].seed)
        assert (replay.max_difference, replay.first_step) == (0, None)
        assert replay.recorded_return == replay.replayed_return == demos[index].episode_return
        assert replay.agrees


def test_first_differing_step_is_found(check, demos):
    obs = demos[0].obs.copy()
    obs[3, 1] += 0.25
    obs[4, 0] -= 0.125
    replay = check(obs=obs)
    assert (replay.first_step, replay.max_difference, replay.agrees) == (3, pytest.approx(0.25), False)
    assert check(tolerance=0.3, obs=obs).agrees


def test_other_seed_differs_from_the_start(check, demos):
    replay = check(seed=demos[1].seed)
    assert (replay.first_step, replay.agrees) == (0, False)


def test_other_actions_differ_after_the_start(check, demos):
    assert check(action=-demos[0].action).first_step == 1


def test_other_rewards_disagree(check, demos):
    replay = check(reward=2 * demos[0].reward)
    assert (replay.first_step, replay.agrees) == (None, False)
    assert replay.recorded_return == pytest.approx(2 * replay.replayed_return)


def test_missing_rewards_are_not_compared(check, demos):
    replay = check(reward=None)
    assert (replay.recorded_return, replay.agrees) == (None, True)
    # Zeros are rewards, of an episode that earned none.
    replay = check(reward=np.zeros_like(demos[0].reward))
    assert (replay.recorded_return, replay.agrees) == (0.0, False)


def test_ends_are_compared():
    episode = rollout(make("probe/dying"), 4, lambda _obs, _success: np.ones(1, np.float32))
    steps = len(episode)
    longer = replace(
        episode,
        obs=np.concatenate([episode.obs, episode.obs[-1:]]),
        action=np.ones((steps + 1, 1), np.float32),
        reward=np.append(episode.reward, np.float32(-1)),
    )
    shorter = replace(episode, obs=episode.obs[:-1], action=episode.action[:-1], reward=episode.reward[:-1])
    dataset = DemoDataset("probe/dying", (episode, longer, shorter, replace(shorter, terminated=False)))
    replays = list(replay_demos(dataset, "here", make("probe/dying"), TOLERANCE))
    ends = ["", f"ends after {steps} of {steps + 1} steps", "terminated in the recording only", ""]
    assert [replay.end for replay in replays] == ends
    assert [replay.agrees for replay in replays] == [True, False, False, True]


def test_episodes_without_a_seed_are_left_out(demos):
    unknown = replace(demos, trajectories=(replace(demos[0], seed=None), demos[1]))
    assert [replay.episode for replay in replay_demos(unknown, "here", make("probe/point"), TOLERANCE)] == [1]


@pytest.mark.parametrize("seed", [None, -1, 2**32])
def test_nothing_can_be_checked_without_seeds(check, seed):
    with pytest.raises(UserError, match="here: nothing can be checked, because no episode has a seed"):
        check(seed=seed)


def test_simulator_failure_is_reported(demos, monkeypatch):
    env = make("probe/point")
    monkeypatch.setattr(env, "step", lambda _action: 1 / 0)
    with pytest.raises(SimulatorError, match=f"probe/point, seed {demos[0].seed}: ZeroDivisionError"):
        list(replay_demos(demos, "here", env, TOLERANCE))


def test_bundled_demonstration_is_reproduced():
    pytest.importorskip("metaworld")
    dataset = load_demos(bundled_demos()["metaworld/window-open"]).take(1)
    (replay,) = replay_demos(dataset, "bundled", make("metaworld/window-open"), TOLERANCE)
    assert replay.agrees
    assert replay.replayed_return == pytest.approx(dataset[0].episode_return, rel=TOLERANCE)
