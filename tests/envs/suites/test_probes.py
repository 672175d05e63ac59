import numpy as np
import pytest

from cdred.envs.registry import make, scripted_expert
from cdred.envs.suites.probes import BLUE, GREEN, Dying, Point
from cdred.errors import UserError


@pytest.mark.parametrize("seed", range(20))
def test_the_expert_reaches_every_goal_within_fourteen_decisions_and_stays(seed):
    env, expert = make("probe/point"), scripted_expert("probe/point")()
    obs, successes = env.reset(seed), []
    while True:
        step = env.step(expert(obs))
        obs = step.obs
        successes.append(step.success)
        if step.truncated:
            break
    assert len(successes) == env.spec.episode_length == 20
    assert all(successes[13:])


def test_standing_still_pays_minus_the_distance():
    env = Point()
    obs = env.reset(0)
    step = env.step(np.zeros(2, np.float32))
    np.testing.assert_array_equal(step.obs, obs)
    assert step.reward == pytest.approx(-np.linalg.norm(obs[2:] - obs[:2]), abs=1e-6)


def test_actions_beyond_the_bounds_are_clipped():
    fast, full = Point(), Point()
    fast.reset(1), full.reset(1)
    np.testing.assert_array_equal(fast.step(np.full(2, 9.0)).obs, full.step(np.ones(2)).obs)


def test_the_picture_shows_point_and_goal_where_they_are():
    env = Point(render_size=101)
    x, y, goal_x, goal_y = (round((value + 1) * 50) for value in env.reset(2))
    frame = env.render()
    assert frame.shape == (101, 101, 3)
    assert tuple(frame[100 - y, x]) == BLUE
    assert tuple(frame[100 - goal_y, goal_x]) == GREEN


def test_dying_terminates_beyond_one_and_is_truncated_alive():
    env = Dying()
    start = float(env.reset(3)[0])
    steps = [env.step(np.ones(1, np.float32))]
    while not steps[-1].terminated:
        steps.append(env.step(np.ones(1, np.float32)))
    assert len(steps) == int(np.floor((1 - start) / Dying.SPEED)) + 1
    assert steps[-1].obs[0] > 1
    assert not steps[-1].truncated
    assert all(step.reward == -1 for step in steps)

    env.reset(3)
    still = [env.step(np.zeros(1, np.float32)) for _ in range(20)]
    assert [step.truncated for step in still] == [False] * 19 + [True]
    assert not any(step.terminated for step in still)


def test_a_probe_without_picture_says_so():
    with pytest.raises(UserError, match="no picture"):
        make("probe/dying").render()
