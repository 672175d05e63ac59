"""RED: what its predictor learns from, and its reward."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.algos.method import LatentBatch, concat_batch

KEY = jax.random.key(11)


def test_trained_reward_is_higher_on_expert_data(assert_expert_reward_higher):
    assert_expert_reward_higher("red")


def test_predictor_gradient_ignores_agent_data(make_agent, batch):
    agent = make_agent("red")
    state = jax.jit(agent.init)(KEY)
    other_batch = batch._replace(agent=eqx.tree_at(lambda s: s.action, batch.agent, -batch.agent.action))
    latents = jax.nn.softmax(jax.random.normal(KEY, (16, 4, 2, 8))).reshape(16, 4, 16)

    @jax.jit
    def gradient(batch):
        latent_batch = LatentBatch(concat_batch(batch), latents, latents[:, 1:])

        def loss(reward):
            changed = eqx.tree_at(lambda s: s.reward, state, reward)
            return agent.method.reward_output(changed, latent_batch, KEY).loss.sum()

        return jax.grad(loss)(state.reward)

    grads, other_grads = gradient(batch), gradient(other_batch)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, grads, other_grads))
    assert float(jnp.abs(grads.predictor.head.weight).max()) > 0
    assert float(jnp.abs(grads.target.head.weight).max()) == 0


def test_reward_is_one_at_target_and_falls(make_agent):
    reward = jax.jit(make_agent("red").init)(KEY).reward
    x = jax.random.normal(KEY, (18,))
    assert float(eqx.tree_at(lambda r: r.predictor, reward, reward.target)(x)) == 1.0
    distance = float(jnp.sum((reward.predictor(x) - reward.target(x)) ** 2))
    assert float(reward(x)) == pytest.approx(np.exp(-distance), rel=1e-5)
