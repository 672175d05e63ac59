"""CDRED: the count estimate, the predictors and the reward against the paper's equations, and one update's numbers."""

from dataclasses import replace
from itertools import product

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cdred.algos.cdred import (
    CDREDConfig,
    CoupledRND,
    TargetMoments,
    cdred_reward,
    distillation_loss,
    inverse_count,
    target_moments,
    target_zeta,
)
from cdred.algos.factory import make_algorithm
from cdred.algos.method import LatentBatch
from cdred.types import Segment

KEY = jax.random.key(0)
UPDATE_KEY = jax.random.key(7)
K, E = 5, 8
WARMUP, UPDATES, GAMMA = 100, 250, 0.95

# Metrics of `update(state, batch, UPDATE_KEY)` past the warm-up, of this code and not of a reference implementation.
# Print them there to renew the numbers, and say in the commit why they changed.
GOLDEN = {
    "loss": 2.595814,
    "consistency_loss": 0.05629759,
    "critic_loss": 5.661612,
    "reward_loss": 9.037008,
    "reward_expert": -1.1823931,
    "reward_agent": -2.5832314,
    "td_target": -0.7173284,
    "td_target_abs_max": 3.8720906,
    "grad_norm": 5.0996623,
    "bc_loss": 1.8940467,
    "policy_grad_norm": 208.3822,
    "q_pi": -0.21038118,
    "q_scale": 1.1259193,
}


def make(width=16, embedding_dim=E, input_dim=6, **changes):
    hidden_dims = (width, width)
    config = CDREDConfig(
        num_targets=K,
        embedding_dim=embedding_dim,
        target_hidden_dims=hidden_dims,
        predictor_hidden_dims=hidden_dims,
    )
    return CoupledRND.create(input_dim, replace(config, **changes), key=KEY)


@pytest.fixture
def reward():
    return make()


@pytest.fixture
def moments():
    return target_moments(jax.random.normal(KEY, (K, E)))


def test_target_moments_are_the_papers(moments):
    embeddings = np.asarray(jax.random.normal(KEY, (K, E)), np.float64)
    np.testing.assert_allclose(moments.mean, embeddings.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(moments.variance, (embeddings**2).mean(0) - embeddings.mean(0) ** 2, rtol=1e-5)


def test_variance_far_from_zero_does_not_cancel():
    spread = jnp.array([[-1e-2], [0.0], [1e-2]])
    np.testing.assert_allclose(target_moments(1000.0 + spread).variance, 2e-4 / 3, rtol=0.02)


@pytest.mark.parametrize("n", [1, 3, 10])
def test_inverse_count_is_unbiased_after_n_samples(n):
    """Lemma 1, with new targets in every trial; a trial's components are averaged, so that trials are independent."""

    def trial(key):
        target_key, index_key = jax.random.split(key)
        embeddings = jax.random.normal(target_key, (K, E))
        target_index = jax.random.randint(index_key, (n,), 0, K)
        return inverse_count(embeddings[target_index].mean(0), target_moments(embeddings), 0.0).mean()

    estimates = np.asarray(jax.jit(jax.vmap(trial))(jax.random.split(KEY, 40_000)), np.float64)
    standard_error = estimates.std() / np.sqrt(len(estimates))
    assert standard_error < 0.005
    assert abs(estimates.mean() - 1 / n) < 4 * standard_error


@pytest.mark.parametrize("n", [1, 2, 3])
def test_inverse_count_over_all_samples_averages_exactly(n, moments):
    embeddings = jax.random.normal(KEY, (K, E))
    samples = jnp.array(list(product(range(K), repeat=n)))
    estimates = jax.vmap(lambda index: inverse_count(embeddings[index].mean(0), moments, 0.0))(samples)
    np.testing.assert_allclose(estimates.mean(0), 1 / n, rtol=2e-4)


def test_variance_eps_biases_inverse_count_below_two_percent():
    reward = make(width=64, embedding_dim=64)
    embeddings = jax.vmap(reward.targets)(jax.random.uniform(KEY, (64, 6), minval=-1.0))

    def after_one_visit(embeddings):
        moments = target_moments(embeddings)
        return jax.vmap(lambda f: inverse_count(f, moments, reward.config.variance_eps))(embeddings).mean()

    assert 0.98 < float(jax.vmap(after_one_visit)(embeddings).mean()) < 1.0


def test_distillation_loss_minimum_is_sampled_targets_mean():
    embeddings, target_index = jax.random.normal(KEY, (K, E)), jnp.array([0, 0, 3, 1])

    def loss(prediction):
        return jax.vmap(lambda k: distillation_loss(prediction, embeddings, k))(target_index).mean()

    optimum = embeddings[target_index].mean(0)
    value, slope = jax.value_and_grad(loss)(optimum)
    np.testing.assert_allclose(slope, jnp.zeros(E), atol=1e-6)
    for step in 0.1 * jnp.eye(E):
        assert float(loss(optimum + step)) == pytest.approx(float(value) + 0.01, abs=1e-5)


def test_predictor_on_one_input_converges_to_mean(reward):
    x = jnp.linspace(-1.0, 1.0, 6)
    moments, embeddings = target_moments(reward.targets(x)), reward.targets(x)
    optimizer = optax.adam(3e-3)

    def loss(predictors, target_index):
        return jax.vmap(lambda k: distillation_loss(predictors(x)[0], embeddings, k))(target_index).mean()

    def step(carry, key):
        predictors, opt_state = carry
        grads = jax.grad(loss)(predictors, jax.random.randint(key, (64,), 0, K))
        updates, opt_state = optimizer.update(grads, opt_state)
        return (optax.apply_updates(predictors, updates), opt_state), None

    start = (reward.predictors, optimizer.init(reward.predictors))
    (predictors, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, jax.random.split(KEY, 300)))(start)
    before, after = (jnp.sum((p(x)[0] - moments.mean) ** 2) for p in (reward.predictors, predictors))
    assert float(after) < 0.05 * float(moments.variance.sum())
    assert float(after) < 0.02 * float(before)


def test_reward_matches_papers_equations_in_float64(reward):
    x = jax.random.uniform(KEY, (6,))
    f = np.asarray(reward.targets(x), np.float64)
    phi, psi = np.asarray(reward.predictors(x), np.float64)
    mu, b2 = f.mean(0), (f**2).mean(0)

    def bonus(p):
        y = (p**2 - mu**2) / (b2 - mu**2 + 1e-3)
        return 0.9 * np.sum((p - mu) ** 2) + 0.1 * np.sqrt(abs(y.mean()))

    assert float(reward(x)) == pytest.approx(-0.8 * bonus(phi) + 0.2 * bonus(psi), rel=1e-4)


@pytest.mark.parametrize(("zeta", "sigma"), [(0.8, 1.0), (0.5, 1.0), (0.9, 2.5)])
def test_equal_predictions_give_scaled_negative_bonus(moments, zeta, sigma):
    """Where the agent behaves like the expert, R = -(2 zeta - 1) sigma b."""
    reward = make(zeta=zeta, sigma=sigma)
    prediction = jax.random.normal(jax.random.key(1), (E,))
    bonus = float(reward.bonus(prediction, moments))
    assert bonus > 1
    value = float(reward.reward(jnp.stack([prediction, prediction]), moments))
    assert value == pytest.approx(-(2 * zeta - 1) * sigma * bonus, rel=1e-5, abs=1e-5)


def test_exp_transform_gives_reward_by_hand():
    value = make(transform="exp", sigma=2.0).combine(jnp.array(0.3), jnp.array(0.7))
    assert float(value) == pytest.approx(0.8 * np.exp(-0.6) - 0.2 * np.exp(-1.4), rel=1e-6)


def test_log_transform_gives_reward_by_hand():
    value = make(transform="log", sigma=2.0).combine(jnp.array(0.3), jnp.array(0.7))
    assert float(value) == pytest.approx(-0.8 * np.log(1.6) + 0.2 * np.log(2.4), rel=1e-6)


def test_count_estimates_are_averaged_or_summed(moments):
    prediction = jax.random.normal(jax.random.key(1), (E,))
    mean, sum_ = (float(make(alpha=0.0, count_reduction=r).bonus(prediction, moments)) for r in ("mean", "sum"))
    assert sum_ == pytest.approx(mean * np.sqrt(E), rel=1e-5)
    assert mean > 0


@pytest.mark.parametrize("transform", ["identity", "exp", "log"])
def test_reward_falls_with_expert_bonus_rises_with_agents(transform):
    reward, small, large = make(transform=transform), jnp.array(0.1), jnp.array(5.0)
    assert reward.combine(small, large) > reward.combine(small, small) > reward.combine(large, small)


def test_zeta_one_ignores_agents_predictor(moments):
    expert, agent, other = jax.random.normal(KEY, (3, E))
    default, uncoupled = make(), make(zeta=1.0)
    assert uncoupled.reward(jnp.stack([expert, agent]), moments) == uncoupled.reward(
        jnp.stack([expert, other]), moments
    )
    assert default.reward(jnp.stack([expert, agent]), moments) != default.reward(jnp.stack([expert, other]), moments)


def test_bonus_sums_distance_and_averages_count(reward):
    moments = TargetMoments(jnp.ones(4), jnp.full(4, 2.0 - 1e-3))
    expected = 0.9 * 4.0 + 0.1 * np.sqrt(1.5)
    assert float(reward.bonus(jnp.full(4, 2.0), moments)) == pytest.approx(expected, rel=1e-5)


def test_count_term_is_small_far_from_targets_mean():
    """The distance is summed over the embedding and the count averaged: the count is about 0.4 % of an untrained bonus,
    and matters only near the targets' mean."""
    reward = make(width=128, embedding_dim=64, input_dim=132)
    distance_only = replace(reward, config=replace(reward.config, alpha=1.0))
    x = jax.random.uniform(KEY, (64, 132), minval=-1.0)
    moments = jax.vmap(lambda x: target_moments(reward.targets(x)))(x)

    def count_fraction(predictions):
        bonus, distance = (jax.vmap(r.bonus)(predictions, moments) for r in (reward, distance_only))
        return float((1 - 0.9 * distance / bonus).mean())

    noise = 0.05 * jax.random.normal(KEY, moments.mean.shape)
    assert 0.002 < count_fraction(jax.vmap(reward.predictors)(x)[:, 0]) < 0.01
    assert 0.05 < count_fraction(moments.mean + noise * jnp.sqrt(moments.variance)) < 0.3


def test_identical_targets_need_variance_eps():
    moments = target_moments(jnp.ones((K, E)))
    for prediction in (jnp.ones(E), jnp.full(E, 1.5)):
        assert jnp.isfinite(make().bonus(prediction, moments))
        assert not jnp.isfinite(make(variance_eps=0.0).bonus(prediction, moments))


def test_targets_and_predictors_all_differ(reward):
    outputs = np.concatenate([reward.targets(jnp.ones(6)), reward.predictors(jnp.ones(6))])
    assert len({row.tobytes() for row in outputs}) == K + 2


def test_targets_are_part_of_the_state(reward):
    assert {id(leaf) for leaf in jax.tree.leaves(reward.targets)} < {
        id(leaf) for leaf in jax.tree.leaves(eqx.filter(reward, eqx.is_array))
    }


def test_reward_is_computed_from_ema_predictors(reward):
    """After n EMA updates with constant predictors, the copy is off by (1 - rate)^n of the first difference."""
    averaged, x = make(ema_rate=0.1), jnp.ones(6)
    moved = eqx.tree_at(lambda r: r.predictors, averaged, jax.tree.map(lambda p: p + 1.0, averaged.predictors))
    assert moved(x) == averaged(x) == reward(x)
    updated = moved.after_update({}).after_update({}).after_update({})
    for new, old in zip(jax.tree.leaves(updated.ema_predictors), jax.tree.leaves(reward.predictors), strict=True):
        np.testing.assert_allclose(new, old + 1.0 - 0.9**3, rtol=1e-5, atol=1e-6)
    expected = updated.reward(updated.ema_predictors(x), target_moments(updated.targets(x)))
    np.testing.assert_allclose(updated(x), expected)
    assert updated(x) != moved(x)


def test_ema_predictors_are_nearer_to_targets_mean():
    """On a constant input the predictor moves about mu with the sampled targets, its EMA copy much less."""
    x = jnp.linspace(-1.0, 1.0, 6)
    optimizer = optax.adam(3e-3)

    def step(carry, key):
        reward, opt_state = carry
        embeddings = reward.targets(x)
        target_index = jax.random.randint(key, (2,), 0, K)

        def loss(predictors):
            return jnp.sum(jax.vmap(distillation_loss, in_axes=(0, None, 0))(predictors(x), embeddings, target_index))

        updates, opt_state = optimizer.update(jax.grad(loss)(reward.predictors), opt_state)
        predictors = optax.apply_updates(reward.predictors, updates)
        reward = eqx.tree_at(lambda r: r.predictors, reward, predictors).after_update({})
        mean = jnp.mean(embeddings, axis=0)
        return (reward, opt_state), [jnp.sum((p(x) - mean[None]) ** 2) for p in (predictors, reward.ema_predictors)]

    reward = make(ema_rate=0.02)
    start = (reward, optimizer.init(reward.predictors))
    _, (errors, ema_errors) = jax.jit(lambda k: jax.lax.scan(step, start, jax.random.split(k, 2000)))(KEY)
    assert float(ema_errors[1000:].mean()) < 0.5 * float(errors[1000:].mean())


@pytest.mark.parametrize("rate", [1.0, 0.1])
def test_each_half_is_distilled_by_its_own_predictor(config, spec, rate):
    """The reward is that of `CoupledRND.__call__`, computed in the same pass or from EMA copies."""
    algorithm = make_algorithm(replace(config, cdred=replace(config.cdred, ema_rate=rate)), spec)
    state = algorithm.init(jax.random.key(0))
    moved = jax.tree.map(lambda p: p + 0.1, state.reward.predictors)
    state = eqx.tree_at(lambda s: s.reward.predictors, state, moved)
    z = jax.nn.softmax(jax.random.normal(UPDATE_KEY, (8, 4, 16)))
    action = jax.random.uniform(UPDATE_KEY, (8, 3, 2), minval=-1.0)
    segments = Segment(jnp.zeros((8, 4, 3)), action, jnp.zeros((8, 3)), jnp.zeros((8, 4), bool))
    output = jax.jit(algorithm.method.reward_output)(state, LatentBatch(segments, z, z[:, 1:]), UPDATE_KEY)
    x = jnp.concatenate([z[:, :-1], action], axis=-1)
    np.testing.assert_allclose(output.reward, jax.vmap(jax.vmap(state.reward))(x), rtol=1e-4, atol=1e-5)
    targets, predictions = (jax.vmap(jax.vmap(f))(x) for f in (state.reward.targets, state.reward.predictors))
    for half, predictor in ((slice(0, 4), CoupledRND.EXPERT), (slice(4, 8), CoupledRND.AGENT)):
        possible = jnp.sum((predictions[half, :, predictor][:, :, None] - targets[half]) ** 2, axis=-1)
        distance = jnp.abs(possible - output.loss[half][..., None]).min(-1)
        np.testing.assert_allclose(distance, 0.0, atol=1e-4)


def test_one_update_regression(state, update, batch):
    _, metrics = update(state, batch, UPDATE_KEY)
    assert {name: float(metrics[name]) for name in GOLDEN} == pytest.approx(GOLDEN, rel=1e-4)


@pytest.fixture(scope="module")
def trained():
    return {}


@pytest.fixture
def train(config, spec, make_batch, trained):
    """Function that makes 250 updates at debug size with wide embeddings; returns the state and all metrics."""
    sizes = {"embedding_dim": 64, "target_hidden_dims": (64,), "predictor_hidden_dims": (64,)}
    optim = replace(config.optim, learning_rate=3e-3, lr_decay_fraction=0.0, reward_warmup_updates=WARMUP)
    algorithm = make_algorithm(replace(config, cdred=replace(config.cdred, **sizes), optim=optim), spec)

    def step(like_expert, state, key):
        batch_key, update_key = jax.random.split(key)
        return algorithm.update(state, make_batch(batch_key, 8, like_expert), update_key)

    @jax.jit
    def run(key, like_expert):
        state = algorithm.init(key)
        return jax.lax.scan(lambda s, k: step(like_expert, s, k), state, jax.random.split(key, UPDATES))

    def cached(like_expert):
        if like_expert not in trained:
            trained[like_expert] = trained.setdefault("run", run)(jax.random.key(1), jnp.array(like_expert))
        return trained[like_expert]

    return cached


def rewards(state, segments):
    z = jax.vmap(jax.vmap(state.model.encode))(segments.obs[:, :-1])
    return jax.vmap(jax.vmap(state.reward))(jnp.concatenate([z, segments.action], axis=-1))


def test_trained_reward_ranks_expert_above_other_behaviour(train, make_batch):
    state, metrics = train(False)
    margin = metrics["reward_expert"] - metrics["reward_agent"]
    assert abs(float(margin[0])) < 0.5 * abs(float(metrics["reward_agent"][0]))
    assert float(margin[-50:].min()) > 5
    validation = make_batch(jax.random.key(99), 32)
    expert, other = rewards(state, validation.expert), rewards(state, validation.agent)
    assert float(expert.min()) > float(jnp.percentile(other, 95.0))
    assert float(expert.mean()) > float(other.mean()) + 5


def test_warmup_keeps_td_targets_small(train):
    """The first reward is tens a step, thousands over a horizon of 1 / (1 - gamma); critics must never learn it."""
    state, metrics = train(True)
    first = -float(metrics["reward_agent"][0])
    assert 5 < first < 100
    assert float(metrics["td_target_abs_max"][0]) > first
    learned_targets = metrics["td_target_abs_max"][WARMUP:]
    assert float(learned_targets.max()) < 0.02 * first / (1 - GAMMA)
    assert float(learned_targets.max()) < 0.5 * first
    values = jax.vmap(lambda z: state.model.values(state.model.critics, z, jnp.zeros(2)).mean())(
        jax.nn.softmax(jax.random.normal(UPDATE_KEY, (32, 2, 8))).reshape(32, 16)
    )
    assert float(jnp.abs(values).max()) < 0.02 * first / (1 - GAMMA)


@pytest.mark.parametrize("like_expert", [False, True])
def test_metrics_stay_finite(train, like_expert):
    assert all(jnp.isfinite(series).all() for series in train(like_expert)[1].values())


BONUSES = {"expert_bonus_on_expert": jnp.float32(0.2), "agent_bonus_on_agent": jnp.float32(0.3)}


@pytest.mark.parametrize(
    ("schedule", "expert_on_agent", "expected"),
    [
        # Half as close to the expert as the expert is: halfway from 0.6 to 1.
        ("overlap", 0.4, 0.8),
        ("overlap", 0.2, 1.0),
        # Closer than that is not more than 1, and bonuses of 0 are finite.
        ("overlap", 0.1, 1.0),
        ("overlap", 0.0, 1.0),
        # Of equal bonuses: as given.
        ("ratio", 0.3, 0.6),
        # zeta 0.9 = (1 - zeta) 0.3 / (0.4 / 0.6)
        ("ratio", 0.9, 1 / 3),
    ],
)
def test_adaptive_weight_by_hand(schedule, expert_on_agent, expected):
    config = CDREDConfig(zeta=0.6, zeta_schedule=schedule)
    zeta = float(target_zeta(config, BONUSES | {"expert_bonus_on_agent": jnp.float32(expert_on_agent)}))
    assert zeta == pytest.approx(expected, rel=1e-5)
    if schedule == "ratio":
        assert (1 - zeta) * 0.3 == pytest.approx(0.4 / 0.6 * zeta * expert_on_agent, rel=1e-5)


def test_adaptive_weight_moves_by_its_rate_and_sets_the_reward():
    reward = make(zeta=0.6, zeta_schedule="overlap", zeta_rate=0.25)
    assert float(reward.zeta) == pytest.approx(0.6)
    moved = reward.after_update(BONUSES | {"expert_bonus_on_agent": jnp.float32(0.2)})
    assert float(moved.zeta) == pytest.approx(0.7)
    value = moved.combine(jnp.array(0.3), jnp.array(0.8))
    assert float(value) == pytest.approx(-0.7 * 0.3 + 0.3 * 0.8, rel=1e-5)
    # The constant one is no array, and does not move.
    assert make(zeta=0.6).after_update(BONUSES).zeta == 0.6
    assert make(zeta=0.6).adaptive_zeta is None


def test_metrics_have_the_mean_bonuses_of_both_halves(reward):
    x = jax.random.normal(KEY, (4, 3, 6))
    metrics = cdred_reward(reward, x, KEY).metrics
    agent = x[2:].reshape(-1, 6)
    bonuses = jax.vmap(lambda v: reward.reward_and_bonuses(reward.predictors(v), target_moments(reward.targets(v)))[1])(
        agent
    )
    assert float(metrics["expert_bonus_on_agent"]) == pytest.approx(float(bonuses[:, 0].mean()), rel=1e-4)
    assert float(metrics["agent_bonus_on_agent"]) == pytest.approx(float(bonuses[:, 1].mean()), rel=1e-4)
    expert = jax.vmap(reward.expert_novelty)(x[:2].reshape(-1, 6))
    assert float(metrics["expert_bonus_on_expert"]) == pytest.approx(float(expert.mean()), rel=1e-4)
    assert float(metrics["zeta"]) == pytest.approx(0.8)


@pytest.mark.parametrize("flows", [False, True])
def test_loss_reaches_the_input_only_if_asked_and_the_reward_never_does(flows):
    reward, x = make(input_gradient=flows), jax.random.normal(KEY, (4, 3, 6))
    loss = jax.grad(lambda x: cdred_reward(reward, x, KEY).loss.sum())(x)
    assert bool(jnp.any(loss != 0)) == flows
    assert not jnp.any(jax.grad(lambda x: cdred_reward(reward, x, KEY).reward.sum())(x))


@pytest.mark.parametrize("algo", ["cdred", "cdred-sac"])
def test_adaptive_weight_follows_the_bonuses_of_updates(config, spec, batch, algo):
    cdred = replace(config.cdred, zeta_schedule="overlap", zeta_rate=0.5)
    algorithm = make_algorithm(replace(config, algo=algo, cdred=cdred), spec)
    state = algorithm.init(KEY)
    updated, metrics = jax.jit(algorithm.update)(state, batch, UPDATE_KEY)
    target = float(target_zeta(cdred, metrics))
    assert float(metrics["zeta"]) == pytest.approx(0.8)
    assert 0.8 < target <= 1
    assert float(updated.reward.zeta) == pytest.approx(0.8 + 0.5 * (target - 0.8), rel=1e-5)


@pytest.mark.parametrize("flows", [False, True])
def test_densities_train_the_encoder_only_if_asked(config, spec, batch, flows):
    """Of all losses only that of the densities has a weight."""
    weights = {"consistency_coef": 0.0, "value_coef": 0.0, "termination_coef": 0.0, "bc_encoder_coef": 0.0}
    changed = replace(
        config,
        cdred=replace(config.cdred, input_gradient=flows),
        optim=replace(config.optim, reward_coef=1.0, **weights),
    )
    algorithm = make_algorithm(changed, spec)
    state = algorithm.init(KEY)
    grads, _ = jax.grad(algorithm.model_loss, has_aux=True)(state.trainable, state, batch, UPDATE_KEY)
    trained = {
        name: any(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(getattr(grads, name)))
        for name in ("encoder", "dynamics", "reward")
    }
    assert trained == {"encoder": flows, "dynamics": flows, "reward": True}
