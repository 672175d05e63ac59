"""Centred latents are what networks see; they are equivalent to other weights in the first layers."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.algos.factory import make_algorithm
from cdred.models.world_model import WorldModel
from cdred.types import EnvSpec

KEY = jax.random.key(11)
SPEC = EnvSpec("probe/fake", (3,), 2, 100, can_terminate=True)


@pytest.fixture
def make_states(config):
    """Function that makes an agent with centred latents, one without, and states that should be equivalent."""

    def make(algo):
        centered, plain = (
            make_algorithm(replace(config, algo=algo, model=replace(config.model, center_latents=c)), SPEC)
            for c in (True, False)
        )
        state = jax.jit(centered.init)(KEY)
        noise = lambda x: x + 0.1 * jax.random.normal(KEY, x.shape) if eqx.is_inexact_array(x) else x  # noqa: E731
        networks = lambda s: [x for x in (s.model, s.reward, s.target_critics) if x is not None]  # noqa: E731
        state = eqx.tree_at(networks, state, jax.tree.map(noise, networks(state)))
        state = eqx.tree_at(lambda s: s.updates, state, jnp.array(1000, jnp.int32))
        model = state.model
        inputs = [model.critics.members, model.dynamics, model.termination, state.target_critics.members]
        if state.reward is not None:
            inputs += reward_networks(algo, state.reward)
        folded = iter([fold(network, model.latent_dim, model.simnorm_dim) for network in inputs])
        where = lambda s: (  # noqa: E731
            s.model.critics.members,
            s.model.dynamics,
            s.model.termination,
            s.target_critics.members,
            *(reward_networks(algo, s.reward) if s.reward is not None else ()),
        )
        other = eqx.tree_at(where, state, tuple(folded))
        return centered, state, plain, eqx.tree_at(lambda s: s.model, other, as_plain(other.model))

    return make


def reward_networks(algo, reward):
    if algo == "red":
        return [reward.target, reward.predictor]
    return [reward.targets.members, reward.predictors.members, reward.ema_predictors.members]


def as_plain(model):
    return WorldModel(**(vars(model) | {"center_latents": False}))


def fold(network, latent_dim, group):
    """Return the network of z that equals `network` of V z - 1."""
    linear = lambda m: m.hidden[0].linear  # noqa: E731
    weight, bias = linear(network).weight, linear(network).bias
    of_z = weight[..., :latent_dim, :]
    new = weight.at[..., :latent_dim, :].multiply(group), bias - jnp.sum(of_z, axis=-2)
    return eqx.tree_at(lambda m: (linear(m).weight, linear(m).bias), network, new)


def test_features_are_zero_where_groups_are_uniform(config):
    algorithm = make_algorithm(replace(config, model=replace(config.model, center_latents=True)), SPEC)
    model = jax.jit(algorithm.init)(KEY).model
    np.testing.assert_allclose(model.features(jnp.full(16, 1 / 8)), jnp.zeros(16), atol=1e-6)
    expected = np.tile(np.eye(8)[0] * 8 - 1, 2)
    np.testing.assert_allclose(model.features(model.absorbing_latent), expected)


@pytest.mark.parametrize("algo", ["cdred", "iqmpc", "red"])
def test_centered_latents_are_other_first_layers(make_states, make_batch, algo):
    """Losses and plan objective agree, so every network that should see centred latents does, in training as in
    planning."""
    centered, state, plain, other = make_states(algo)
    batch = make_batch(KEY, 4)
    absorbing = batch.agent.absorbing.at[0, 2:].set(True)
    batch = batch._replace(agent=batch.agent._replace(absorbing=absorbing))
    z, actions = state.model.encode(batch.agent.obs[0, 0]), batch.agent.action[0]

    def values(agent, s):
        metrics = agent.model_loss(s.trainable, s, batch, KEY)[1][1]
        return metrics, agent.plan_objective(s, z)(actions)

    jitted = [jax.jit(lambda s, a=agent: values(a, s))(s) for agent, s in ((centered, state), (plain, other))]
    (metrics, objective), (expected, expected_objective) = jitted
    assert metrics["termination_loss"] > 0
    assert {k: float(v) for k, v in metrics.items()} == pytest.approx(
        {k: float(v) for k, v in expected.items()}, rel=2e-3, abs=1e-4
    )
    assert float(objective) == pytest.approx(float(expected_objective), rel=2e-3, abs=1e-4)
    assert not np.allclose(jax.jit(lambda s: values(plain, s))(as_plain_state(state))[1], objective, rtol=1e-2)


def as_plain_state(state):
    return eqx.tree_at(lambda s: s.model, state, as_plain(state.model))
