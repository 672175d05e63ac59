import numpy as np
import pytest

from cdred.envs.registry import make, scripted_expert
from cdred.envs.suites.probes import BLUE, GREEN, Point, TerminatingLine
from cdred.errors import UserError


@pytest.mark.parametrize("seed", range(20))
def test_expert_reaches_every_goal_in_14_steps(seed):
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


def test_reward_is_minus_the_distance():
    env = Point()
    obs = env.reset(0)
    step = env.step(np.zeros(2, np.float32))
    np.testing.assert_array_equal(step.obs, obs)
    assert step.reward == pytest.approx(-np.linalg.norm(obs[2:] - obs[:2]), abs=1e-6)


def test_actions_are_clipped():
    env, full_speed = Point(), Point()
    env.reset(1), full_speed.reset(1)
    np.testing.assert_array_equal(env.step(np.full(2, 9.0)).obs, full_speed.step(np.ones(2)).obs)


def test_frame_shows_point_and_goal():
    env = Point(render_size=101)
    x, y, goal_x, goal_y = (round((value + 1) * 50) for value in env.reset(2))
    frame = env.render()
    assert frame.shape == (101, 101, 3)
    assert tuple(frame[100 - y, x]) == BLUE
    assert tuple(frame[100 - goal_y, goal_x]) == GREEN


def test_line_terminates_beyond_one_or_is_truncated():
    env = TerminatingLine()
    start = float(env.reset(3)[0])
    steps = [env.step(np.ones(1, np.float32))]
    while not steps[-1].terminated:
        steps.append(env.step(np.ones(1, np.float32)))
    assert len(steps) == int(np.floor((1 - start) / TerminatingLine.SPEED)) + 1
    assert steps[-1].obs[0] > 1
    assert not steps[-1].truncated
    assert all(step.reward == -1 for step in steps)

    env.reset(3)
    steps = [env.step(np.zeros(1, np.float32)) for _ in range(20)]
    assert [step.truncated for step in steps] == [False] * 19 + [True]
    assert not any(step.terminated for step in steps)


def test_unsupported_rendering_is_reported():
    with pytest.raises(UserError, match="does not support rendering"):
        make("probe/dying").render()
