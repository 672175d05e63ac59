import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from cdred.envs.registry import make
from cdred.errors import UserError


class Echo(gymnasium.Env):
    """Observes the native action it was given; options choose what else it does."""

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, ends_after=None, reward=1.0, info=None, high=3.0, obs_space=None):
        self.observation_space = obs_space or Box(-10, 10, (2, 2), np.float64)
        self.action_space = Box(np.array([-1.0, 0.0]), np.array([1.0, high]), dtype=np.float64)
        self.ends_after, self.reward, self.info = ends_after, reward, info or {}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.count = 0
        return self.np_random.uniform(size=(2, 2)), {}

    def step(self, action):
        self.count += 1
        return np.stack([action, action]), self.reward, self.count == self.ends_after, False, self.info


@pytest.fixture
def echo():
    """Registers an `Echo` with options, returns its task; all are forgotten afterwards."""
    registered = []

    def register(limit=5, **options):
        name = f"CdredEcho{len(registered)}-v0"
        gymnasium.register(name, entry_point=Echo, max_episode_steps=limit, kwargs=options)
        registered.append(name)
        return f"gym/{name}"

    yield register
    for name in registered:
        del gymnasium.registry[name]


def test_actions_are_scaled_to_the_native_bounds_and_clipped(echo):
    env = make(echo())
    env.reset(0)
    assert env.spec.obs_shape == (4,)
    for unit, native in (([-1, -1], [-1, 0]), ([1, 1], [1, 3]), ([0, 0], [0, 1.5]), ([5, -5], [1, 0])):
        np.testing.assert_allclose(env.step(np.array(unit, np.float32)).obs, native * 2)


def test_the_registered_limit_truncates_and_is_the_episode_length(echo):
    env = make(echo(limit=3))
    env.reset(0)
    steps = [env.step(np.zeros(2, np.float32)) for _ in range(3)]
    assert env.spec.episode_length == 3
    assert [step.truncated for step in steps] == [False, False, True]
    assert not any(step.terminated for step in steps)


def test_a_termination_is_no_truncation(echo):
    env = make(echo(limit=3, ends_after=2))
    env.reset(0)
    env.step(np.zeros(2, np.float32))
    last = env.step(np.zeros(2, np.float32))
    assert (last.terminated, last.truncated) == (True, False)


def test_without_a_limit_a_thousand_decisions_and_a_warning(echo):
    with pytest.warns(UserWarning, match="cut at 1000"):
        env = make(echo(limit=None))
    env.reset(0)
    steps = [env.step(np.zeros(2, np.float32)) for _ in range(1000)]
    assert [step.truncated for step in steps] == [False] * 999 + [True]


@pytest.mark.filterwarnings("ignore:.*cut at 1000")
def test_a_termination_at_our_own_limit_is_no_truncation(echo):
    env = make(echo(limit=None, ends_after=1000))
    env.reset(0)
    last = [env.step(np.zeros(2, np.float32)) for _ in range(1000)][-1]
    assert (last.terminated, last.truncated) == (True, False)


@pytest.mark.parametrize("key", ["success", "is_success"])
def test_success_is_read_where_it_is_reported(echo, key):
    env = make(echo(info={key: np.float64(1.0)}))
    env.reset(0)
    assert env.spec.has_success
    assert env.step(np.zeros(2, np.float32)).success is True


def test_a_seed_reproduces_an_episode():
    env, other = make("gym/Pendulum-v1"), make("gym/Pendulum-v1")
    actions = np.random.default_rng(0).uniform(-1, 1, (30, 1)).astype(np.float32)
    env.reset(1)
    first = [env.reset(2), *(env.step(action).obs for action in actions)]
    second = [other.reset(2), *(other.step(action).obs for action in actions)]
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first[0], env.reset(3))
    assert first[0].dtype == np.float32
    assert not env.spec.has_success


def test_a_reward_that_is_not_finite_is_refused(echo):
    env = make(echo(reward=float("nan")))
    env.reset(0)
    with pytest.raises(FloatingPointError, match="reward nan"):
        env.step(np.zeros(2, np.float32))


@pytest.mark.parametrize(
    ("options", "says"),
    [({"high": np.inf}, "no bounds"), ({"obs_space": Discrete(3)}, "observation space is Discrete")],
)
def test_spaces_that_cannot_be_used_are_refused(echo, options, says):
    with pytest.raises(UserError, match=says):
        make(echo(**options))


def test_discrete_actions_are_refused():
    with pytest.raises(UserError, match="action space is Discrete"):
        make("gym/CartPole-v1")


def test_without_frames_rendering_says_so(echo):
    env = make(echo())
    env.reset(0)
    with pytest.raises(UserError, match="rgb_array"):
        env.render()
