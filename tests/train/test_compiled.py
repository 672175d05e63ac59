"""`act` and `learn` compile once, and every seed is independent of the others."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.algos.factory import make_algorithm
from cdred.bench.benchmarks import Bench
from cdred.config import preset
from cdred.data.replay_buffer import ReplayBuffer, Transition, from_trajectories
from cdred.train.compiled import CompiledFns
from cdred.train.keys import ACT, INIT, LEARN, seed_keys
from cdred.types import Trajectory

SEEDS, ENVS, STEPS = (0, 1), 2, 12
EXPLORE = jnp.array(True)


@pytest.fixture(scope="module")
def module_cache():
    return {}


@pytest.fixture
def fns(config, spec, module_cache):
    algorithm = make_algorithm(replace(config, mppi=replace(config.mppi, iterations=1)), spec)
    return module_cache.setdefault(
        "fns", CompiledFns(algorithm, horizon=3, batch_size=4, updates_per_call=2, episode_length=5)
    )


@pytest.fixture
def expert(spec):
    generator = np.random.default_rng(0)
    obs = generator.normal(size=(21, 3)).astype(np.float32)
    action = generator.uniform(-1, 1, (20, 2)).astype(np.float32)
    return from_trajectories([Trajectory(obs, action, np.zeros(20, np.float32), False, True)], spec, 3)


def agent_buffers(spec, seeds):
    """Make replay buffers with one running episode per environment."""

    def make(seed):
        obs = jax.random.normal(jax.random.key(seed), (STEPS + 1, ENVS, 3))
        action = jax.random.uniform(jax.random.key(seed), (STEPS, ENVS, 2))
        reward, no = jnp.zeros((STEPS, ENVS)), jnp.zeros((STEPS, ENVS), bool)
        return ReplayBuffer.init(spec, ENVS, 20, 3).add(Transition(obs[:-1], action, reward, obs[1:], no, no, no))

    return jax.tree.map(lambda *x: jnp.stack(x), *map(make, seeds))


def act_and_learn(fns, spec, seeds, calls, expert):
    """Act, then learn, `calls` times; return the learner, the last actions and metrics."""
    learner, plan = fns.init(seed_keys(seeds, INIT)), fns.init_plan(len(seeds), ENVS)
    replay, obs = agent_buffers(spec, seeds), jnp.ones((len(seeds), ENVS, 3))
    for call in range(calls):
        counter = jnp.array(call, jnp.int32)
        is_first = jnp.full((len(seeds), ENVS), call == 0)
        action, plan = fns.act(learner, plan, obs, is_first, seed_keys(seeds, ACT), counter, EXPLORE)
        learner, metrics, _ = fns.learn(learner, replay, expert, seed_keys(seeds, LEARN), counter, None)
    return learner, action, metrics


def test_act_and_learn_compile_once(fns, spec, expert):
    act_and_learn(fns, spec, SEEDS, 4, expert)
    assert fns.act._cache_size() == 1
    assert fns.learn._cache_size() == 1


def test_seed_is_independent_of_other_seeds(fns, spec, expert):
    left, right = (act_and_learn(fns, spec, seeds, 2, expert) for seeds in ((0, 1), (7, 1)))
    left_seed, right_seed = (jax.tree.map(lambda x: np.asarray(x[1]), results) for results in (left, right))
    assert jax.tree.all(jax.tree.map(np.array_equal, left_seed, right_seed))
    assert int(left[0].updates[1]) == 4
    assert not np.array_equal(left[1][0], right[1][0])


def test_seeds_and_environments_act_differently(fns, spec, expert):
    _, action, _ = act_and_learn(fns, spec, SEEDS, 1, expert)
    assert len({row.tobytes() for row in np.asarray(action).reshape(-1, 2)}) == len(SEEDS) * ENVS


def test_first_step_of_an_episode_resets_the_plan(fns):
    learner, keys, counter = fns.init(seed_keys(SEEDS, INIT)), seed_keys(SEEDS, ACT), jnp.array(0, jnp.int32)
    obs, is_first = jnp.ones((2, ENVS, 3)), jnp.array([[True, False], [False, True]])

    def planned_mean(offset):
        plan = jax.tree.map(lambda x: x + offset, fns.init_plan(2, ENVS))
        return np.asarray(fns.act(learner, plan, obs, is_first, keys, counter, EXPLORE)[1].mean)

    same = np.isclose(planned_mean(0.0), planned_mean(0.9)).all((2, 3))
    np.testing.assert_array_equal(same, is_first)


def test_keys_differ_by_seed_and_purpose():
    keys = {k.tobytes() for p in range(4) for k in np.asarray(jax.random.key_data(seed_keys((0, 1, 5), p)))}
    assert len(keys) == 12
    data = [jax.random.key_data(seed_keys(seeds, ACT)) for seeds in ((0, 5), (5,))]
    np.testing.assert_array_equal(data[0][1], data[1][0])


def test_obs_stats_weight_agent_and_expert_equally(fns, spec, expert):
    learner = fns.set_obs_stats(fns.init(seed_keys(SEEDS, INIT)), agent_buffers(spec, SEEDS), expert)
    for i, seed in enumerate(SEEDS):
        agent_obs = np.asarray(jax.random.normal(jax.random.key(seed), (STEPS + 1, ENVS, 3))).reshape(-1, 3)
        expert_obs = np.asarray(expert.obs[0, :21])
        mean = (agent_obs.mean(0) + expert_obs.mean(0)) / 2
        square = ((agent_obs**2).mean(0) + (expert_obs**2).mean(0)) / 2
        np.testing.assert_allclose(learner.model.normalizer.mean[i], mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(learner.model.normalizer.std[i], np.sqrt(square - mean**2), rtol=1e-4)


def test_obs_stats_without_demos_are_the_agents(fns, spec):
    learner = fns.set_obs_stats(fns.init(seed_keys(SEEDS, INIT)), agent_buffers(spec, SEEDS), None)
    obs = np.asarray(jax.random.normal(jax.random.key(SEEDS[1]), (STEPS + 1, ENVS, 3))).reshape(-1, 3)
    np.testing.assert_allclose(learner.model.normalizer.mean[1], obs.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(learner.model.normalizer.std[1], obs.std(0), rtol=1e-4)


def test_obs_stats_leave_a_model_without_normalizer_unchanged(config, spec, expert):
    config = replace(config, model=replace(config.model, normalize_obs=False))
    fns = CompiledFns(
        make_algorithm(config, spec), horizon=3, batch_size=4, updates_per_call=2, episode_length=spec.episode_length
    )
    before = fns.init(seed_keys(SEEDS, INIT))
    leaves = [np.asarray(x) for x in jax.tree.leaves(before)]
    after = fns.set_obs_stats(before, agent_buffers(spec, SEEDS), expert)
    assert all(np.array_equal(a, b) for a, b in zip(leaves, jax.tree.leaves(after), strict=True))
    assert after.model.normalizer is None


def test_update_and_plan_have_no_operation_of_varying_order():
    # On GPUs XLA adds up scatters and convolutions in an order that varies (docs/reliability.md).
    bench = Bench(replace(preset("debug"), updates_per_call=1))
    for function, arguments in ((bench.fns.learn, bench.update_arguments(0)), (bench.fns.act, bench.plan_arguments(0))):
        operations = set(re.findall(r"(?:stablehlo|chlo)\.(\w+)", function.lower(*arguments).as_text()))
        assert "dot_general" in operations
        assert not {"scatter", "select_and_scatter", "convolution"} & operations
