"""A discriminator is undecided where both stores are the same, and its numbers are the textbook's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cdred.models.rewards.discriminator import Discriminator, adversarial_loss

KEY = jax.random.key(3)


def fitted(offset, steps=300):
    """Trained on two clouds of points whose first components are `offset` apart."""
    model = Discriminator.create(4, hidden_dims=(32,), key=KEY)
    adam = optax.adam(3e-3)

    def loss(model, expert, own):
        return jnp.mean(adversarial_loss(jax.vmap(model)(jnp.concatenate([expert, own]))))

    def step(carry, key):
        model, opt = carry
        expert, own = jax.random.normal(key, (2, 64, 4))
        grads = jax.grad(loss)(model, expert.at[:, 0].add(offset), own)
        updates, opt = adam.update(grads, opt)
        return (optax.apply_updates(model, updates), opt), None

    (model, _), _ = jax.jit(lambda: jax.lax.scan(step, (model, adam.init(model)), jax.random.split(KEY, steps)))()
    return model


def test_at_equilibrium_it_says_one_half():
    model = fitted(0.0)
    said = jax.nn.sigmoid(jax.vmap(model)(jax.random.normal(jax.random.key(8), (500, 4))))
    assert float(jnp.mean(said)) == pytest.approx(0.5, abs=0.02)
    assert float(jnp.std(said)) < 0.08


def test_its_logit_is_the_log_ratio_of_the_densities():
    """Of N(2, 1) to N(0, 1) at x that is 2 x - 2."""
    points = jnp.linspace(-1.0, 3.0, 9)
    said = jax.vmap(fitted(2.0, 1000))(jnp.zeros((9, 4)).at[:, 0].set(points))
    np.testing.assert_allclose(said, 2 * points - 2, atol=0.8)


def test_the_loss_is_the_cross_entropy():
    """Of sigmoid(1.5), for the expert's half and for the own half."""
    probability = 1 / (1 + np.exp(-1.5))
    expected = [[-np.log(probability)], [-np.log(1 - probability)]]
    np.testing.assert_allclose(adversarial_loss(jnp.full((2, 1), 1.5)), expected, rtol=1e-6)
