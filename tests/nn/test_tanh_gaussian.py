"""Squashed Gaussian: its density against quadrature and against the distribution function, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from cdred.nn.tanh_gaussian import TanhGaussian

PARAMETERS = [(0.0, 0.0), (0.8, -1.0), (-1.5, 0.3), (0.2, -2.0)]
log_prob = jax.jit(TanhGaussian.log_prob)


def make(*mean_and_log_std):
    mean, log_std = zip(*mean_and_log_std, strict=True)
    return TanhGaussian(jnp.array(mean), jnp.array(log_std))


@pytest.mark.parametrize("parameters", PARAMETERS)
def test_density_integrates_to_one(parameters):
    pi = make(parameters)
    mass, _ = integrate.quad(lambda a: np.exp(float(log_prob(pi, jnp.array([a], jnp.float32)))), -1, 1, epsabs=1e-4)
    assert mass == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("parameters", PARAMETERS)
@pytest.mark.parametrize("action", [-0.95, -0.3, 0.0, 0.5, 0.9])
def test_density_is_derivative_of_distribution_function(parameters, action):
    mean, log_std = parameters
    below, above = stats.norm.cdf(np.arctanh([action - 1e-5, action + 1e-5]), mean, np.exp(log_std))
    expected = stats.norm.logpdf(np.arctanh(action), mean, np.exp(log_std)) - np.log1p(-(action**2))
    assert float(log_prob(make(parameters), jnp.array([action]))) == pytest.approx(expected, abs=1e-3)
    if expected > -10:
        assert np.log((above - below) / 2e-5) == pytest.approx(expected, abs=1e-3)


def test_components_are_independent():
    action = jnp.array([0.3, -0.6])
    separate = [float(log_prob(make(p), action[i : i + 1])) for i, p in enumerate(PARAMETERS[:2])]
    assert float(log_prob(make(*PARAMETERS[:2]), action)) == pytest.approx(sum(separate), rel=1e-5)


def test_sample_density_equals_density_of_action():
    pi = make(*PARAMETERS[:3])
    actions, sampled = jax.vmap(pi.sample)(jax.random.split(jax.random.key(0), 2000))
    inside = jnp.all(jnp.abs(actions) < 0.99, axis=1)
    assert int(inside.sum()) > 1000
    expected = jax.vmap(pi.log_prob)(actions)
    np.testing.assert_allclose(sampled[inside], expected[inside], atol=2e-3)


def test_sample_density_is_exact_at_bounds():
    mean, log_std = 50.0, -1.0
    action, density = make((mean, log_std)).sample(jax.random.key(1))
    noise = np.float64(jax.random.normal(jax.random.key(1), (1,))[0])
    u = mean + np.exp(log_std) * noise
    expected = stats.norm.logpdf(noise) - log_std - (np.log(4) - 2 * u)
    assert action[0] == 1.0
    assert float(density) == pytest.approx(expected, rel=1e-5)


def test_samples_before_tanh_are_gaussian():
    mean, log_std = 0.2, -0.5
    actions, _ = jax.vmap(make((mean, log_std)).sample)(jax.random.split(jax.random.key(2), 5000))
    u = np.arctanh(np.asarray(actions[:, 0], np.float64))
    assert stats.kstest(u, stats.norm(mean, np.exp(log_std)).cdf).pvalue > 1e-3


def test_features_are_mean_and_squashed_log_std():
    pi = TanhGaussian.from_features(jnp.array([0.5, -0.5, 2.0, 0.0, 1e3, -1e3]))
    np.testing.assert_allclose(pi.mean, [0.5, -0.5, 2.0])
    np.testing.assert_allclose(pi.log_std, [-4.0, 2.0, -10.0], rtol=1e-6)
    np.testing.assert_allclose(pi.mode, np.tanh([0.5, -0.5, 2.0]), rtol=1e-6)
