"""MPPI on trajectory values with a known optimum."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.planning.mppi import MPPI, Fallback, MPPIConfig, MPPIState

KEY = jax.random.key(0)
H, A = 3, 2
GREEDY, EXPLORE = jnp.array(False), jnp.array(True)
TARGET = jnp.array([[0.5, -0.3], [-0.7, 0.0], [0.2, 0.9]])


def make(**changes):
    return MPPI(MPPIConfig(**({"horizon": H, "num_pi_trajs": 8, "num_elites": 32, "iterations": 10} | changes)))


def plan(mppi, value, *, policy_actions=None, key=KEY, explore=GREEDY, state=None):
    policy_actions = jnp.zeros((mppi.config.num_pi_trajs, H, A)) if policy_actions is None else policy_actions
    state = MPPIState.create(H, A) if state is None else state
    return jax.jit(lambda p, k, e, s: mppi.plan(s, p, value, k, e))(policy_actions, key, explore, state)


def quadratic(target):
    return lambda actions: -10 * jnp.sum((actions - target) ** 2)


@pytest.mark.parametrize("target", [TARGET, jnp.zeros((H, A)), jnp.ones((H, A)), jnp.full((H, A), -1.0)])
def test_plan_converges_to_optimum_of_quadratic(target):
    action, state = plan(make(), quadratic(target))
    np.testing.assert_allclose(state.mean, target, atol=0.05)
    np.testing.assert_allclose(action, target[0], atol=0.15)


def test_optimum_beyond_bounds_is_planned_at_bounds():
    action, state = plan(make(), quadratic(jnp.full((H, A), 3.0)))
    np.testing.assert_allclose(state.mean, 1.0, atol=0.03)
    assert jnp.abs(action).max() <= 1


def test_more_iterations_reduce_error():
    errors = [float(jnp.abs(plan(make(iterations=n), quadratic(TARGET))[1].mean - TARGET).max()) for n in (2, 10)]
    assert errors[1] < 0.3 * errors[0]


@jax.jit
@partial(jax.vmap, in_axes=(0, None, None))
def plan_below(key, threshold, bad):
    def value(actions):
        return jnp.where(actions[0, 0] > threshold, bad, -10 * (actions[0, 0] - 1.0) ** 2 - 1.0)

    return make(num_samples=48).plan(MPPIState.create(H, A), jnp.full((8, H, A), -0.9), value, key, GREEDY)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize("threshold", [0.0, -0.8])
def test_sequences_of_non_finite_value_are_never_elites(bad, threshold):
    """All finite values are negative, so one that is mapped to 0 would win; at -0.8 fewer are finite than elites."""
    action, state = plan_below(jax.random.split(KEY, 20), threshold, bad)
    assert jnp.isfinite(state.mean).all()
    assert action[:, 0].max() <= threshold
    assert threshold - 0.15 < state.mean[:, 0, 0].min()
    assert state.mean[:, 0, 0].max() <= threshold


def test_best_policy_action_sequence_is_taken_exactly():
    policy_actions = jax.random.uniform(KEY, (8, H, A), minval=-1.0)
    best = policy_actions[3]

    def value(actions):
        return jnp.where(jnp.abs(actions - best).max() < 1e-6, 1e4, -jnp.sum(actions**2))

    action, state = plan(make(), value, policy_actions=policy_actions)
    np.testing.assert_array_equal(action, best[0])
    np.testing.assert_allclose(state.mean, best, rtol=1e-5)


def test_same_key_gives_same_action():
    first, second = (plan(make(), quadratic(TARGET)) for _ in range(2))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, first, second))
    other, _ = plan(make(), quadratic(TARGET), key=jax.random.key(1))
    assert not jnp.array_equal(other, first[0])


@jax.jit
@partial(jax.vmap, in_axes=(0, None, None))
def act(key, explore, target):
    mppi, state = make(min_std=0.1, explore_min_std=0.1), MPPIState.create(H, A)
    return mppi.plan(state, jnp.zeros((8, H, A)), quadratic(target), key, explore)[0]


def test_exploration_noise_has_plans_std():
    keys = jax.random.split(KEY, 200)
    noise = act(keys, EXPLORE, TARGET) - act(keys, GREEDY, TARGET)
    assert float(noise.std()) == pytest.approx(0.1, rel=0.15)
    assert abs(float(noise.mean())) < 4 * 0.1 / np.sqrt(noise.size)


def test_explore_min_std_applies_only_when_exploring():
    mppi = make(min_std=0.02, explore_min_std=0.3)
    greedy, explored = (
        jax.vmap(lambda k, e=e: plan(mppi, quadratic(TARGET), key=k, explore=e)[0])(jax.random.split(KEY, 200))
        for e in (GREEDY, EXPLORE)
    )
    assert float(greedy.std(axis=0).max()) < 0.05
    # The elites' spread and the exploration noise, clipped to the bounds.
    assert float(explored.std(axis=0).min()) > 0.25


def test_exploring_actions_stay_within_bounds():
    actions = act(jax.random.split(KEY, 200), EXPLORE, jnp.ones((H, A)))
    assert float(actions.max()) == 1.0
    assert float(actions.min()) < 0.9


def test_shifted_plan_drops_first_action():
    state = MPPIState(jnp.arange(6.0).reshape(3, 2)).shifted()
    np.testing.assert_array_equal(state.mean, [[2.0, 3.0], [4.0, 5.0], [0.0, 0.0]])


def test_planning_starts_from_shifted_plan():
    mppi = make(iterations=1, min_std=1e-6, max_std=1e-6, explore_min_std=1e-6)
    state = MPPIState(TARGET)
    _, planned = plan(mppi, lambda a: jnp.where(jnp.all(a == 0), -1e9, -jnp.sum(a**2)), state=state)
    np.testing.assert_allclose(planned.mean, state.shifted().mean, atol=1e-4)


def test_initial_plan_is_zero():
    np.testing.assert_array_equal(MPPIState.create(H, A).mean, jnp.zeros((H, A)))


def test_elites_are_weighted_by_their_value():
    candidates = jnp.array([0.0, 0.5, -0.5, 0.9]).reshape(4, 1, 1)
    values = jnp.array([0.0, 2.0, 1.0, -50.0])
    mean, std, elites, logits = make(num_elites=3, horizon=1)._refit(candidates, values, jnp.array(0.05))
    weight = np.exp([0.0, -0.5, -1.0])
    weight /= weight.sum()
    ranked = np.array([0.5, -0.5, 0.0])
    np.testing.assert_allclose(elites[:, 0, 0], ranked)
    np.testing.assert_allclose(logits, [0.0, -0.5, -1.0])
    assert mean[0, 0] == pytest.approx(weight @ ranked, rel=1e-5)
    assert std[0, 0] == pytest.approx(np.sqrt(weight @ (ranked - weight @ ranked) ** 2), rel=1e-5)


@pytest.mark.parametrize("explore", [GREEDY, EXPLORE])
def test_without_finite_values_action_is_not_finite(explore):
    """The elites are arbitrary then, and their action must not pass for a plan."""
    mppi = make(iterations=2, num_samples=64)
    for bad in (jnp.nan, jnp.inf, -jnp.inf):
        action, _ = plan(mppi, lambda actions, bad=bad: bad + 0.0 * actions.sum(), explore=explore)
        assert not jnp.isfinite(action).any()
    # A single sequence of finite value is enough.
    action, _ = plan(mppi, lambda actions: jnp.where((actions == 0).all(), 1.0, jnp.nan))
    np.testing.assert_array_equal(action, 0.0)


@pytest.mark.parametrize("explore", [GREEDY, EXPLORE])
def test_fallback_is_taken_unless_the_plan_is_better(explore):
    mppi, value = make(explore_min_std=0.3), quadratic(TARGET)

    def act(actions, is_better):
        args = MPPIState.create(H, A), jnp.zeros((8, H, A)), value, KEY, explore, Fallback(actions, is_better)
        return jax.jit(lambda: mppi.plan(*args)[0])()

    far = jnp.full((H, A), -0.9)
    planned, kept = act(far, lambda _: jnp.array(True)), act(far, lambda _: jnp.array(False))
    # Exploration adds the same noise to both.
    np.testing.assert_allclose(planned - kept, TARGET[0] - far[0], atol=0.15)
    np.testing.assert_allclose(act(far, lambda plan: value(plan) > value(far)), planned)


def test_fallback_is_a_candidate_of_the_plan():
    """A narrow optimum that no sampled sequence hits."""
    value = lambda actions: -1e4 * jnp.sum((actions - TARGET) ** 2)  # noqa: E731
    fallback = Fallback(TARGET, lambda _: jnp.array(True))
    mppi = make(iterations=1, num_elites=1, temperature=0.0)
    planned = jax.jit(
        lambda: mppi.plan(MPPIState.create(H, A), jnp.zeros((8, H, A)), value, KEY, GREEDY, fallback)[0]
    )()
    np.testing.assert_allclose(planned, TARGET[0])
