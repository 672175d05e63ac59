"""TD-MPC2: its reward head is regressed on the environment's reward, without demonstrations."""

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
def tdmpc2(config, spec):
    optim = replace(config.optim, learning_rate=3e-3, lr_decay_fraction=0.0)
    return make_algorithm(replace(config, algo="tdmpc2", optim=optim), spec)


@pytest.fixture
def make_agent_batch(make_batch):
    return lambda key: Batch(None, make_batch(key, 16).agent)


def test_trained_reward_correlates_with_environments(tdmpc2, make_agent_batch):
    def step(state, key):
        keys = jax.random.split(key)
        return tdmpc2.update(state, make_agent_batch(keys[0]), keys[1])

    state, metrics = jax.jit(lambda k: jax.lax.scan(step, tdmpc2.init(k), jax.random.split(k, 400)))(KEY)
    validation = make_agent_batch(jax.random.key(77)).agent
    x = jax.vmap(lambda o, a: jnp.concatenate([state.model.encode(o), a]))(
        validation.obs[:, 0], validation.action[:, 0]
    )
    assert np.corrcoef(jax.vmap(state.reward)(x), validation.reward[:, 0])[0, 1] > 0.9
    assert float(metrics["reward_agent"].mean()) == pytest.approx(0.0, abs=0.1)
    assert all(jnp.isfinite(series).all() for series in metrics.values())


def test_critics_learn_from_first_update(tdmpc2, make_agent_batch):
    state = jax.jit(tdmpc2.init)(KEY)
    after, metrics = jax.jit(tdmpc2.update)(state, make_agent_batch(KEY), KEY)
    # All values start at 0.
    assert float(metrics["td_target"]) == pytest.approx(float(make_agent_batch(KEY).agent.reward.mean()), abs=1e-4)
    assert not jnp.array_equal(after.model.critics.members.head.weight, state.model.critics.members.head.weight)


def test_reward_loss_shapes_latents(tdmpc2, make_agent_batch):
    reward_only = replace(tdmpc2, config=replace(tdmpc2.config, consistency_coef=0.0, value_coef=0.0))
    state = jax.jit(tdmpc2.init)(KEY)
    head = jax.random.normal(KEY, state.reward.head.head.weight.shape)
    state = eqx.tree_at(lambda s: s.reward.head.head.weight, state, head)
    batch = make_agent_batch(KEY)
    grads = jax.jit(jax.grad(lambda t: reward_only.model_loss(t, state, batch, KEY)[0]))(state.trainable)
    assert float(optax.tree.norm(grads.encoder)) > 0
    assert float(optax.tree.norm(grads.dynamics)) > 0


def test_plan_objective_has_no_policy_penalty(config, tdmpc2):
    state, actions = tdmpc2.init(KEY), jax.random.uniform(KEY, (3, 2), minval=-1.0)
    z = state.model.encode(jnp.array([0.5, -0.2, 1.0]))
    assert config.mppi.policy_penalty_coef > 0
    assert float(tdmpc2.plan_objective(state, z)(actions)) == float(tdmpc2.imagined_return(state, z, actions))
