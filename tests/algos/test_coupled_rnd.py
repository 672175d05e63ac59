"""The coupled reward's own facts: the count estimator, the predictors' optimum, the coupling, the scales (method 2)."""

from dataclasses import replace
from itertools import product

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cdred.models.rewards.coupled_rnd import CoupledRND, TargetMoments, distillation_loss, target_moments, visit_rate

KEY = jax.random.key(0)
K, E = 5, 8


def make(width=16, embedding_dim=E, input_dim=6, **changes):
    settings = {
        "num_targets": K,
        "target_hidden_dims": (width, width),
        "predictor_hidden_dims": (width, width),
        "embedding_dim": embedding_dim,
        "zeta": 0.8,
        "alpha": 0.9,
        "sigma": 1.0,
        "coupling": "identity",
        "distance_reduction": "sum",
        "count_reduction": "mean",
        "variance_eps": 1e-3,
        "key": KEY,
    }
    return CoupledRND.create(input_dim, **(settings | changes))


@pytest.fixture
def reward():
    return make()


@pytest.fixture
def moments():
    return target_moments(jax.random.normal(KEY, (K, E)))


def test_moments_are_the_papers(moments):
    embeddings = np.asarray(jax.random.normal(KEY, (K, E)), np.float64)
    np.testing.assert_allclose(moments.mean, embeddings.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(moments.variance, (embeddings**2).mean(0) - embeddings.mean(0) ** 2, rtol=1e-5)


def test_the_variance_does_not_cancel_far_from_zero():
    spread = jnp.array([[-1e-2], [0.0], [1e-2]])
    np.testing.assert_allclose(target_moments(1000.0 + spread).variance, 2e-4 / 3, rtol=0.02)


@pytest.mark.parametrize("n", [1, 3, 10])
def test_after_n_draws_the_count_estimator_has_mean_one_over_n(n):
    """Lemma 1, with new targets in every trial; a trial's components are averaged, so that trials are independent."""

    def trial(key):
        target_key, draw_key = jax.random.split(key)
        embeddings = jax.random.normal(target_key, (K, E))
        drawn = jax.random.randint(draw_key, (n,), 0, K)
        return visit_rate(embeddings[drawn].mean(0), target_moments(embeddings), 0.0).mean()

    rates = np.asarray(jax.jit(jax.vmap(trial))(jax.random.split(KEY, 40_000)), np.float64)
    standard_error = rates.std() / np.sqrt(len(rates))
    assert standard_error < 0.005
    assert abs(rates.mean() - 1 / n) < 4 * standard_error


@pytest.mark.parametrize("n", [1, 2, 3])
def test_over_all_possible_draws_the_count_estimator_is_exactly_one_over_n(n, moments):
    embeddings = jax.random.normal(KEY, (K, E))
    draws = jnp.array(list(product(range(K), repeat=n)))
    rates = jax.vmap(lambda drawn: visit_rate(embeddings[drawn].mean(0), moments, 0.0))(draws)
    np.testing.assert_allclose(rates.mean(0), 1 / n, rtol=2e-4)


def test_the_floor_costs_the_count_estimator_less_than_two_percent():
    reward = make(width=64, embedding_dim=64)
    embeddings = jax.vmap(reward.targets)(jax.random.uniform(KEY, (64, 6), minval=-1.0))

    def rate_of_one_draw(embeddings):
        moments = target_moments(embeddings)
        return jax.vmap(lambda drawn: visit_rate(drawn, moments, reward.variance_eps))(embeddings).mean()

    assert 0.98 < float(jax.vmap(rate_of_one_draw)(embeddings).mean()) < 1.0


def test_the_predictors_optimum_is_the_mean_of_the_drawn_targets():
    embeddings, drawn = jax.random.normal(KEY, (K, E)), jnp.array([0, 0, 3, 1])

    def loss(prediction):
        return jax.vmap(lambda k: distillation_loss(prediction, embeddings, k))(drawn).mean()

    optimum = embeddings[drawn].mean(0)
    value, slope = jax.value_and_grad(loss)(optimum)
    np.testing.assert_allclose(slope, jnp.zeros(E), atol=1e-6)
    for step in 0.1 * jnp.eye(E):
        assert float(loss(optimum + step)) == pytest.approx(float(value) + 0.01, abs=1e-5)


def test_a_predictor_trained_on_one_input_comes_to_the_targets_mean(reward):
    x = jnp.linspace(-1.0, 1.0, 6)
    moments, embeddings = target_moments(reward.targets(x)), reward.targets(x)
    optimiser = optax.adam(3e-3)

    def loss(predictors, drawn):
        return jax.vmap(lambda k: distillation_loss(predictors(x)[0], embeddings, k))(drawn).mean()

    def step(carry, key):
        predictors, opt = carry
        grads = jax.grad(loss)(predictors, jax.random.randint(key, (64,), 0, K))
        updates, opt = optimiser.update(grads, opt)
        return (optax.apply_updates(predictors, updates), opt), None

    start = (reward.predictors, optimiser.init(reward.predictors))
    (predictors, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, jax.random.split(KEY, 300)))(start)
    before, after = (jnp.sum((p(x)[0] - moments.mean) ** 2) for p in (reward.predictors, predictors))
    assert float(after) < 0.05 * float(moments.variance.sum())
    assert float(after) < 0.02 * float(before)


def test_the_reward_is_the_papers_equations_in_float64(reward):
    x = jax.random.uniform(KEY, (6,))
    f = np.asarray(reward.targets(x), np.float64)
    phi, psi = np.asarray(reward.predictors(x), np.float64)
    mu, b2 = f.mean(0), (f**2).mean(0)

    def bonus(p):
        y = (p**2 - mu**2) / (b2 - mu**2 + 1e-3)
        return 0.9 * np.sum((p - mu) ** 2) + 0.1 * np.sqrt(abs(y.mean()))

    assert float(reward(x)) == pytest.approx(-0.8 * bonus(phi) + 0.2 * bonus(psi), rel=1e-4)


@pytest.mark.parametrize(("zeta", "sigma"), [(0.8, 1.0), (0.5, 1.0), (0.9, 2.5)])
def test_where_behaviour_is_the_experts_the_reward_is_minus_two_zeta_minus_one_sigma_b(moments, zeta, sigma):
    reward = make(zeta=zeta, sigma=sigma)
    prediction = jax.random.normal(jax.random.key(1), (E,))
    bonus = float(reward.bonus(prediction, moments))
    assert bonus > 1
    value = float(reward.reward(jnp.stack([prediction, prediction]), moments))
    assert value == pytest.approx(-(2 * zeta - 1) * sigma * bonus, rel=1e-5, abs=1e-5)


def test_exponential_coupling():
    value = make(coupling="exp", sigma=2.0).couple(jnp.array(0.3), jnp.array(0.7))
    assert float(value) == pytest.approx(0.8 * np.exp(-0.6) - 0.2 * np.exp(-1.4), rel=1e-6)


def test_the_reward_falls_with_distance_to_the_expert_and_rises_with_distance_to_oneself(reward):
    near, far = jnp.array(0.1), jnp.array(5.0)
    for one in (reward, make(coupling="exp")):
        assert one.couple(near, far) > one.couple(near, near) > one.couple(far, near)


def test_uncoupled_the_own_predictor_is_ignored(moments):
    expert, own, other = jax.random.normal(KEY, (3, E))
    coupled, uncoupled = make(), make(zeta=1.0)
    assert uncoupled.reward(jnp.stack([expert, own]), moments) == uncoupled.reward(jnp.stack([expert, other]), moments)
    assert coupled.reward(jnp.stack([expert, own]), moments) != coupled.reward(jnp.stack([expert, other]), moments)


@pytest.mark.parametrize(("distance", "count"), list(product(["sum", "mean"], repeat=2)))
def test_each_term_is_reduced_as_told(distance, count):
    reward = make(distance_reduction=distance, count_reduction=count)
    moments = TargetMoments(jnp.ones(4), jnp.full(4, 2.0 - 1e-3))
    expected = 0.9 * (1.0 if distance == "mean" else 4.0) + 0.1 * np.sqrt(1.5 if count == "mean" else 6.0)
    assert float(reward.bonus(jnp.full(4, 2.0), moments)) == pytest.approx(expected, rel=1e-5)


def test_summed_distance_and_averaged_count_differ_by_two_orders_of_magnitude():
    """Trap 2, measured: the count term is about 0.4 % of a fresh bonus, and matters only near the targets' mean."""
    reward = make(width=128, embedding_dim=64, input_dim=132)
    x = jax.random.uniform(KEY, (64, 132), minval=-1.0)

    moments = jax.vmap(lambda x: target_moments(reward.targets(x)))(x)

    def count_share(predictions):
        whole, distance = (jax.vmap(one.bonus)(predictions, moments) for one in (reward, replace(reward, alpha=1.0)))
        return float((1 - 0.9 * distance / whole).mean())

    noise = 0.05 * jax.random.normal(KEY, moments.mean.shape)
    assert 0.002 < count_share(jax.vmap(reward.predictors)(x)[:, 0]) < 0.01
    assert 0.05 < count_share(moments.mean + noise * jnp.sqrt(moments.variance)) < 0.3


def test_targets_that_agree_exactly_need_the_floor():
    moments = target_moments(jnp.ones((K, E)))
    for prediction in (jnp.ones(E), jnp.full(E, 1.5)):
        assert jnp.isfinite(make().bonus(prediction, moments))
        assert not jnp.isfinite(make(variance_eps=0.0).bonus(prediction, moments))


def test_targets_and_predictors_are_all_different(reward):
    outputs = np.concatenate([reward.targets(jnp.ones(6)), reward.predictors(jnp.ones(6))])
    assert len({row.tobytes() for row in outputs}) == K + 2


def test_targets_are_part_of_the_agent(reward):
    assert {id(leaf) for leaf in jax.tree.leaves(reward.targets)} < {
        id(leaf) for leaf in jax.tree.leaves(eqx.filter(reward, eqx.is_array))
    }


def test_the_reward_is_read_from_the_predictors_averages(reward):
    """After n settlings with predictors that stay, the average is off by (1 - rate)^n of the first difference."""
    averaged, x = make(ema_rate=0.1), jnp.ones(6)
    moved = eqx.tree_at(lambda r: r.predictors, averaged, jax.tree.map(lambda p: p + 1.0, averaged.predictors))
    assert moved(x) == averaged(x) == reward(x)
    settled = moved.settled().settled().settled()
    for average, old in zip(jax.tree.leaves(settled.averages), jax.tree.leaves(reward.predictors), strict=True):
        np.testing.assert_allclose(average, old + 1.0 - 0.9**3, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(settled(x), settled.reward(settled.averages(x), target_moments(settled.targets(x))))
    assert settled(x) != moved(x)


def test_averages_are_nearer_to_the_targets_mean_than_predictors_that_chase_draws():
    """Constant input: the predictor jumps about mu with the draws, its average much less."""
    x, rate = jnp.linspace(-1.0, 1.0, 6), 0.02
    optimiser = optax.adam(3e-3)

    def step(carry, key):
        reward, opt = carry
        embeddings = reward.targets(x)
        drawn = jax.random.randint(key, (2,), 0, K)
        loss = lambda p: jnp.sum(jax.vmap(distillation_loss, in_axes=(0, None, 0))(p(x), embeddings, drawn))  # noqa: E731
        updates, opt = optimiser.update(jax.grad(loss)(reward.predictors), opt)
        reward = eqx.tree_at(lambda r: r.predictors, reward, optax.apply_updates(reward.predictors, updates)).settled()
        mean = jnp.mean(embeddings, axis=0)
        return (reward, opt), [jnp.sum((p(x) - mean[None]) ** 2) for p in (reward.predictors, reward.averages)]

    reward = make(ema_rate=rate)
    start = (reward, optimiser.init(reward.predictors))
    _, (chasing, averaged) = jax.jit(lambda k: jax.lax.scan(step, start, jax.random.split(k, 2000)))(KEY)
    assert float(averaged[1000:].mean()) < 0.5 * float(chasing[1000:].mean())
