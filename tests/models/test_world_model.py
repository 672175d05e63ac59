"""The latent model: what its parts give before and after their wiring is exercised."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.models.world_model import WorldModel
from cdred.nn.normalizer import ObsNormalizer
from cdred.nn.two_hot import TwoHot

KEY = jax.random.key(0)
Z, A = 16, 2


ALIVE = jnp.zeros(3, bool)


def make(can_terminate=False, normalize_obs=False):
    return WorldModel.create(
        4,
        A,
        latent_dim=Z,
        simnorm_dim=8,
        encoder_hidden_dims=(16,),
        hidden_dims=(16, 16),
        num_critics=3,
        dropout=0.0,
        two_hot=TwoHot(21),
        can_terminate=can_terminate,
        normalize_obs=normalize_obs,
        key=KEY,
    )


@pytest.fixture
def model():
    return make()


def ends(logit):
    """A world that its model thinks to end at once (logit > 0), or never to end."""
    model = make(True)
    head = model.termination.head
    return eqx.tree_at(
        lambda m: m.termination.head,
        model,
        eqx.tree_at(lambda h: (h.weight, h.bias), head, (jnp.zeros_like(head.weight), jnp.full(1, logit))),
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
    np.testing.assert_allclose(model.rollout(z, actions, ALIVE), jnp.stack(by_hand), rtol=1e-5, atol=1e-7)
    assert not jnp.allclose(by_hand[0], by_hand[1])


def test_the_future_depends_on_the_action_and_the_past_does_not(model, z):
    actions = jnp.zeros((3, A))
    changed = model.rollout(z, actions.at[1].set(1.0), ALIVE) != model.rollout(z, actions, ALIVE)
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


def test_a_rollout_is_in_the_absorbing_latent_where_the_world_had_ended(model, z):
    actions = jax.random.uniform(KEY, (3, A), minval=-1.0)
    whole = model.rollout(z, actions, ALIVE)
    ended = model.rollout(z, actions, jnp.array([False, True, True]))
    np.testing.assert_array_equal(ended[:2], whole[:2])
    np.testing.assert_array_equal(ended[2:], jnp.stack([model.absorbing] * 2))


def test_the_absorbing_latent_is_a_corner_of_every_simplex(model, z):
    groups = model.absorbing.reshape(2, 8)
    np.testing.assert_array_equal(groups, jnp.stack([jax.nn.one_hot(0, 8)] * 2))
    assert z.max() < 0.9


@pytest.mark.parametrize(("logit", "over"), [(1.0, True), (-1.0, False)])
def test_what_is_imagined_ends_where_the_head_says_so(z, logit, over):
    model = ends(logit)
    expected = model.absorbing if over else model.next(z, jnp.ones(A))
    np.testing.assert_array_equal(model.imagine(z, jnp.ones(A)), expected)


def test_a_world_without_end_is_imagined_as_the_dynamics_have_it(model, z):
    np.testing.assert_array_equal(model.imagine(z, jnp.ones(A)), model.next(z, jnp.ones(A)))


def test_without_standardisation_an_observation_is_seen_as_it_is(model):
    assert model.normalizer is None
    large = jnp.array([30.0, 1.0, 1.0, 1.0])
    assert not jnp.allclose(model.encode(large), model.encode(large.at[0].set(10.0)))


def test_observations_are_standardised_before_they_are_encoded(model):
    mean, std = jnp.array([1.0, -2.0, 0.0, 5.0]), jnp.array([2.0, 0.1, 0.02, 1.0])
    fitted = eqx.tree_at(lambda m: m.normalizer, make(normalize_obs=True), ObsNormalizer.fitted(mean, std))
    obs = jnp.array([3.0, -1.9, 0.2, 100.0])
    # The third hardly moves, so it is divided by 0.1; the fourth is beyond the limit.
    np.testing.assert_allclose(fitted.encode(obs), model.encode(jnp.array([1.0, 1.0, 2.0, 10.0])), rtol=1e-4)
