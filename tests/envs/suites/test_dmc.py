import numpy as np
import pytest

from cdred.envs.registry import make, names
from cdred.errors import UserError

suite = pytest.importorskip("dm_control.suite")

# Point-mass "hard" and "reacher" write to the model when an episode starts.
TASKS = ("ball_in_cup-catch", "point_mass-hard", "reacher-hard")
# Observation and action sizes of the paper's tasks.
PAPERS = {
    "hopper-hop": (15, 4),
    "walker-run": (24, 6),
    "cheetah-run": (17, 6),
    "reacher-hard": (6, 2),
    "quadruped-run": (78, 12),
    "humanoid-walk": (67, 21),
    "dog-stand": (223, 38),
}
ALL = [name.removeprefix("dmc/") for name in names("dmc")]


def upstream(task, seed, actions):
    """Observations and summed rewards of a newly loaded dm_control environment, two frames an action."""
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


@pytest.mark.parametrize("task", PAPERS)
def test_the_papers_tasks_step_and_come_back(task):
    env = make(f"dmc/{task}")
    obs_size, action_size = PAPERS[task]
    assert (env.spec.obs_shape, env.spec.action_dim) == ((obs_size,), action_size)
    actions = np.random.default_rng(0).uniform(-1, 1, (10, action_size)).astype(np.float32)
    lives = [[env.reset(seed), *(env.step(action).obs for action in actions)] for seed in (5, 6, 5)]
    np.testing.assert_array_equal(lives[0], lives[2])
    assert not np.array_equal(lives[0], lives[1])


@pytest.mark.slow
@pytest.mark.parametrize("task", ALL)
def test_every_task_is_upstreams_after_other_episodes_and_has_a_picture(task):
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
    picture(env)
    env.close()


@pytest.mark.parametrize("task", TASKS)
def test_the_tenth_episode_of_an_env_is_upstreams_first_with_that_seed(task):
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


def test_five_hundred_decisions_then_truncated():
    env = make("dmc/ball_in_cup-catch")
    env.reset(0)
    steps = [env.step(np.zeros(2, np.float32)) for _ in range(500)]
    assert [step.truncated for step in steps] == [False] * 499 + [True]
    assert not any(step.terminated for step in steps)
    assert (env.spec.episode_length, env.spec.action_repeat) == (500, 2)


def test_a_termination_is_refused_where_the_spec_knows_of_none():
    # No task of the suite ends early but lqr, which is left out; here one is told to.
    env = make("dmc/reacher-easy")
    env.reset(0)
    env._env.task.get_termination = lambda _physics: 0.0
    with pytest.raises(RuntimeError, match="dmc/reacher-easy: the simulator terminated an episode"):
        env.step(np.zeros(2, np.float32))


def test_the_suite_is_listed_without_lqr():
    listed = names("dmc")
    assert "dmc/ball_in_cup-catch" in listed
    assert not [name for name in listed if name.startswith("dmc/lqr")]


@pytest.mark.parametrize("task", ["reacher-hard", "walker-run", "quadruped-run"])
def test_render_gives_a_square_picture(task):
    env = make(f"dmc/{task}", render_size=32)
    env.reset(0)
    picture(env)


def picture(env):
    """Asks for a frame of 32 x 32 pixels that shows something."""
    try:
        frame = env.render()
    except UserError as error:
        pytest.skip(str(error))
    assert frame.shape == (32, 32, 3)
    assert frame.dtype == np.uint8
    assert frame.std() > 1
