"""Episodic tasks: a terminal state has the value of staying in it, as learned, and is never 0 by itself."""

from dataclasses import replace
from functools import cache, partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.algos.base import Batch
from cdred.algos.factory import make_algorithm
from cdred.types import EnvSpec, Segment
from small_config import small_config

KEY = jax.random.key(3)
EPISODIC = EnvSpec("probe/episodic", (3,), 2, 100, can_terminate=True)
CONTINUING, TERMINATED = jnp.array([False] * 4), jnp.array([False, False, True, True])


def make_segments(key, absorbing, num=16):
    keys = jax.random.split(key, 2)
    obs = jax.random.normal(keys[0], (num, 4, 3))
    action = jax.random.uniform(keys[1], (num, 3, 2), minval=-1.0)
    reward = jnp.where(absorbing[None, :-1], 0.0, jnp.ones((num, 3)))
    return Segment(obs, action, reward, jnp.tile(absorbing, (num, 1)))


@cache
def make(algo="cdred"):
    config = small_config()
    optim = replace(config.optim, learning_rate=3e-3, tau=0.05, lr_decay_fraction=0.0)
    return make_algorithm(replace(config, algo=algo, optim=optim), EPISODIC)


@partial(jax.jit, static_argnums=(0, 3))
def train(algorithm, expert, agent, updates):
    """Train on new segments with these absorbing states; return the state and all metrics."""

    def step(state, key):
        keys = jax.random.split(key, 3)
        expert_segments = None if expert is None else make_segments(keys[0], expert)
        return algorithm.update(state, Batch(expert_segments, make_segments(keys[1], agent)), keys[2])

    return jax.lax.scan(step, algorithm.init(KEY), jax.random.split(KEY, updates))


def absorbing_reward(state):
    action = jax.random.uniform(KEY, (64, 2), minval=-1.0)
    x = jax.vmap(lambda a: jnp.concatenate([state.model.absorbing_latent, a]))(action)
    return float(jnp.mean(jax.vmap(state.reward)(x)))


def initial_reward(state, absorbing):
    segments = make_segments(jax.random.key(9), absorbing, 64)
    x = jax.vmap(lambda o, a: jnp.concatenate([state.model.encode(o), a]))(segments.obs[:, 0], segments.action[:, 0])
    return float(jnp.mean(jax.vmap(state.reward)(x)))


@pytest.fixture(scope="module")
def terminating_agent():
    """State of a CDRED agent with terminating episodes, trained on an expert's that do not terminate."""
    return train(make(), CONTINUING, TERMINATED, 300)[0]


def test_termination_unlike_expert_has_lower_reward(terminating_agent):
    assert absorbing_reward(terminating_agent) < initial_reward(terminating_agent, CONTINUING) - 0.5


def test_termination_like_expert_has_no_lower_reward():
    state, _ = train(make(), TERMINATED, TERMINATED, 300)
    assert absorbing_reward(state) > initial_reward(state, TERMINATED) - 0.25


def test_terminal_value_is_that_of_staying():
    """TD-MPC2 learns reward 0 in absorbing states, and so value 0; a surviving agent has value 1 / (1 - gamma)."""
    state, metrics = train(make("tdmpc2"), None, TERMINATED, 1500)
    z, action = state.model.absorbing_latent, jnp.zeros(2)
    assert absorbing_reward(state) == pytest.approx(0.0, abs=0.1)
    assert float(state.model.values(state.model.critics, z, action).mean()) == pytest.approx(0.0, abs=0.5)
    assert metrics["reward_agent"].shape == (1500,)
    assert "reward_expert" not in metrics


def test_termination_head_learns_terminating_transitions():
    """Transitions terminate where the action's first component is positive."""
    algorithm = make("tdmpc2")

    def terminating_segments(key):
        segments = make_segments(key, CONTINUING)
        terminated = jnp.cumsum(segments.action[..., 0] > 0, axis=1) > 0
        return segments._replace(absorbing=jnp.concatenate([jnp.zeros((16, 1), bool), terminated], axis=1))

    def step(state, key):
        keys = jax.random.split(key)
        return algorithm.update(state, Batch(None, terminating_segments(keys[0])), keys[1])

    state, metrics = jax.jit(lambda k: jax.lax.scan(step, algorithm.init(k), jax.random.split(k, 400)))(KEY)
    assert float(metrics["termination_loss"][-50:].mean()) < 0.3 * float(metrics["termination_loss"][0])
    test = terminating_segments(jax.random.key(11))
    z = jax.vmap(state.model.encode)(test.obs[:, 0])
    predicted = jax.vmap(state.model.predict_next)(z, test.action[:, 0])
    correct = (predicted == state.model.absorbing_latent[None]).all(1) == test.absorbing[:, 1]
    assert float(correct.mean()) > 0.8


def test_terminating_plan_collects_absorbing_reward(terminating_agent):
    algorithm, state = make(), terminating_agent
    head = state.model.termination.head
    always_terminating = eqx.tree_at(
        lambda s: (s.model.termination.head.weight, s.model.termination.head.bias),
        state,
        (jnp.zeros_like(head.weight), jnp.ones(1)),
    )
    z, actions = state.model.encode(jnp.ones(3)), jnp.zeros((3, 2))
    terminal, gamma = state.model.absorbing_latent, algorithm.discount
    first, later = (float(state.reward(jnp.concatenate([latent, jnp.zeros(2)]))) for latent in (z, terminal))
    value = float(state.model.values(state.model.critics, terminal, state.model.pi(terminal).mode).mean())
    expected = first + (gamma + gamma**2) * later + gamma**3 * value
    np.testing.assert_allclose(algorithm.imagined_return(always_terminating, z, actions), expected, rtol=1e-4)
