"""GAIL: its discriminator against known densities, and its loss on the world model."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cdred.algos.gail import Discriminator, discriminator_loss

KEY = jax.random.key(3)


@jax.jit
def train_discriminator(offset):
    """Train on two Gaussian clouds, `offset` apart in the first component."""
    model = Discriminator.create(4, (32,), key=KEY)
    adam = optax.adam(3e-3)

    def loss(model, expert, agent):
        return jnp.mean(discriminator_loss(jax.vmap(model)(jnp.concatenate([expert, agent]))))

    def step(carry, key):
        model, opt_state = carry
        expert, agent = jax.random.normal(key, (2, 64, 4))
        grads = jax.grad(loss)(model, expert.at[:, 0].add(offset), agent)
        updates, opt_state = adam.update(grads, opt_state)
        return (optax.apply_updates(model, updates), opt_state), None

    (model, _), _ = jax.lax.scan(step, (model, adam.init(model)), jax.random.split(KEY, 1000))
    return model


def test_equal_densities_give_probability_one_half():
    model = train_discriminator(jnp.array(0.0))
    probability = jax.nn.sigmoid(jax.vmap(model)(jax.random.normal(jax.random.key(8), (500, 4))))
    assert float(jnp.mean(probability)) == pytest.approx(0.5, abs=0.02)
    assert float(jnp.std(probability)) < 0.08


def test_trained_logit_is_log_density_ratio():
    """The ratio of N(2, 1) to N(0, 1) at x is exp(2 x - 2)."""
    points = jnp.linspace(-1.0, 3.0, 9)
    logits = jax.vmap(train_discriminator(jnp.array(2.0)))(jnp.zeros((9, 4)).at[:, 0].set(points))
    np.testing.assert_allclose(logits, 2 * points - 2, atol=0.8)


def test_discriminator_loss_is_cross_entropy():
    """Logit 1.5 in the expert's half and in the agent's."""
    probability = 1 / (1 + np.exp(-1.5))
    expected = [[-np.log(probability)], [-np.log(1 - probability)]]
    np.testing.assert_allclose(discriminator_loss(jnp.full((2, 1), 1.5)), expected, rtol=1e-6)


def test_trained_reward_is_higher_on_expert_data(assert_expert_reward_higher):
    assert_expert_reward_higher("gail")


def test_initial_loss_is_log_two_plus_penalty(make_agent, batch):
    """The head is zero: log 2 everywhere, and a slope of 0, which is 1 away from 1."""
    agent = make_agent("gail")
    _, metrics = jax.jit(agent.update)(jax.jit(agent.init)(KEY), batch, KEY)
    expected = np.log(2) + agent.method.config.gradient_penalty
    # Times sum_t rho^t over three transitions.
    assert float(metrics["reward_loss"]) == pytest.approx(expected * 1.75, rel=1e-4)
    assert float(metrics["reward_agent"]) == 0.0
