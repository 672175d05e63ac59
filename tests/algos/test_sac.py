"""Soft actor-critic on raw observations: its batches, and that each method learns the expert's actions."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.algos.base import Batch
from cdred.algos.factory import make_algorithm
from cdred.algos.sac_agent import SACConfig, _as_transitions
from cdred.types import Segment

KEY = jax.random.key(21)
REWARD_METHODS = ("gail-sac", "red-sac", "cdred-sac")


@pytest.fixture
def make_sac(config, spec):
    """Function that makes an agent which learns the expert's actions from its method's losses alone."""
    optim = replace(config.optim, learning_rate=3e-3, lr_decay_fraction=0.0, tau=0.05, bc_coef=0.0, batch_size=32)
    base = replace(config, optim=optim, model=replace(config.model, hidden_dims=(32, 32)))
    return lambda algo, spec=spec, **changes: make_algorithm(replace(base, algo=algo, **changes), spec)


def make_segments(key, random_actions, num=32):
    """Make segments in which no action changes the observations; the expert's action is half of what it observes."""
    obs_key, action_key = jax.random.split(key)
    obs = jax.random.uniform(obs_key, (num, 4, 3), minval=-1.0)
    action = 0.5 * obs[:, :-1, :2]
    if random_actions:
        action = jax.random.uniform(action_key, action.shape, minval=-1.0)
    return Segment(obs, action, jnp.zeros((num, 3)), jnp.zeros((num, 4), bool))


def make_batch(expert_key, agent_key, num=32):
    return Batch(make_segments(expert_key, False, num), make_segments(agent_key, True, num))


def train(algorithm, updates):
    def step(state, key):
        expert_key, agent_key, update_key = jax.random.split(key, 3)
        return algorithm.update(state, make_batch(expert_key, agent_key), update_key)

    run = jax.jit(lambda: jax.lax.scan(step, algorithm.init(KEY), jax.random.split(jax.random.key(1), updates)))
    return run()


@pytest.mark.parametrize("algo", ["iqlearn-sac", *REWARD_METHODS])
def test_trained_policy_repeats_expert_actions(make_sac, algo):
    """Random actions are at a mean distance of 0.56 from the expert's, those of an untrained policy of 0.35."""
    algorithm = make_sac(algo)
    state, metrics = train(algorithm, 600)
    obs = jax.random.uniform(jax.random.key(50), (256, 3), minval=-1.0)
    act = jax.jit(jax.vmap(lambda o: algorithm.act(state, algorithm.init_plan(), o, KEY, jnp.array(False))[0]))
    assert float(jnp.linalg.norm(act(obs) - 0.5 * obs[:, :2], axis=-1).mean()) < 0.2
    assert all(jnp.isfinite(series).all() for series in metrics.values())
    assert float(metrics["reward_expert"][-50:].mean()) > float(metrics["reward_agent"][-50:].mean()) + 0.1


def test_batch_is_split_into_transitions(make_sac):
    model = jax.jit(make_sac("iqlearn-sac").init)(KEY).model
    batch = make_batch(jax.random.key(1), jax.random.key(2), 2)
    transitions = _as_transitions(model, batch)
    rows = [(segments, i, t) for segments in batch[:2] for i in range(2) for t in range(3)]
    np.testing.assert_array_equal(transitions.latents[:, 0], [s.obs[i, t] for s, i, t in rows])
    np.testing.assert_array_equal(transitions.target_latents[:, 0], [s.obs[i, t + 1] for s, i, t in rows])
    np.testing.assert_array_equal(transitions.state_actions(model)[:, 0, 3:], [s.action[i, t] for s, i, t in rows])


def test_absorbing_state_is_encoded_as_indicator_alone(make_sac, spec):
    model = jax.jit(make_sac("gail-sac", replace(spec, can_terminate=True)).init)(KEY).model
    segments = make_segments(KEY, False, 1)
    terminated = segments._replace(absorbing=jnp.array([[False, False, True, True]]))
    transitions = _as_transitions(model, Batch(terminated, terminated))
    np.testing.assert_array_equal(transitions.latents[0], jnp.pad(segments.obs[0, :2], ((0, 0), (0, 1))))
    np.testing.assert_array_equal(transitions.latents[1, 1], [0, 0, 0, 1])
    np.testing.assert_array_equal(transitions.latents[2], [[0, 0, 0, 1], [0, 0, 0, 1]])


def test_td_target_includes_next_actions_entropy(make_sac):
    """With zero critics a target is r - gamma beta log pi, on average r + gamma beta times the entropy."""
    plain, regularized = (make_sac("red-sac", sac=SACConfig(entropy_coef)) for entropy_coef in (0.0, 0.5))
    state = jax.jit(plain.init)(KEY)
    batch = make_batch(jax.random.key(1), jax.random.key(2), 512)
    metrics, entropy_metrics = (jax.jit(algorithm.update)(state, batch, KEY)[1] for algorithm in (plain, regularized))
    difference = float(entropy_metrics["td_target"] - metrics["td_target"])
    assert difference == pytest.approx(plain.discount * 0.5 * float(metrics["policy_entropy"]), rel=0.05)
    assert abs(difference) > 0.05


def test_bc_loss_is_policys_distance_from_expert(make_sac):
    algorithm = make_sac("iqlearn-sac")
    state, batch = jax.jit(algorithm.init)(KEY), make_batch(KEY, KEY)
    modes = jax.vmap(jax.vmap(lambda obs: state.model.pi(obs).mode))(batch.expert.obs[:, :-1])
    distance = jnp.mean(jnp.sum((modes - batch.expert.action) ** 2, axis=-1))
    _, metrics = jax.jit(algorithm.update)(state, batch, KEY)
    assert float(metrics["bc_loss"]) == pytest.approx(float(distance), rel=1e-4)


def test_only_reward_model_learns_during_warmup(make_sac):
    algorithm = make_sac("gail-sac")
    state = jax.jit(algorithm.init)(KEY)
    after, _ = jax.jit(algorithm.update)(state, make_batch(KEY, KEY), KEY)
    assert algorithm.config.reward_warmup_updates > 1
    assert jax.tree.all(jax.tree.map(jnp.array_equal, after.model, state.model))
    assert not jnp.array_equal(after.reward.network.head.weight, state.reward.network.head.weight)
