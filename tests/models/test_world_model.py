"""World model: encoding, dynamics, rollouts, critics, policy and termination."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.models.world_model import ModelConfig, WorldModel
from cdred.nn.layers import SharedLatent
from cdred.nn.two_hot import TwoHot

KEY = jax.random.key(0)
Z, A = 16, 2
CONFIG = ModelConfig(
    latent_dim=Z, simnorm_dim=8, encoder_hidden_dims=(16,), hidden_dims=(16, 16), num_critics=3, dropout=0.0
)
NOT_TERMINATED = jnp.zeros(3, bool)


def make(can_terminate=False, normalize_obs=False):
    config = replace(CONFIG, normalize_obs=normalize_obs)
    return WorldModel.create(4, A, config, two_hot=TwoHot(21), can_terminate=can_terminate, key=KEY)


@pytest.fixture
def model():
    return make()


def with_termination_logit(logit):
    """Make a model with a termination head that outputs this logit everywhere."""
    model = make(True)
    head = model.termination.head
    constant = eqx.tree_at(lambda h: (h.weight, h.bias), head, (jnp.zeros_like(head.weight), jnp.full(1, logit)))
    return eqx.tree_at(lambda m: m.termination.head, model, constant)


@pytest.fixture
def z(model):
    return model.encode(jnp.arange(4.0))


def test_encode_flattens_observation(model):
    obs = jax.random.normal(KEY, (4,))
    np.testing.assert_array_equal(model.encode(obs.reshape(2, 2)), model.encode(obs))


def test_latents_are_simplices(model, z):
    for latent in (z, model.next(z, jnp.ones(A))):
        np.testing.assert_allclose(latent.reshape(2, 8).sum(1), 1.0, rtol=1e-6)
        assert latent.min() >= 0


def test_rollout_repeats_dynamics(model, z):
    actions = jax.random.uniform(KEY, (3, A), minval=-1.0)
    expected = [z]
    for action in actions:
        expected.append(model.next(expected[-1], action))
    np.testing.assert_allclose(model.rollout(z, actions, NOT_TERMINATED), jnp.stack(expected), rtol=1e-5, atol=1e-7)
    assert not jnp.allclose(expected[0], expected[1])


def test_action_changes_only_later_latents(model, z):
    actions = jnp.zeros((3, A))
    changed_actions = actions.at[1].set(1.0)
    changed = model.rollout(z, changed_actions, NOT_TERMINATED) != model.rollout(z, actions, NOT_TERMINATED)
    assert changed.any(1).tolist() == [False, False, True, True]


def test_initial_values_are_zero(model, z):
    for action in jax.random.uniform(KEY, (5, A)):
        np.testing.assert_allclose(model.values(model.critics, z, action), jnp.zeros(3), atol=1e-5)


def test_values_are_decoded_per_critic(model, z):
    peaks = jnp.array([10, 13, 4])
    bias = 100 * jax.nn.one_hot(peaks, 21)
    critics = eqx.tree_at(lambda c: c.members.head.bias, model.critics, bias)
    expected = [0.0, np.expm1(3.0), -np.expm1(6.0)]
    np.testing.assert_allclose(model.values(critics, z, jnp.ones(A)), expected, rtol=1e-4, atol=1e-5)
    subset = critics.subset(jnp.array([2, 0]))
    np.testing.assert_allclose(model.values(subset, z, jnp.ones(A))[0], expected[2], rtol=1e-4)


def test_policy_output_is_split_into_halves(model, z):
    features = model.policy(z)
    np.testing.assert_allclose(model.pi(z).mean, features[:A], rtol=1e-6)
    np.testing.assert_allclose(model.pi(z).log_std, -4.0 + 6.0 * jnp.tanh(features[A:]), rtol=1e-5)


def test_rollout_after_termination_is_absorbing_latent(model, z):
    actions = jax.random.uniform(KEY, (3, A), minval=-1.0)
    full = model.rollout(z, actions, NOT_TERMINATED)
    terminated = model.rollout(z, actions, jnp.array([False, True, True]))
    np.testing.assert_array_equal(terminated[:2], full[:2])
    np.testing.assert_array_equal(terminated[2:], jnp.stack([model.absorbing_latent] * 2))


def test_absorbing_latent_is_corner_of_every_simplex(model, z):
    groups = model.absorbing_latent.reshape(2, 8)
    np.testing.assert_array_equal(groups, jnp.stack([jax.nn.one_hot(0, 8)] * 2))
    assert z.max() < 0.9


@pytest.mark.parametrize(("logit", "terminated"), [(1.0, True), (-1.0, False)])
def test_predict_next_terminates_by_logits_sign(z, logit, terminated):
    model = with_termination_logit(logit)
    expected = model.absorbing_latent if terminated else model.next(z, jnp.ones(A))
    np.testing.assert_array_equal(model.predict_next(z, jnp.ones(A)), expected)


def test_predict_next_without_termination_is_dynamics(model, z):
    np.testing.assert_array_equal(model.predict_next(z, jnp.ones(A)), model.next(z, jnp.ones(A)))


def test_without_normalizer_observations_are_not_clipped(model):
    assert model.normalizer is None
    large = jnp.array([30.0, 1.0, 1.0, 1.0])
    assert not jnp.allclose(model.encode(large), model.encode(large.at[0].set(10.0)))


def test_observations_are_normalized_before_encoding(model):
    mean, std = jnp.array([1.0, -2.0, 0.0, 5.0]), jnp.array([2.0, 0.1, 0.02, 1.0])
    normalizing = eqx.tree_at(
        lambda m: m.normalizer, make(normalize_obs=True), make(normalize_obs=True).normalizer.with_stats(mean, std)
    )
    obs = jnp.array([3.0, -1.9, 0.2, 100.0])
    # The third component's standard deviation is below the minimum of 0.1; the fourth is beyond the limit of 10.
    np.testing.assert_allclose(normalizing.encode(obs), model.encode(jnp.array([1.0, 1.0, 2.0, 10.0])), rtol=1e-4)


@pytest.fixture
def residual_model():
    return WorldModel.create(4, A, replace(CONFIG, residual_dynamics=True), two_hot=TwoHot(21), key=KEY)


def test_residual_dynamics_predict_no_change_at_first(residual_model, z):
    np.testing.assert_allclose(residual_model.next(z, jnp.ones(A)), z, rtol=1e-4, atol=1e-5)
    absorbing = residual_model.absorbing_latent
    np.testing.assert_allclose(residual_model.next(absorbing, jnp.ones(A)), absorbing, atol=1e-5)


def test_residual_dynamics_multiply_the_latent_by_the_exponential_of_the_change(residual_model, z):
    change = jnp.zeros(Z).at[3].set(jnp.log(2.0))
    head = residual_model.dynamics.head
    model = eqx.tree_at(lambda m: m.dynamics.head, residual_model, eqx.tree_at(lambda h: h.bias, head, change))
    expected = np.array(z)
    expected[3] *= 2.0
    expected[:8] /= expected[:8].sum()
    np.testing.assert_allclose(model.next(z, jnp.ones(A)), expected, rtol=1e-3, atol=1e-5)
    shared = model.next(SharedLatent(z), jnp.ones(A))
    np.testing.assert_allclose(shared, model.next(z, jnp.ones(A)), rtol=1e-5, atol=1e-7)


def test_actor_is_all_that_the_policy_acts_by(model):
    other = WorldModel.create(4, A, CONFIG, two_hot=TwoHot(21), key=jax.random.key(1))
    obs = jnp.arange(4.0)
    act = lambda m: m.pi(m.encode(obs)).mode  # noqa: E731
    np.testing.assert_array_equal(act(model.replace_actor(other.actor)), act(other))
    assert not np.allclose(act(model), act(other))


def test_small_deviations_are_divided_by_the_minimum():
    config = replace(CONFIG, normalize_obs=True, min_obs_std=0.5)
    model = WorldModel.create(4, A, config, two_hot=TwoHot(21), key=KEY)
    normalizer = model.normalizer.with_stats(jnp.zeros(4), jnp.array([0.1, 0.5, 1.0, 2.0]))
    np.testing.assert_allclose(normalizer(jnp.ones(4)), [2.0, 2.0, 1.0, 0.5])
