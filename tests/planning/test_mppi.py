"""MPPI on values whose best action sequence is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.planning.mppi import MPPI, PlanState

KEY = jax.random.key(0)
H, A = 3, 2
Z = jnp.zeros(4)
GREEDY, EXPLORE = jnp.array(False), jnp.array(True)
TARGET = jnp.array([[0.5, -0.3], [-0.7, 0.0], [0.2, 0.9]])


def make(**changes):
    settings = {
        "horizon": H,
        "num_samples": 256,
        "num_pi_trajs": 8,
        "num_elites": 32,
        "iterations": 6,
        "temperature": 0.5,
        "min_std": 0.05,
        "max_std": 2.0,
    }
    return MPPI(**(settings | changes))


def plan(mppi, value, *, proposals=None, key=KEY, explore=GREEDY, state=None):
    proposals = jnp.zeros((mppi.num_pi_trajs, H, A)) if proposals is None else proposals
    state = PlanState.create(H, A) if state is None else state
    return jax.jit(lambda p, k, e, s: mppi.plan(Z, s, p, value, k, e))(proposals, key, explore, state)


def towards(target):
    return lambda z, actions: -10 * jnp.sum((actions - target) ** 2) + 0 * jnp.sum(z)


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
    errors = [float(jnp.abs(plan(make(iterations=n), towards(TARGET))[1].mean - TARGET).max()) for n in (1, 6)]
    assert errors[1] < 0.3 * errors[0]


def test_the_latent_reaches_the_value():
    mppi = make()
    value = lambda z, actions: -10 * jnp.sum((actions - z[0]) ** 2)  # noqa: E731
    proposals = jnp.zeros((8, H, A))
    for goal in (-0.6, 0.6):
        _, state = mppi.plan(jnp.full(4, goal), PlanState.create(H, A), proposals, value, KEY, GREEDY)
        np.testing.assert_allclose(state.mean, goal, atol=0.05)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize("border", [0.0, -0.8])
def test_sequences_of_non_finite_value_are_never_elites(bad, border):
    """All finite values are negative, so one that were mapped to 0 would win; at -0.8 fewer are finite than elites."""

    def value(_, actions):
        return jnp.where(actions[0, 0] > border, bad, -10 * (actions[0, 0] - 1.0) ** 2 - 1.0)

    proposals = jnp.full((8, H, A), -0.9)
    for key in jax.random.split(KEY, 5):
        action, state = plan(make(num_samples=48), value, proposals=proposals, key=key)
        assert jnp.isfinite(state.mean).all()
        assert action[0] <= border
        assert state.mean[0, 0] <= border
        assert state.mean[0, 0] > -1


def test_a_proposal_better_than_all_samples_is_taken_exactly():
    proposals = jax.random.uniform(KEY, (8, H, A), minval=-1.0)
    best = proposals[3]
    action, state = plan(
        make(), lambda _, a: jnp.where(jnp.abs(a - best).max() < 1e-6, 1e4, -jnp.sum(a**2)), proposals=proposals
    )
    np.testing.assert_array_equal(action, best[0])
    np.testing.assert_allclose(state.mean, best, rtol=1e-5)


def test_without_exploration_a_key_decides_the_action():
    first, again = (plan(make(), towards(TARGET)) for _ in range(2))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, first, again))
    other, _ = plan(make(), towards(TARGET), key=jax.random.key(1))
    assert not jnp.array_equal(other, first[0])


def test_exploration_adds_the_plans_own_noise():
    mppi = make(min_std=0.1)
    keys = jax.random.split(KEY, 400)
    act = jax.jit(
        jax.vmap(
            lambda k, e: mppi.plan(Z, PlanState.create(H, A), jnp.zeros((8, H, A)), towards(TARGET), k, e)[0], (0, None)
        )
    )
    noise = act(keys, EXPLORE) - act(keys, GREEDY)
    assert float(noise.std()) == pytest.approx(0.1, rel=0.1)
    assert abs(float(noise.mean())) < 4 * 0.1 / np.sqrt(noise.size)


def test_exploration_stays_within_the_bounds():
    mppi = make(min_std=0.5)
    keys = jax.random.split(KEY, 64)
    actions = jax.vmap(
        lambda k: mppi.plan(Z, PlanState.create(H, A), jnp.ones((8, H, A)), towards(jnp.ones((H, A))), k, EXPLORE)[0]
    )(keys)
    assert float(jnp.abs(actions).max()) == 1.0
    assert float(actions.min()) < 0.9


def test_a_plan_is_shifted_by_one_decision():
    state = PlanState(jnp.arange(6.0).reshape(3, 2)).shifted()
    np.testing.assert_array_equal(state.mean, [[2.0, 3.0], [4.0, 5.0], [0.0, 0.0]])


def test_planning_starts_from_the_last_plan_shifted():
    mppi = make(iterations=1, min_std=1e-6, max_std=1e-6)
    state = PlanState(TARGET)
    _, planned = plan(mppi, lambda _, a: jnp.where(jnp.all(a == 0), -1e9, -jnp.sum(a**2)), state=state)
    np.testing.assert_allclose(planned.mean, state.shifted().mean, atol=1e-4)


def test_the_first_plan_of_an_episode_is_zero():
    np.testing.assert_array_equal(PlanState.create(H, A).mean, jnp.zeros((H, A)))


def test_elites_are_weighted_by_their_value():
    candidates = jnp.array([0.0, 0.5, -0.5, 0.9]).reshape(4, 1, 1)
    values = jnp.array([0.0, 2.0, 1.0, -50.0])
    mean, std, elites, logits = make(num_elites=3, horizon=1)._fit(candidates, values)
    weight = np.exp([0.0, -0.5, -1.0])
    weight /= weight.sum()
    ranked = np.array([0.5, -0.5, 0.0])
    np.testing.assert_allclose(elites[:, 0, 0], ranked)
    np.testing.assert_allclose(logits, [0.0, -0.5, -1.0])
    assert mean[0, 0] == pytest.approx(weight @ ranked, rel=1e-5)
    assert std[0, 0] == pytest.approx(np.sqrt(weight @ (ranked - weight @ ranked) ** 2), rel=1e-5)
