"""TD-MPC2: the reward is regressed from what was given, and no expert has a say."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cdred.algos.base import Batch
from cdred.algos.factory import make_algorithm

KEY = jax.random.key(2)


@pytest.fixture
def algorithm(config, spec):
    return make_algorithm(
        replace(config, algo="tdmpc2", optim=replace(config.optim, learning_rate=3e-3, lr_decay_fraction=0.0)), spec
    )


@pytest.fixture
def own(make_batch):
    return lambda key: Batch(None, make_batch(key, 16).agent)


def test_the_reward_comes_to_be_the_environments(algorithm, own):
    def step(state, key):
        keys = jax.random.split(key)
        return algorithm.update(state, own(keys[0]), keys[1])

    state, metrics = jax.jit(lambda k: jax.lax.scan(step, algorithm.init(k), jax.random.split(k, 400)))(KEY)
    validation = own(jax.random.key(77)).agent
    x = jax.vmap(lambda o, a: jnp.concatenate([state.model.encode(o), a]))(
        validation.obs[:, 0], validation.action[:, 0]
    )
    said, given = jax.vmap(state.reward)(x), validation.reward[:, 0]
    assert np.corrcoef(said, given)[0, 1] > 0.9
    assert float(metrics["reward_agent"].mean()) == pytest.approx(0.0, abs=0.1)
    assert all(jnp.isfinite(series).all() for series in metrics.values())


def test_critics_learn_from_the_given_reward_from_the_first_update(algorithm, own):
    state = jax.jit(algorithm.init)(KEY)
    after, metrics = jax.jit(algorithm.update)(state, own(KEY), KEY)
    # All values start at 0.
    assert float(metrics["td_target"]) == pytest.approx(float(own(KEY).agent.reward.mean()), abs=1e-4)
    assert not jnp.array_equal(after.model.critics.members.head.weight, state.model.critics.members.head.weight)


def test_the_rewards_fit_shapes_the_latents(algorithm, own):
    alone = replace(algorithm, consistency_coef=0.0, value_coef=0.0)
    state = jax.jit(algorithm.init)(KEY)
    head = jax.random.normal(KEY, state.reward.head.head.weight.shape)
    state = eqx.tree_at(lambda s: s.reward.head.head.weight, state, head)
    grads = jax.jit(jax.grad(lambda t: alone.model_loss(t, state, own(KEY), KEY)[0]))(state.trainable)
    assert float(optax.tree.norm(grads.encoder)) > 0
    assert float(optax.tree.norm(grads.dynamics)) > 0


def test_its_plans_pay_nothing_for_leaving_the_prior(config, algorithm):
    state, actions = algorithm.init(KEY), jax.random.uniform(KEY, (3, 2), minval=-1.0)
    z = state.model.encode(jnp.array([0.5, -0.2, 1.0]))
    assert config.mppi.policy_penalty_coef > 0
    assert float(algorithm.worth(state, z)(actions)) == float(algorithm.imagined_return(state, z, actions))
