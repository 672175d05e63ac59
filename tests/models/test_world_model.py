"""The latent model: what its parts give before and after their wiring is exercised."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.models.world_model import WorldModel
from cdred.nn.two_hot import TwoHot

KEY = jax.random.key(0)
Z, A = 16, 2


@pytest.fixture
def model():
    return WorldModel.create(
        4,
        A,
        latent_dim=Z,
        simnorm_dim=8,
        encoder_widths=(16,),
        widths=(16, 16),
        num_critics=3,
        dropout=0.0,
        two_hot=TwoHot(21),
        key=KEY,
    )


@pytest.fixture
def z(model):
    return model.encode(jnp.arange(4.0))


def test_encoding_flattens_the_observation(model):
    obs = jax.random.normal(KEY, (4,))
    np.testing.assert_array_equal(model.encode(obs.reshape(2, 2)), model.encode(obs))


def test_latents_are_simplices(model, z):
    for latent in (z, model.next(z, jnp.ones(A))):
        np.testing.assert_allclose(latent.reshape(2, 8).sum(1), 1.0, rtol=1e-6)
        assert latent.min() >= 0


def test_a_rollout_is_the_dynamics_repeated(model, z):
    actions = jax.random.uniform(KEY, (3, A), minval=-1.0)
    by_hand = [z]
    for action in actions:
        by_hand.append(model.next(by_hand[-1], action))
    np.testing.assert_allclose(model.rollout(z, actions), jnp.stack(by_hand), rtol=1e-5, atol=1e-7)
    assert not jnp.allclose(by_hand[0], by_hand[1])


def test_the_future_depends_on_the_action_and_the_past_does_not(model, z):
    actions = jnp.zeros((3, A))
    changed = model.rollout(z, actions.at[1].set(1.0)) != model.rollout(z, actions)
    assert changed.any(1).tolist() == [False, False, True, True]


def test_a_fresh_model_values_everything_at_zero(model, z):
    for action in jax.random.uniform(KEY, (5, A)):
        np.testing.assert_allclose(model.values(model.critics, z, action), jnp.zeros(3), atol=1e-5)


def test_values_are_decoded_per_critic(model, z):
    peaks = jnp.array([10, 13, 4])
    bias = 100 * jax.nn.one_hot(peaks, 21)
    critics = eqx.tree_at(lambda c: c.members.head.bias, model.critics, bias)
    expected = [0.0, np.expm1(3.0), -np.expm1(6.0)]
    np.testing.assert_allclose(model.values(critics, z, jnp.ones(A)), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        model.values(critics.subset(jnp.array([2, 0])), z, jnp.ones(A))[0], expected[2], rtol=1e-4
    )


def test_the_prior_is_the_policys_output_in_halves(model, z):
    features = model.policy(z)
    np.testing.assert_allclose(model.pi(z).mean, features[:A], rtol=1e-6)
    np.testing.assert_allclose(model.pi(z).log_std, -4.0 + 6.0 * jnp.tanh(features[A:]), rtol=1e-5)
