import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from cdred.envs.registry import make
from cdred.errors import UserError


class Echo(gymnasium.Env):
    """Observes the native action of the last step; the options select the rest of its behaviour."""

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, terminates_after=None, reward=1.0, info=None, high=3.0, obs_space=None):
        self.observation_space = obs_space or Box(-10, 10, (2, 2), np.float64)
        self.action_space = Box(np.array([-1.0, 0.0]), np.array([1.0, high]), dtype=np.float64)
        self.terminates_after, self.reward, self.info = terminates_after, reward, info or {}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.count = 0
        return self.np_random.uniform(size=(2, 2)), {}

    def step(self, action):
        self.count += 1
        return np.stack([action, action]), self.reward, self.count == self.terminates_after, False, self.info


@pytest.fixture
def echo():
    """Registers an `Echo` with options and returns its task; unregisters all afterwards."""
    registered = []

    def register(limit=5, **options):
        name = f"CdredEcho{len(registered)}-v0"
        gymnasium.register(name, entry_point=Echo, max_episode_steps=limit, kwargs=options)
        registered.append(name)
        return f"gym/{name}"

    yield register
    for name in registered:
        del gymnasium.registry[name]


def test_actions_are_scaled_and_clipped(echo):
    env = make(echo())
    env.reset(0)
    assert env.spec.obs_shape == (4,)
    for unit, native in (([-1, -1], [-1, 0]), ([1, 1], [1, 3]), ([0, 0], [0, 1.5]), ([5, -5], [1, 0])):
        np.testing.assert_allclose(env.step(np.array(unit, np.float32)).obs, native * 2)


def test_registered_time_limit_truncates(echo):
    env = make(echo(limit=3))
    env.reset(0)
    steps = [env.step(np.zeros(2, np.float32)) for _ in range(3)]
    assert env.spec.episode_length == 3
    assert [step.truncated for step in steps] == [False, False, True]
    assert not any(step.terminated for step in steps)


def test_termination_is_not_truncation(echo):
    env = make(echo(limit=3, terminates_after=2))
    env.reset(0)
    env.step(np.zeros(2, np.float32))
    last = env.step(np.zeros(2, np.float32))
    assert (last.terminated, last.truncated) == (True, False)


def test_missing_time_limit_gives_default_and_warning(echo):
    with pytest.warns(UserWarning, match="truncated after 1000"):
        env = make(echo(limit=None))
    env.reset(0)
    steps = [env.step(np.zeros(2, np.float32)) for _ in range(1000)]
    assert [step.truncated for step in steps] == [False] * 999 + [True]


@pytest.mark.filterwarnings("ignore:.*truncated after 1000")
def test_termination_at_default_limit_is_not_truncation(echo):
    env = make(echo(limit=None, terminates_after=1000))
    env.reset(0)
    last = [env.step(np.zeros(2, np.float32)) for _ in range(1000)][-1]
    assert (last.terminated, last.truncated) == (True, False)


@pytest.mark.parametrize("key", ["success", "is_success"])
def test_reported_success_is_read(echo, key):
    env = make(echo(info={key: np.float64(1.0)}))
    env.reset(0)
    assert env.spec.has_success
    assert env.step(np.zeros(2, np.float32)).success is True


def test_seed_reproduces_the_episode():
    env, second_env = make("gym/Pendulum-v1"), make("gym/Pendulum-v1")
    actions = np.random.default_rng(0).uniform(-1, 1, (30, 1)).astype(np.float32)
    env.reset(1)
    first = [env.reset(2), *(env.step(action).obs for action in actions)]
    second = [second_env.reset(2), *(second_env.step(action).obs for action in actions)]
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first[0], env.reset(3))
    assert first[0].dtype == np.float32
    assert not env.spec.has_success


def test_non_finite_reward_is_rejected(echo):
    env = make(echo(reward=float("nan")))
    env.reset(0)
    with pytest.raises(FloatingPointError, match="reward nan"):
        env.step(np.zeros(2, np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"high": np.inf}, "unbounded"), ({"obs_space": Discrete(3)}, "observation space is Discrete")],
)
def test_unsupported_spaces_are_rejected(echo, options, message):
    with pytest.raises(UserError, match=message):
        make(echo(**options))


def test_discrete_actions_are_rejected():
    with pytest.raises(UserError, match="action space is Discrete"):
        make("gym/CartPole-v1")


def test_missing_render_mode_is_reported(echo):
    env = make(echo())
    env.reset(0)
    with pytest.raises(UserError, match="rgb_array"):
        env.render()
