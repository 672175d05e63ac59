import numpy as np
import pytest

from cdred.envs.registry import list_tasks, make
from cdred.errors import UserError

suite = pytest.importorskip("dm_control.suite")

# `point_mass-hard` and `reacher-hard` write to the model when an episode starts.
TASKS = ("ball_in_cup-catch", "point_mass-hard", "reacher-hard")
# Observation and action sizes of the tasks of the CDRED paper.
PAPER_TASKS = {
    "hopper-hop": (15, 4),
    "walker-run": (24, 6),
    "cheetah-run": (17, 6),
    "reacher-hard": (6, 2),
    "quadruped-run": (78, 12),
    "humanoid-walk": (67, 21),
    "dog-stand": (223, 38),
}
ALL = [name.removeprefix("dmc/") for name in list_tasks("dmc")]


def upstream(task, seed, actions):
    """Return observations and summed rewards of a new dm_control environment, two frames per action."""
    domain, name = task.split("-", 1)
    env = suite.load(domain, name, task_kwargs={"random": np.random.RandomState(seed)})
    low, high = env.action_spec().minimum, env.action_spec().maximum
    flat = lambda step: np.concatenate([np.ravel(value) for value in step.observation.values()])  # noqa: E731
    observations, rewards = [flat(env.reset())], []
    for action in actions:
        frames = [env.step(low + (action.astype(np.float64) + 1) / 2 * (high - low)) for _ in range(2)]
        observations.append(flat(frames[-1]))
        rewards.append(sum(frame.reward for frame in frames))
    return np.array(observations, np.float32), rewards


@pytest.mark.parametrize("task", PAPER_TASKS)
def test_paper_tasks_are_reproduced_by_their_seed(task):
    env = make(f"dmc/{task}")
    obs_size, action_size = PAPER_TASKS[task]
    assert (env.spec.obs_shape, env.spec.action_dim) == ((obs_size,), action_size)
    actions = np.random.default_rng(0).uniform(-1, 1, (10, action_size)).astype(np.float32)
    episodes = [[env.reset(seed), *(env.step(action).obs for action in actions)] for seed in (5, 6, 5)]
    np.testing.assert_array_equal(episodes[0], episodes[2])
    assert not np.array_equal(episodes[0], episodes[1])


@pytest.mark.slow
@pytest.mark.parametrize("task", ALL)
def test_every_task_equals_upstream_and_renders(task):
    env = make(f"dmc/{task}", render_size=32)
    actions = np.random.default_rng(0).uniform(-1, 1, (20, env.spec.action_dim)).astype(np.float32)
    for seed in (1, 2):
        env.reset(seed)
        env.step(actions[seed])
    first = env.reset(77)
    steps = [env.step(action) for action in actions]
    observations, rewards = upstream(task, 77, actions)
    np.testing.assert_array_equal([first, *(step.obs for step in steps)], observations)
    assert [step.reward for step in steps] == rewards
    assert_renders(env)
    env.close()


@pytest.mark.parametrize("task", TASKS)
def test_tenth_episode_equals_upstreams_first(task):
    env = make(f"dmc/{task}")
    actions = np.random.default_rng(0).uniform(-1, 1, (50, env.spec.action_dim)).astype(np.float32)
    for seed in range(9):
        env.reset(seed)
        env.step(actions[seed])
    first = env.reset(77)
    steps = [env.step(action) for action in actions]
    observations, rewards = upstream(task, 77, actions)
    np.testing.assert_array_equal([first, *(step.obs for step in steps)], observations)
    assert [step.reward for step in steps] == rewards


def test_episode_is_truncated_after_500_steps():
    env = make("dmc/ball_in_cup-catch")
    env.reset(0)
    steps = [env.step(np.zeros(2, np.float32)) for _ in range(500)]
    assert [step.truncated for step in steps] == [False] * 499 + [True]
    assert not any(step.terminated for step in steps)
    assert (env.spec.episode_length, env.spec.action_repeat) == (500, 2)
    # As of the simulator's clock after 500 steps.
    assert 500 * env.spec.control_timestep == pytest.approx(env._env.physics.time())


@pytest.mark.parametrize("repeat", [1, 4])
def test_steps_at_another_action_repeat_are_that_many_frames(repeat):
    """The default and the other action repeat reach the same frames, with the same rewards in sum."""
    default, other = make("dmc/cheetah-run"), make(f"dmc/cheetah-run?repeat={repeat}")
    assert other.spec.task == f"dmc/cheetah-run?repeat={repeat}"
    assert (other.spec.episode_length, other.spec.action_repeat) == (1000 // repeat, repeat)
    np.testing.assert_array_equal(default.reset(3), other.reset(3))
    action, frames = np.linspace(-1, 1, 6, dtype=np.float32), 8
    steps = [[env.step(action) for _ in range(frames // env.spec.action_repeat)] for env in (default, other)]
    np.testing.assert_array_equal(steps[0][-1].obs, steps[1][-1].obs)
    assert sum(step.reward for step in steps[0]) == pytest.approx(sum(step.reward for step in steps[1]))


def test_episode_at_repeat_1_is_truncated_after_1000_steps():
    env = make("dmc/ball_in_cup-catch?repeat=1")
    env.reset(0)
    steps = [env.step(np.zeros(2, np.float32)) for _ in range(1000)]
    assert [step.truncated for step in steps] == [False] * 999 + [True]


def test_unexpected_termination_is_rejected():
    # No task of the suite but the excluded lqr has terminal states; here one is made to terminate.
    env = make("dmc/reacher-easy")
    env.reset(0)
    env._env.task.get_termination = lambda _physics: 0.0
    with pytest.raises(RuntimeError, match="dmc/reacher-easy: the simulator terminated an episode"):
        env.step(np.zeros(2, np.float32))


def test_lqr_is_excluded():
    tasks = list_tasks("dmc")
    assert "dmc/ball_in_cup-catch" in tasks
    assert not [task for task in tasks if task.startswith("dmc/lqr")]


@pytest.mark.parametrize("task", ["reacher-hard", "walker-run", "quadruped-run"])
def test_render_returns_a_square_frame(task):
    env = make(f"dmc/{task}", render_size=32)
    env.reset(0)
    assert_renders(env)


def assert_renders(env):
    """Assert that the frame has 32 x 32 pixels and is not uniform."""
    try:
        frame = env.render()
    except UserError as error:
        pytest.skip(str(error))
    assert frame.shape == (32, 32, 3)
    assert frame.dtype == np.uint8
    assert frame.std() > 1
