"""The two compiled programs: compiled once, and each seed as it would be in any company."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.algos.factory import make_algorithm
from cdred.data.replay_buffer import ReplayBuffer, Transition, from_trajectories
from cdred.train.compiled import ACT, INIT, LEARN, CompiledFns, seed_keys
from cdred.types import Trajectory

SEEDS, ENVS, STEPS = (0, 1), 2, 12
EXPLORE = jnp.array(True)


@pytest.fixture(scope="module")
def kept():
    return {}


@pytest.fixture
def programs(config, spec, kept):
    algorithm = make_algorithm(replace(config, mppi=replace(config.mppi, iterations=1)), spec)
    return kept.setdefault("programs", CompiledFns(algorithm, horizon=3, batch_size=4, updates=2))


@pytest.fixture
def expert(spec):
    generator = np.random.default_rng(0)
    obs = generator.normal(size=(21, 3)).astype(np.float32)
    action = generator.uniform(-1, 1, (20, 2)).astype(np.float32)
    return from_trajectories([Trajectory(obs, action, np.zeros(20, np.float32), False, True)], spec, 3)


def reference_run(spec, seeds):
    """Replays of one running episode an environment."""

    def one(seed):
        obs = jax.random.normal(jax.random.key(seed), (STEPS + 1, ENVS, 3))
        action = jax.random.uniform(jax.random.key(seed), (STEPS, ENVS, 2))
        reward, no = jnp.zeros((STEPS, ENVS)), jnp.zeros((STEPS, ENVS), bool)
        return ReplayBuffer.init(spec, ENVS, 20, 3).add(Transition(obs[:-1], action, reward, obs[1:], no, no, no))

    return jax.tree.map(lambda *x: jnp.stack(x), *map(one, seeds))


def play(programs, spec, seeds, calls, expert):
    """`calls` times: act, then learn; the learner, the last actions and metrics."""
    learner, plan = programs.init(seed_keys(seeds, INIT)), programs.init_plan(len(seeds), ENVS)
    replay, obs = reference_run(spec, seeds), jnp.ones((len(seeds), ENVS, 3))
    for call in range(calls):
        counter = jnp.array(call, jnp.int32)
        fresh = jnp.full((len(seeds), ENVS), call == 0)
        action, plan = programs.act(learner, plan, obs, fresh, seed_keys(seeds, ACT), counter, EXPLORE)
        learner, metrics, _ = programs.learn(learner, replay, expert, seed_keys(seeds, LEARN), counter, None)
    return learner, action, metrics


def test_act_and_learn_compile_once(programs, spec, expert):
    play(programs, spec, SEEDS, 4, expert)
    assert programs.act._cache_size() == 1
    assert programs.learn._cache_size() == 1


def test_a_seed_does_not_depend_on_its_company(programs, spec, expert):
    one, other = (play(programs, spec, seeds, 2, expert) for seeds in ((0, 1), (7, 1)))
    mine, same = (jax.tree.map(lambda x: np.asarray(x[1]), run) for run in (one, other))
    assert jax.tree.all(jax.tree.map(np.array_equal, mine, same))
    assert int(one[0].updates[1]) == 4
    assert not np.array_equal(one[1][0], other[1][0])


def test_seeds_and_environments_act_differently(programs, spec, expert):
    _, action, _ = play(programs, spec, SEEDS, 1, expert)
    assert len({row.tobytes() for row in np.asarray(action).reshape(-1, 2)}) == len(SEEDS) * ENVS


def test_an_episodes_first_decision_forgets_the_last_plan(programs):
    learner, keys, counter = programs.init(seed_keys(SEEDS, INIT)), seed_keys(SEEDS, ACT), jnp.array(0, jnp.int32)
    obs, fresh = jnp.ones((2, ENVS, 3)), jnp.array([[True, False], [False, True]])

    def act(mean):
        plan = jax.tree.map(lambda x: x + mean, programs.init_plan(2, ENVS))
        return np.asarray(programs.act(learner, plan, obs, fresh, keys, counter, EXPLORE)[1].mean)

    same = np.isclose(act(0.0), act(0.9)).all((2, 3))
    np.testing.assert_array_equal(same, fresh)


def test_keys_differ_by_seed_and_purpose_and_not_by_company():
    keys = {k.tobytes() for p in range(4) for k in np.asarray(jax.random.key_data(seed_keys((0, 1, 5), p)))}
    assert len(keys) == 12
    data = [jax.random.key_data(seed_keys(seeds, ACT)) for seeds in ((0, 5), (5,))]
    np.testing.assert_array_equal(data[0][1], data[1][0])


def test_observations_are_standardised_by_both_stores_alike(programs, spec, expert):
    learner = programs.set_obs_stats(programs.init(seed_keys(SEEDS, INIT)), reference_run(spec, SEEDS), expert)
    for i, seed in enumerate(SEEDS):
        own = np.asarray(jax.random.normal(jax.random.key(seed), (STEPS + 1, ENVS, 3))).reshape(-1, 3)
        theirs = np.asarray(expert.obs[0, :21])
        mean = (own.mean(0) + theirs.mean(0)) / 2
        square = ((own**2).mean(0) + (theirs**2).mean(0)) / 2
        np.testing.assert_allclose(learner.model.normalizer.mean[i], mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(learner.model.normalizer.std[i], np.sqrt(square - mean**2), rtol=1e-4)


def test_without_demonstrations_only_what_was_lived_counts(programs, spec):
    learner = programs.set_obs_stats(programs.init(seed_keys(SEEDS, INIT)), reference_run(spec, SEEDS), None)
    own = np.asarray(jax.random.normal(jax.random.key(SEEDS[1]), (STEPS + 1, ENVS, 3))).reshape(-1, 3)
    np.testing.assert_allclose(learner.model.normalizer.mean[1], own.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(learner.model.normalizer.std[1], own.std(0), rtol=1e-4)


def test_a_model_that_does_not_standardise_is_left_as_it_is(config, spec, expert):
    raw = replace(config, model=replace(config.model, normalize_obs=False))
    plain = CompiledFns(make_algorithm(raw, spec), horizon=3, batch_size=4, updates=2)
    before = plain.init(seed_keys(SEEDS, INIT))
    leaves = [np.asarray(x) for x in jax.tree.leaves(before)]
    after = plain.set_obs_stats(before, reference_run(spec, SEEDS), expert)
    assert all(np.array_equal(a, b) for a, b in zip(leaves, jax.tree.leaves(after), strict=True))
    assert after.model.normalizer is None
