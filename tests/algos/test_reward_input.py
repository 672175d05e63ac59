"""What reward models see: known values of the three inputs, and that two of them do not depend on actions."""

from dataclasses import replace
from typing import get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.algos.diagnostics import expert_novelty
from cdred.algos.factory import make_algorithm
from cdred.algos.method import LatentBatch, TDParams
from cdred.algos.reward_input import RewardInput, batch_input, input_dim, transition_input
from cdred.nn.layers import MLP, SharedLatent

KEY = jax.random.key(3)
KINDS = get_args(RewardInput)
PARAMS = TDParams(0.9, 0.5, 0.0, 0.0)
# Encodings 1, 2, 3 of three observations; the model predicts 10 and 20 in place of the last two.
LATENTS, ENCODED = jnp.array([[[1.0], [10.0], [20.0]]]), jnp.array([[[2.0], [3.0]]])
ACTIONS = jnp.array([[[-0.1], [-0.2]]])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("state-action", [[1, -0.1], [10, -0.2]]),
        ("transition", [[1, 2], [2, 3]]),
        ("state", [[2], [3]]),
    ],
)
def test_batch_inputs_without_actions_are_encodings(kind, expected):
    x = batch_input(kind, LATENTS, ACTIONS, ENCODED)
    np.testing.assert_allclose(x[0], expected)
    assert x.shape[-1] == input_dim(kind, 1, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_planning_sees_the_input_that_is_trained_on(kind):
    """In planning the latent is shared by many actions; where the model is exact, the inputs are the same."""
    z, action, next_z = jnp.array([1.0, 2.0]), jnp.array([0.3]), jnp.array([4.0, 5.0])
    trained = batch_input(kind, jnp.stack([z, next_z])[None], action[None, None], next_z[None, None])[0, 0]
    np.testing.assert_array_equal(transition_input(kind, z, action, next_z), trained)
    network = MLP(input_dim(kind, 2, 1), (8,), 3, key=KEY)
    shared = network(transition_input(kind, SharedLatent(z), action, next_z))
    np.testing.assert_allclose(shared, network(trained), rtol=1e-5)


def with_input(config, algo, kind):
    name = algo.removesuffix("-sac")
    return replace(config, algo=algo, **{name: replace(getattr(config, name), input=kind)})


def random_reward(state):
    """Randomise the trained networks, so that no reward is constant."""
    noise = lambda x: x + 0.1 * jax.random.normal(KEY, x.shape) if eqx.is_array(x) else x  # noqa: E731
    return eqx.tree_at(lambda s: s.reward, state, jax.tree.map(noise, state.reward))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("algo", ["cdred", "gail-sac", "red"])
def test_reward_depends_on_actions_only_if_they_are_its_input(config, spec, make_batch, algo, kind):
    algorithm, batch = make_algorithm(with_input(config, algo, kind), spec), make_batch(KEY, 4)
    state = random_reward(jax.jit(algorithm.init)(KEY))
    segments = jax.tree.map(lambda e, a: jnp.concatenate([e, a]), batch.expert, batch.agent)
    latents = jax.vmap(jax.vmap(state.model.encode))(segments.obs)
    reward = jax.jit(lambda batch: algorithm.method.losses(state, batch, PARAMS, KEY).reward)

    def rewards(action, rolled_out):
        later = rolled_out * latents[:, 1:]
        given = LatentBatch(
            segments._replace(action=action), jnp.concatenate([latents[:, :1], later], axis=1), latents[:, 1:]
        )
        return np.asarray(reward(given))

    given, other = rewards(segments.action, 1.0), rewards(-segments.action, 0.5)
    assert np.ptp(given) > 0
    assert np.array_equal(given, other) == (kind != "state-action")


def test_states_alone_tell_expert_from_agent(config, make_agent, train_agent, make_batch):
    """Of two behaviours in different states, the expert's has the higher reward whatever its actions are."""
    agent = make_agent("cdred", cdred=replace(config.cdred, input="state"))
    state, _ = train_agent(agent, 300)
    segments = make_batch(jax.random.key(99), 32)
    encode = jax.vmap(jax.vmap(state.model.encode))
    expert, other = (jax.vmap(jax.vmap(state.reward))(encode(s.obs[:, 1:])) for s in (segments.expert, segments.agent))
    assert float(jnp.percentile(expert, 5.0)) > float(jnp.median(other)) + 0.5


def test_novelty_is_of_the_input(config, spec, batch):
    algorithm = make_algorithm(with_input(config, "red", "transition"), spec)
    state = random_reward(jax.jit(algorithm.init)(KEY))
    encoded = jax.vmap(jax.vmap(state.model.encode))(batch.expert.obs)
    pairs = jnp.concatenate([encoded[:, :-1], encoded[:, 1:]], axis=-1)
    expected = jnp.mean(jax.vmap(jax.vmap(state.reward.distance))(pairs))
    measured = expert_novelty(state.reward, state.model, "transition", batch.expert)
    np.testing.assert_allclose(measured, expected, rtol=1e-5)
