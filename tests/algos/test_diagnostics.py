"""Signs of health on cases whose answers are known."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.algos.base import Batch
from cdred.algos.diagnostics import expert_bonus, mean_abs_q, unexplained
from cdred.algos.factory import make_algorithm
from cdred.models.actor_critic import ActorCritic
from cdred.models.world_model import WorldModel

KEY = jax.random.key(3)
ALL = jnp.ones(64, bool)


def test_dynamics_that_are_perfect_miss_nothing_and_those_that_say_the_mean_miss_everything():
    actual = jax.random.normal(KEY, (64, 5)) * 3.0 + 7.0
    centre = jnp.tile(actual.mean(0), (64, 1))
    assert float(unexplained(actual, actual, ALL, actual, ALL)) == 0.0
    assert float(unexplained(centre, actual, ALL, actual, ALL)) == pytest.approx(1.0, rel=1e-5)
    half = centre + (actual - centre) / 2
    assert float(unexplained(half, actual, ALL, actual, ALL)) == pytest.approx(0.25, rel=1e-5)


def test_rows_that_do_not_count_change_nothing_and_without_rows_there_is_no_number():
    actual, marked = jax.random.normal(KEY, (64, 5)), jnp.arange(64) < 40
    strange = jnp.where(marked[:, None], actual + 1.0, 1e9)
    expected = unexplained(actual[:40] + 1.0, actual[:40], ALL[:40], actual[:40], ALL[:40])
    assert float(unexplained(strange, actual, marked, actual, marked)) == pytest.approx(float(expected), rel=1e-5)
    assert np.isnan(unexplained(actual, actual, ~ALL, actual, ALL))
    assert not np.isfinite(unexplained(actual, actual + 1.0, ALL, jnp.ones((64, 5)), ALL))


@pytest.fixture(scope="module")
def kept():
    return {}


@pytest.fixture
def state(algorithm, kept):
    if "state" not in kept:
        kept["state"] = jax.jit(algorithm.init)(KEY)
    return kept["state"]


def test_a_world_model_is_asked_for_the_end_of_its_horizon(algorithm, state, batch, monkeypatch):
    """A world in which the action is added to what is seen, and models that make more of it, or just that."""
    moved = jnp.concatenate([jnp.zeros((8, 1, 2)), jnp.cumsum(batch.agent.action, axis=1)], axis=1)
    obs = batch.agent.obs[:, :1, :2] + moved
    own = batch.agent._replace(obs=jnp.pad(obs, ((0, 0), (0, 0), (0, 1))))
    monkeypatch.setattr("cdred.algos.world_model_agent.signs", lambda *_: {})
    monkeypatch.setattr(WorldModel, "absorbing", property(lambda _: jnp.zeros(2)))
    monkeypatch.setattr(WorldModel, "encode", lambda _, obs: obs[:2])

    def error(factor):
        rollout = lambda _, z, action, _over: jnp.stack([z, z + factor * action.sum(0)])  # noqa: E731
        monkeypatch.setattr(WorldModel, "rollout", rollout)
        return float(algorithm.diagnostics(state, Batch(None, own), own, jnp.ones(8, bool))["open_loop_fvu"])

    seen = np.asarray(obs).reshape(-1, 2)
    spread = ((seen - seen.mean(0)) ** 2).sum(-1).mean()
    missed = (np.asarray(moved[:, -1]) ** 2).sum(-1).mean()
    assert error(1.0) == pytest.approx(0.0, abs=1e-10)
    assert error(1.5) == pytest.approx(0.25 * missed / spread, rel=1e-4)


def test_critics_that_say_one_value_have_its_scale(state, batch, monkeypatch):
    monkeypatch.setattr(ActorCritic, "values", lambda *_: jnp.array([-4.0, 2.0, 3.0]))
    assert float(mean_abs_q(state.model, batch.expert)) == pytest.approx(3.0)


def test_the_experts_bonus_falls_where_the_predictor_meets_the_targets(state, batch):
    bonus = jax.jit(lambda reward: expert_bonus(reward, state.model, batch.expert))
    fresh = float(bonus(state.reward))
    assert fresh > 0.1
    # Targets that are all one, and predictors that are that one.
    same = jax.tree.map(lambda x: jnp.stack([x[0]] * len(x)), state.reward.targets)
    pair = jax.tree.map(lambda x: x[:2], same)
    assert float(bonus(eqx.tree_at(lambda r: (r.targets, r.averages), state.reward, (same, pair)))) < 0.01 * fresh


def test_held_out_data_that_is_the_learned_has_its_bonus(algorithm, state, batch):
    batch = batch._replace(validation=batch.expert)
    signs = jax.jit(algorithm.diagnostics)(state, batch, batch.agent, jnp.ones(8, bool))
    assert all(np.isfinite(value) for value in signs.values())
    assert float(signs["novelty_validation"]) == float(signs["novelty_expert"])


@pytest.mark.parametrize(
    ("algo", "signs"),
    [
        ("cdred", {"mean_abs_q", "novelty_expert", "novelty_validation", "open_loop_fvu"}),
        ("gail", {"mean_abs_q", "open_loop_fvu"}),
        ("iqmpc", {"mean_abs_q", "open_loop_fvu"}),
        ("red-sac", {"mean_abs_q", "novelty_expert", "novelty_validation"}),
        ("bc", set()),
    ],
)
def test_a_method_shows_the_signs_that_it_has(config, spec, batch, algo, signs):
    algorithm = make_algorithm(replace(config, algo=algo), spec)
    batch = batch._replace(validation=batch.expert)
    shown = jax.eval_shape(lambda: algorithm.diagnostics(algorithm.init(KEY), batch, batch.agent, jnp.ones(8, bool)))
    assert set(shown) == signs
