"""Diagnostics on cases with known values."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.algos.base import Batch
from cdred.algos.diagnostics import (
    action_error,
    dynamics_error_ratio,
    expert_novelty,
    fraction_variance_unexplained,
    gradient_share,
    mean_abs_q,
)
from cdred.algos.factory import make_algorithm
from cdred.models.actor_critic import ActorCritic
from cdred.models.world_model import WorldModel

KEY = jax.random.key(3)
ALL = jnp.ones(64, bool)


def test_unexplained_variance_of_known_predictions():
    actual = jax.random.normal(KEY, (64, 5)) * 3.0 + 7.0
    mean = jnp.tile(actual.mean(0), (64, 1))
    assert float(fraction_variance_unexplained(actual, actual, ALL, actual, ALL)) == 0.0
    assert float(fraction_variance_unexplained(mean, actual, ALL, actual, ALL)) == pytest.approx(1.0, rel=1e-5)
    halfway = mean + (actual - mean) / 2
    assert float(fraction_variance_unexplained(halfway, actual, ALL, actual, ALL)) == pytest.approx(0.25, rel=1e-5)


def test_unexplained_variance_uses_only_valid_rows():
    actual, valid = jax.random.normal(KEY, (64, 5)), jnp.arange(64) < 40
    predicted = jnp.where(valid[:, None], actual + 1.0, 1e9)
    expected = fraction_variance_unexplained(actual[:40] + 1.0, actual[:40], ALL[:40], actual[:40], ALL[:40])
    got = fraction_variance_unexplained(predicted, actual, valid, actual, valid)
    assert float(got) == pytest.approx(float(expected), rel=1e-5)


def test_unexplained_variance_without_rows_is_not_finite():
    actual = jax.random.normal(KEY, (64, 5))
    assert np.isnan(fraction_variance_unexplained(actual, actual, ~ALL, actual, ALL))
    assert not np.isfinite(fraction_variance_unexplained(actual, actual + 1.0, ALL, jnp.ones((64, 5)), ALL))


def test_open_loop_error_is_at_end_of_horizon(algorithm, initial_state, batch, monkeypatch):
    """In this environment the action is added to the observation; the model adds `factor` times the action."""
    moved = jnp.concatenate([jnp.zeros((8, 1, 2)), jnp.cumsum(batch.agent.action, axis=1)], axis=1)
    obs = batch.agent.obs[:, :1, :2] + moved
    agent = batch.agent._replace(obs=jnp.pad(obs, ((0, 0), (0, 0), (0, 1))))
    monkeypatch.setattr("cdred.algos.world_model_agent.diagnostics", lambda *_: {})
    monkeypatch.setattr(WorldModel, "absorbing_latent", property(lambda _: jnp.zeros(2)))
    monkeypatch.setattr(WorldModel, "encode", lambda _, obs: obs[:2])

    def error(factor):
        rollout = lambda _, z, action, _absorbing: jnp.stack([z, z + factor * action.sum(0)])  # noqa: E731
        monkeypatch.setattr(WorldModel, "rollout", rollout)
        metrics = algorithm.diagnostics(initial_state, Batch(None, agent), agent, jnp.ones(8, bool), KEY)
        return float(metrics["open_loop_fvu"])

    flat = np.asarray(obs).reshape(-1, 2)
    variance = ((flat - flat.mean(0)) ** 2).sum(-1).mean()
    squared_distance = (np.asarray(moved[:, -1]) ** 2).sum(-1).mean()
    assert error(1.0) == pytest.approx(0.0, abs=1e-10)
    assert error(1.5) == pytest.approx(0.25 * squared_distance / variance, rel=1e-4)


def test_mean_abs_q_of_constant_critics(initial_state, batch, monkeypatch):
    monkeypatch.setattr(ActorCritic, "values", lambda *_: jnp.array([-4.0, 2.0, 3.0]))
    assert float(mean_abs_q(initial_state.model, batch.expert)) == pytest.approx(3.0)


def test_expert_novelty_falls_where_predictor_fits(initial_state, batch):
    state = initial_state
    novelty = jax.jit(lambda reward: expert_novelty(reward, state.model, "state-action", batch.expert))
    initial = float(novelty(state.reward))
    assert initial > 0.1
    # Targets that are all the same network, and predictors that equal it.
    same = jax.tree.map(lambda x: jnp.stack([x[0]] * len(x)), state.reward.targets)
    pair = jax.tree.map(lambda x: x[:2], same)
    fitted = eqx.tree_at(lambda r: (r.targets, r.ema_predictors), state.reward, (same, pair))
    assert float(novelty(fitted)) < 0.01 * initial


def test_validation_data_equal_to_expert_has_its_novelty(algorithm, initial_state, batch):
    batch = batch._replace(validation=batch.expert)
    metrics = jax.jit(algorithm.diagnostics)(initial_state, batch, batch.agent, jnp.ones(8, bool), KEY)
    assert all(np.isfinite(value) for value in metrics.values())
    assert float(metrics["novelty_validation"]) == float(metrics["novelty_expert"])


def test_dynamics_error_ratio_compares_with_no_change():
    start, actual = jnp.zeros((4, 2)), jnp.array([[3.0, 4.0]] * 4)
    valid = jnp.array([True, True, False, False])
    predicted = actual.at[0].add(5.0).at[3].add(99.0)
    # Squared errors 50 and 0, squared changes 25.
    assert float(dynamics_error_ratio(predicted, start, actual, valid)) == pytest.approx(1.0)
    assert float(dynamics_error_ratio(start, start, actual, valid)) == 1.0
    assert not np.isfinite(dynamics_error_ratio(predicted, start, actual, ~ALL[:4]))


def test_gradient_share_is_of_the_norms():
    part, rest = {"a": jnp.array([3.0, 4.0])}, {"a": jnp.array([0.0, 15.0])}
    assert float(gradient_share(part, rest)) == pytest.approx(0.25)


def test_action_error_leaves_absorbing_states_out(initial_state, batch):
    model, segments = initial_state.model, batch.expert
    expected = [
        float(jnp.sum((model.pi(model.encode(segments.obs[n, t])).mode - segments.action[n, t]) ** 2))
        for n, t in ((0, 0), (1, 0), (1, 1), (1, 2))
    ]
    two = jax.tree.map(lambda x: x[:2], segments)
    two = two._replace(absorbing=two.absorbing.at[0, 1:].set(True))
    assert float(action_error(model, two)) == pytest.approx(np.mean(expected), rel=1e-5)


POLICY_NAMES = {"mean_abs_q", "q_gradient_share", "action_error_validation"}


@pytest.mark.parametrize(
    ("algo", "names"),
    [
        ("cdred", {"novelty_expert", "novelty_validation", "open_loop_fvu", "dynamics_error_ratio"} | POLICY_NAMES),
        ("gail", {"open_loop_fvu", "dynamics_error_ratio"} | POLICY_NAMES),
        ("iqmpc", {"open_loop_fvu", "dynamics_error_ratio"} | POLICY_NAMES),
        ("red-sac", {"novelty_expert", "novelty_validation"} | POLICY_NAMES),
        ("bc", set()),
    ],
)
def test_each_algorithm_logs_its_diagnostics(config, spec, batch, algo, names):
    algorithm = make_algorithm(replace(config, algo=algo), spec)
    batch = batch._replace(validation=batch.expert)
    args = (batch, batch.agent, jnp.ones(8, bool), KEY)
    metrics = jax.eval_shape(lambda: algorithm.diagnostics(algorithm.init(KEY), *args))
    assert set(metrics) == names
