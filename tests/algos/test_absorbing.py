"""Worlds that can end: an end is a state one stays in, worth what is learned of it and never 0 by itself (trap 5)."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.algos.base import Batch
from cdred.algos.factory import make_algorithm
from cdred.types import EnvSpec, Segment

KEY = jax.random.key(3)
MORTAL = EnvSpec("probe/mortal", (3,), 2, 100, can_terminate=True)
LIVES, ENDS = jnp.array([False] * 4), jnp.array([False, False, True, True])


def segments(key, absorbing, num=16):
    keys = jax.random.split(key, 2)
    obs = jax.random.normal(keys[0], (num, 4, 3))
    action = jax.random.uniform(keys[1], (num, 3, 2), minval=-1.0)
    reward = jnp.where(absorbing[None, :-1], 0.0, jnp.ones((num, 3)))
    return Segment(obs, action, reward, jnp.tile(absorbing, (num, 1)))


def trained(algorithm, expert, own, updates):
    """The learner after `updates` steps on fresh segments of these kinds."""

    def step(state, key):
        keys = jax.random.split(key, 3)
        batch = Batch(None if expert is None else segments(keys[0], expert), segments(keys[1], own))
        return algorithm.update(state, batch, keys[2])

    @jax.jit
    def run(key):
        return jax.lax.scan(step, algorithm.init(key), jax.random.split(key, updates))

    return run(KEY)


def build(config, **changes):
    optim = replace(config.optim, learning_rate=3e-3, tau=0.05, lr_decay_fraction=0.0)
    return make_algorithm(replace(config, optim=optim, **changes), MORTAL)


def absorbing_reward(state):
    action = jax.random.uniform(KEY, (64, 2), minval=-1.0)
    x = jax.vmap(lambda a: jnp.concatenate([state.model.absorbing, a]))(action)
    return float(jnp.mean(jax.vmap(state.reward)(x)))


def living_reward(state, absorbing):
    lived = segments(jax.random.key(9), absorbing, 64)
    x = jax.vmap(lambda o, a: jnp.concatenate([state.model.encode(o), a]))(lived.obs[:, 0], lived.action[:, 0])
    return float(jnp.mean(jax.vmap(state.reward)(x)))


@pytest.fixture(scope="module")
def cache():
    return {}


@pytest.fixture
def mortal_agent(config, cache):
    """CDRED whose own episodes end, while the expert's do not."""
    if "agent" not in cache:
        algorithm = build(config)
        cache["agent"] = (algorithm, *trained(algorithm, LIVES, ENDS, 300))
    return cache["agent"]


def test_an_end_that_the_expert_never_meets_is_worse_than_living(mortal_agent):
    _, state, _ = mortal_agent
    assert absorbing_reward(state) < living_reward(state, LIVES) - 0.5


def test_an_end_that_the_expert_meets_as_the_agent_does_is_no_worse_than_living(config):
    state, _ = trained(build(config), ENDS, ENDS, 300)
    assert absorbing_reward(state) > living_reward(state, ENDS) - 0.25


def test_the_value_of_an_end_is_that_of_staying_in_it(config):
    """TD-MPC2 learns reward 0 for ever after, and so value 0; the agent that lives has value 1 / (1 - gamma)."""
    algorithm = build(config, algo="tdmpc2")
    state, metrics = trained(algorithm, None, ENDS, 1500)
    z, action = state.model.absorbing, jnp.zeros(2)
    assert absorbing_reward(state) == pytest.approx(0.0, abs=0.1)
    assert float(state.model.values(state.model.critics, z, action).mean()) == pytest.approx(0.0, abs=0.5)
    assert metrics["reward_agent"].shape == (1500,)
    assert "reward_expert" not in metrics


def test_the_head_learns_which_transitions_end_the_world(config):
    """Here the first component of the action does."""
    algorithm = build(config, algo="tdmpc2")

    def deadly(key):
        lived = segments(key, LIVES)
        over = jnp.cumsum(lived.action[..., 0] > 0, axis=1) > 0
        return lived._replace(absorbing=jnp.concatenate([jnp.zeros((16, 1), bool), over], axis=1))

    def step(state, key):
        keys = jax.random.split(key)
        return algorithm.update(state, Batch(None, deadly(keys[0])), keys[1])

    state, metrics = jax.jit(lambda k: jax.lax.scan(step, algorithm.init(k), jax.random.split(k, 400)))(KEY)
    assert float(metrics["termination_loss"][-50:].mean()) < 0.3 * float(metrics["termination_loss"][0])
    test = deadly(jax.random.key(11))
    z = jax.vmap(state.model.encode)(test.obs[:, 0])
    imagined = jax.vmap(state.model.imagine)(z, test.action[:, 0])
    right = (imagined == state.model.absorbing[None]).all(1) == test.absorbing[:, 1]
    assert float(right.mean()) > 0.8


def test_a_plan_through_an_end_collects_what_the_absorbing_latent_gives(mortal_agent):
    algorithm, state, _ = mortal_agent
    head = state.model.termination.head
    doomed = eqx.tree_at(
        lambda s: (s.model.termination.head.weight, s.model.termination.head.bias),
        state,
        (jnp.zeros_like(head.weight), jnp.ones(1)),
    )
    z, actions = state.model.encode(jnp.ones(3)), jnp.zeros((3, 2))
    end, gamma = state.model.absorbing, algorithm.discount
    first, later = (float(state.reward(jnp.concatenate([x, jnp.zeros(2)]))) for x in (z, end))
    value = float(state.model.values(state.model.critics, end, state.model.pi(end).mode).mean())
    expected = first + (gamma + gamma**2) * later + gamma**3 * value
    np.testing.assert_allclose(algorithm.imagined_return(doomed, z, actions), expected, rtol=1e-4)
