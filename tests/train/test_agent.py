from dataclasses import replace
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

import cdred
from cdred.envs.registry import get_env_spec
from cdred.errors import UserError
from cdred.train.agent import Agent
from cdred.types import EnvSpec

THRUST = EnvSpec("gym/Thrust-v0", (2,), 2, 100, action_low=(-0.5, 0.0), action_high=(3.0, 0.4))


def stub_agent(spec, act=lambda obs: obs):
    """Return an agent whose normalized action is a function of the observation."""
    algorithm = SimpleNamespace(
        act=lambda _learner, plan, obs, _key, _explore: (act(obs), plan), init_plan=lambda: jnp.zeros(())
    )
    return Agent(algorithm, None, spec)


def test_actions_are_in_the_units_of_the_environment():
    agent = stub_agent(THRUST)
    np.testing.assert_allclose(agent.act([-1.0, 1.0]), [-0.5, 0.4])
    np.testing.assert_allclose(agent.reset().act([[0.0, 0.0], [1.0, -1.0]]), [[1.25, 0.2], [3.0, 0.0]])
    assert agent.reset().act([-1.0, 1.0], normalized=True).tolist() == [-1.0, 1.0]


def test_actions_are_accepted_by_the_environment():
    gymnasium = pytest.importorskip("gymnasium")
    env = gymnasium.make("Pendulum-v1")
    agent = stub_agent(get_env_spec("gym/Pendulum-v1"), act=lambda obs: jnp.sign(obs[:1]))
    assert agent.act([1.0, 0.0, 0.0]) == env.action_space.high
    assert agent.act([-1.0, 0.0, 0.0]) in env.action_space


def test_bounds_that_float32_rounds_are_not_exceeded():
    """0.1 rounds up and 0.7 down."""
    low, high = (-0.1, -0.7), (0.1, 0.7)
    agent = stub_agent(EnvSpec("gym/Double-v0", (2,), 2, 100, action_low=low, action_high=high))
    largest, smallest = agent.act([1.0, 1.0]), agent.act([-1.0, -1.0])
    assert largest.dtype == np.float32
    assert (largest.astype(np.float64) <= high).all()
    assert (smallest.astype(np.float64) >= low).all()
    np.testing.assert_allclose(largest, high, rtol=1e-6)


def test_quadruped_has_bounds_of_its_own():
    spec = get_env_spec("dmc/quadruped-walk")
    assert spec.action_high[:3] == (1.0, 1.1, 0.8)
    assert spec.action_low[:3] == (-1.0, -1.0, -0.8)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_observation_that_is_not_finite_is_refused(value):
    with pytest.raises(UserError, match=rf"observation is not finite: element \[1\] is {value}"):
        stub_agent(THRUST).act([0.0, value])
    with pytest.raises(UserError, match=r"element \[1, 0\]"):
        stub_agent(THRUST).act([[0.0, 0.0], [value, 0.0]])


def test_rewards_are_of_actions_in_the_units_of_the_environment(finished_run):
    agent, rng = cdred.load(finished_run), np.random.default_rng(0)
    agent.spec = replace(agent.spec, action_low=(-0.5, 0.0), action_high=(3.0, 0.4))
    obs, action = rng.normal(size=(5, 4)), rng.uniform(-1, 1, (5, 2))
    own = [-0.5, 0.0] + (action + 1) / 2 * [3.5, 0.4]
    np.testing.assert_allclose(agent.reward(obs, own), agent.reward(obs, action, normalized=True), rtol=1e-4)
    with pytest.raises(UserError, match=r"actions reach from .*bounds of probe/point are \[-0\.5, 0\.0\]"):
        agent.reward(obs, own + 1.0)
    with pytest.raises(UserError, match="action is not finite"):
        agent.reward(obs, np.full((5, 2), np.nan))


@pytest.mark.parametrize("batch", [None, 3])
def test_warm_up_compiles_and_changes_nothing(batch):
    traced = []

    def act(obs):
        traced.append(obs.shape)
        return jnp.sin(obs)

    obs = np.ones((batch, 2) if batch else 2, np.float32)
    agent = stub_agent(THRUST, act).warm_up(batch)
    assert traced
    traced.clear()
    agent.act(obs)
    agent.act(obs)
    assert not traced
    with pytest.raises(UserError, match="batch must be at least 1, got 0"):
        agent.warm_up(0)


def test_warm_up_of_a_trained_agent_keeps_its_actions(finished_run):
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(3, 4)).astype(np.float32)
    plain, warm = cdred.load(finished_run), cdred.load(finished_run).warm_up()
    for obs in observations:
        # Also in the middle of an episode.
        np.testing.assert_array_equal(warm.act(obs, explore=True), plain.act(obs, explore=True))
        warm.warm_up()


def test_agent_says_what_it_is(finished_run, bc_run):
    assert repr(cdred.load(finished_run, seed=1)) == "<Agent of probe/point by cdred, seed 1, acts by MPPI planning>"
    agent = cdred.load(finished_run, planner="policy")
    assert repr(agent) == "<Agent of probe/point by cdred, seed 0, acts by its policy>"
    assert repr(cdred.load(bc_run / "run")) == "<Agent of probe/point by bc, seed 0, acts by its policy>"


def test_loading_uses_the_compilation_cache(finished_run, monkeypatch):
    used = []
    monkeypatch.setattr("cdred.api.use_compilation_cache", lambda: used.append(True))
    cdred.load(finished_run)
    assert used
