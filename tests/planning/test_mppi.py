"""MPPI on values whose best action sequence is known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.planning.mppi import MPPI, MPPIState

KEY = jax.random.key(0)
H, A = 3, 2
GREEDY, EXPLORE = jnp.array(False), jnp.array(True)
TARGET = jnp.array([[0.5, -0.3], [-0.7, 0.0], [0.2, 0.9]])


def make(**changes):
    settings = {
        "horizon": H,
        "num_samples": 512,
        "num_pi_trajs": 8,
        "num_elites": 32,
        "iterations": 10,
        "temperature": 0.5,
        "min_std": 0.05,
        "max_std": 2.0,
        "explore_min_std": 0.05,
    }
    return MPPI(**(settings | changes))


def plan(mppi, value, *, proposals=None, key=KEY, explore=GREEDY, state=None):
    proposals = jnp.zeros((mppi.num_pi_trajs, H, A)) if proposals is None else proposals
    state = MPPIState.create(H, A) if state is None else state
    return jax.jit(lambda p, k, e, s: mppi.plan(s, p, value, k, e))(proposals, key, explore, state)


def towards(target):
    return lambda actions: -10 * jnp.sum((actions - target) ** 2)


@pytest.mark.parametrize("target", [TARGET, jnp.zeros((H, A)), jnp.ones((H, A)), jnp.full((H, A), -1.0)])
def test_finds_the_optimum_of_a_quadratic(target):
    action, state = plan(make(), towards(target))
    np.testing.assert_allclose(state.mean, target, atol=0.05)
    np.testing.assert_allclose(action, target[0], atol=0.15)


def test_an_optimum_beyond_the_bounds_is_sought_at_the_bounds():
    action, state = plan(make(), towards(jnp.full((H, A), 3.0)))
    np.testing.assert_allclose(state.mean, 1.0, atol=0.03)
    assert jnp.abs(action).max() <= 1


def test_more_iterations_come_closer():
    errors = [float(jnp.abs(plan(make(iterations=n), towards(TARGET))[1].mean - TARGET).max()) for n in (2, 10)]
    assert errors[1] < 0.3 * errors[0]


@jax.jit
@partial(jax.vmap, in_axes=(0, None, None))
def plan_below(key, border, bad):
    def value(actions):
        return jnp.where(actions[0, 0] > border, bad, -10 * (actions[0, 0] - 1.0) ** 2 - 1.0)

    return make(num_samples=48).plan(MPPIState.create(H, A), jnp.full((8, H, A), -0.9), value, key, GREEDY)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize("border", [0.0, -0.8])
def test_sequences_of_non_finite_value_are_never_elites(bad, border):
    """All finite values are negative, so one that were mapped to 0 would win; at -0.8 fewer are finite than elites."""
    action, state = plan_below(jax.random.split(KEY, 20), border, bad)
    assert jnp.isfinite(state.mean).all()
    assert action[:, 0].max() <= border
    assert border - 0.15 < state.mean[:, 0, 0].min()
    assert state.mean[:, 0, 0].max() <= border


def test_a_proposal_better_than_all_samples_is_taken_exactly():
    proposals = jax.random.uniform(KEY, (8, H, A), minval=-1.0)
    best = proposals[3]
    action, state = plan(
        make(), lambda a: jnp.where(jnp.abs(a - best).max() < 1e-6, 1e4, -jnp.sum(a**2)), proposals=proposals
    )
    np.testing.assert_array_equal(action, best[0])
    np.testing.assert_allclose(state.mean, best, rtol=1e-5)


def test_without_exploration_a_key_decides_the_action():
    first, again = (plan(make(), towards(TARGET)) for _ in range(2))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, first, again))
    other, _ = plan(make(), towards(TARGET), key=jax.random.key(1))
    assert not jnp.array_equal(other, first[0])


@jax.jit
@partial(jax.vmap, in_axes=(0, None, None))
def act(key, explore, target):
    mppi, state = make(min_std=0.1, explore_min_std=0.1), MPPIState.create(H, A)
    return mppi.plan(state, jnp.zeros((8, H, A)), towards(target), key, explore)[0]


def test_exploration_adds_the_plans_own_noise():
    keys = jax.random.split(KEY, 200)
    noise = act(keys, EXPLORE, TARGET) - act(keys, GREEDY, TARGET)
    assert float(noise.std()) == pytest.approx(0.1, rel=0.15)
    assert abs(float(noise.mean())) < 4 * 0.1 / np.sqrt(noise.size)


def test_a_plan_stays_wide_only_while_exploring():
    mppi = make(min_std=0.02, explore_min_std=0.3)
    greedy, explored = (
        jax.vmap(lambda k, e=e: plan(mppi, towards(TARGET), key=k, explore=e)[0])(jax.random.split(KEY, 200))
        for e in (GREEDY, EXPLORE)
    )
    assert float(greedy.std(axis=0).max()) < 0.05
    # Elites of a distribution that wide, and its noise, within the bounds.
    assert float(explored.std(axis=0).min()) > 0.25


def test_exploration_stays_within_the_bounds():
    actions = act(jax.random.split(KEY, 200), EXPLORE, jnp.ones((H, A)))
    assert float(actions.max()) == 1.0
    assert float(actions.min()) < 0.9


def test_a_plan_is_shifted_by_one_decision():
    state = MPPIState(jnp.arange(6.0).reshape(3, 2)).shifted()
    np.testing.assert_array_equal(state.mean, [[2.0, 3.0], [4.0, 5.0], [0.0, 0.0]])


def test_planning_starts_from_the_last_plan_shifted():
    mppi = make(iterations=1, min_std=1e-6, max_std=1e-6, explore_min_std=1e-6)
    state = MPPIState(TARGET)
    _, planned = plan(mppi, lambda a: jnp.where(jnp.all(a == 0), -1e9, -jnp.sum(a**2)), state=state)
    np.testing.assert_allclose(planned.mean, state.shifted().mean, atol=1e-4)


def test_the_first_plan_of_an_episode_is_zero():
    np.testing.assert_array_equal(MPPIState.create(H, A).mean, jnp.zeros((H, A)))


def test_elites_are_weighted_by_their_value():
    candidates = jnp.array([0.0, 0.5, -0.5, 0.9]).reshape(4, 1, 1)
    values = jnp.array([0.0, 2.0, 1.0, -50.0])
    mean, std, elites, logits = make(num_elites=3, horizon=1)._fit(candidates, values, jnp.array(0.05))
    weight = np.exp([0.0, -0.5, -1.0])
    weight /= weight.sum()
    ranked = np.array([0.5, -0.5, 0.0])
    np.testing.assert_allclose(elites[:, 0, 0], ranked)
    np.testing.assert_allclose(logits, [0.0, -0.5, -1.0])
    assert mean[0, 0] == pytest.approx(weight @ ranked, rel=1e-5)
    assert std[0, 0] == pytest.approx(np.sqrt(weight @ (ranked - weight @ ranked) ** 2), rel=1e-5)


@pytest.mark.parametrize("explore", [GREEDY, EXPLORE])
def test_where_no_sequence_has_a_finite_value_the_action_is_no_number(explore):
    """Trap 4: the first candidate must not pass for a plan."""
    mppi = make(iterations=2, num_samples=64)
    for bad in (jnp.nan, jnp.inf, -jnp.inf):
        action, _ = plan(mppi, lambda actions, bad=bad: bad + 0.0 * actions.sum(), explore=explore)
        assert not jnp.isfinite(action).any()
    # One that has is a plan.
    action, _ = plan(mppi, lambda actions: jnp.where((actions == 0).all(), 1.0, jnp.nan))
    np.testing.assert_array_equal(action, 0.0)
