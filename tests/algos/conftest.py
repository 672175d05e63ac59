"""Fixtures of the algorithms' tests: batches of two distinguishable behaviours, and agents at debug size."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from cdred.algos.base import Batch
from cdred.algos.factory import make_algorithm
from cdred.types import EnvSpec, Segment
from small_config import small_config

KEY = jax.random.key(7)


def make_segments(key, num, expert, horizon=3):
    """Make segments of one of two behaviours, which differ in the states they visit and in their actions there."""
    obs_key, action_key = jax.random.split(key)
    obs = 0.3 * jax.random.normal(obs_key, (num, horizon + 1, 3)) + jnp.where(expert, 1.0, -1.0)
    noise = jax.random.uniform(action_key, (num, horizon, 2), minval=-1.0)
    action = jnp.where(expert, 0.5 + 0.1 * noise, noise)
    return Segment(obs, action, jnp.sum(action, axis=-1), jnp.zeros((num, horizon + 1), bool))


@pytest.fixture(scope="session")
def make_batch():
    """Function that makes a batch, its agent's segments like the expert's or unlike them."""

    def build(key, num=8, like_expert=False):
        expert_key, agent_key = jax.random.split(key)
        return Batch(make_segments(expert_key, num, True), make_segments(agent_key, num, like_expert))

    return build


@pytest.fixture(scope="session")
def batch(make_batch):
    return make_batch(jax.random.key(5))


@pytest.fixture(scope="session")
def algorithm():
    """CDRED at debug size, of the settings and task of the fixtures `config` and `spec`."""
    return make_algorithm(small_config(), EnvSpec("probe/fake", (3,), 2, 100))


@pytest.fixture(scope="session")
def init(algorithm):
    """`algorithm.init`, compiled."""
    return jax.jit(algorithm.init)


@pytest.fixture(scope="session")
def update(algorithm):
    """`algorithm.update`, compiled."""
    return jax.jit(algorithm.update)


@pytest.fixture(scope="session")
def initial_state(init):
    return init(jax.random.key(0))


@pytest.fixture(scope="session")
def state(initial_state):
    """State after the warm-up, with critics and target critics that are not zero."""
    heads = 0.3 * jax.random.normal(KEY, (2, *initial_state.model.critics.members.head.weight.shape))
    return eqx.tree_at(
        lambda s: (s.updates, s.model.critics.members.head.weight, s.target_critics.members.head.weight),
        initial_state,
        (jnp.array(1000, jnp.int32), *heads),
    )


@pytest.fixture
def make_agent(config, spec):
    """Function that makes an agent which learns within a short test, by its method's losses without a BC term."""
    optim = replace(config.optim, learning_rate=3e-3, lr_decay_fraction=0.0, tau=0.05, bc_coef=0.0)
    return lambda algo, **changes: make_algorithm(replace(config, algo=algo, optim=optim, **changes), spec)


@pytest.fixture
def train_agent(make_batch):
    """Function that trains an agent on new batches for some updates; returns its state and all metrics."""

    def train(agent, updates):
        def step(state, key):
            batch_key, update_key = jax.random.split(key)
            return agent.update(state, make_batch(batch_key, 16), update_key)

        run = jax.jit(lambda key: jax.lax.scan(step, agent.init(key), jax.random.split(key, updates)))
        return run(jax.random.key(1))

    return train


@pytest.fixture
def assert_expert_reward_higher(make_agent, train_agent, make_batch):
    """Function that trains a method, and asserts that its reward ranks the expert's transitions higher."""

    def check(algo):
        agent = make_agent(algo)
        state, metrics = train_agent(agent, 300)
        validation = make_batch(jax.random.key(99), 32)
        reward_at = jax.jit(jax.vmap(jax.vmap(agent.reward_at, (None, 0, 0)), (None, 0, 0)))
        expert, other = (reward_at(state, s.obs[:, :-1], s.action) for s in (validation.expert, validation.agent))
        assert float(jnp.percentile(expert, 5.0)) > float(jnp.median(other)) + 0.5
        assert float(metrics["reward_expert"][-1]) > float(metrics["reward_agent"][-1]) + 0.5
        assert all(jnp.isfinite(series).all() for series in metrics.values())

    return check
