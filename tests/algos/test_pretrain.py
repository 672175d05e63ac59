"""Pretraining on demonstrations, what becomes of the encoder afterwards, and imitation of selected own episodes."""

from dataclasses import replace
from functools import cache, partial
from itertools import combinations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cdred.algos.base import Selected
from cdred.algos.factory import make_algorithm
from cdred.algos.pretrain import (
    CANDIDATES,
    MIN_DETECTED,
    DemoRows,
    PretrainConfig,
    Pretraining,
    choose_action,
    pretrain_loss,
    self_imitation_loss,
)
from cdred.models.actor_critic import ObsActorCritic
from cdred.types import EnvSpec, Segment
from small_config import small_config

KEY = jax.random.key(3)
NO, YES = jnp.array(False), jnp.array(True)


@pytest.fixture(scope="module")
def make_pretrained(batch):
    """Function that makes an agent with pretraining, and its state after a few updates of it."""

    @cache
    def make(algo, **changes):
        config, pretrain = small_config(), PretrainConfig(updates=100, **changes)
        optim = replace(config.optim, learning_rate=3e-3)
        spec = EnvSpec("probe/fake", (3,), 2, 100)
        agent = make_algorithm(replace(config, algo=algo, pretrain=pretrain, optim=optim), spec)

        @jax.jit
        def train(key):
            state = agent.init(key)
            step = lambda networks, _: agent.pretraining.update(networks, batch.expert, KEY)  # noqa: E731
            networks, metrics = jax.lax.scan(step, agent.pretraining.init(state.model), length=100)
            rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch.expert)
            demos = DemoRows(rows.obs, rows.absorbing, jnp.tile(jnp.arange(4), 8))
            kept = agent.pretraining.finish(networks.model, demos)
            return eqx.tree_at(lambda s: (s.model, s.pretrained), state, (networks.model, kept)), metrics

        return agent, *train(KEY)

    return lambda algo="cdred", **changes: make(algo, **changes)


def same(left, right):
    return jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b)), left, right))


@pytest.mark.parametrize("algo", ["cdred", "iqlearn-sac"])
def test_pretraining_imitates_the_expert_and_trains_nothing_else(make_pretrained, algo):
    agent, state, metrics = make_pretrained(algo)
    assert metrics["bc_loss"][-1] < 0.2 * metrics["bc_loss"][0]
    initial = jax.jit(agent.init)(KEY)
    assert same(state.model.critics, initial.model.critics)
    assert same(state.target_critics, initial.target_critics)
    assert not same(state.model.actor, initial.model.actor)


@pytest.mark.parametrize("std", [None, (1.0, 10.0, 0.3)])
def test_noise_is_in_units_of_normalised_observations(std):
    minimum = None if std is None else 0.1
    model = ObsActorCritic.create(3, 2, hidden_dims=(4,), num_critics=2, two_hot=None, min_obs_std=minimum, key=KEY)
    if std is not None:
        model = eqx.tree_at(lambda m: m.normalizer, model, model.normalizer.with_stats(jnp.zeros(3), jnp.array(std)))
    rows = (256, 4)
    segments = Segment(jnp.ones((*rows, 3)), jnp.ones((*rows, 2)), jnp.ones(rows), jnp.zeros(rows, bool))
    noisy = Pretraining(PretrainConfig(obs_noise_std=0.1), optax.identity(), 0.5)._add_noise(model, segments, KEY)
    expected = 0.1 * jnp.array((1.0, 1.0, 1.0) if std is None else std)
    np.testing.assert_allclose(jnp.std(noisy.obs - segments.obs, axis=(0, 1)), expected, rtol=0.1)
    assert all(a is b for a, b in zip(noisy[1:], segments[1:], strict=True))


def test_noise_on_observations_changes_an_update(make_pretrained):
    without, with_noise = make_pretrained()[1], make_pretrained(obs_noise_std=0.1)[1]
    assert not same(without.model.actor, with_noise.model.actor)


def test_pretraining_fits_the_dynamics(make_pretrained):
    _, _, metrics = make_pretrained()
    assert metrics["consistency_loss"][-1] < 0.5 * metrics["consistency_loss"][0]
    assert "consistency_loss" not in make_pretrained("iqlearn-sac")[2]


@pytest.mark.parametrize(("encoder_loss", "other"), [("bc", "consistency_loss"), ("consistency", "bc_loss")])
def test_one_loss_alone_shapes_the_latents(make_pretrained, batch, encoder_loss, other):
    model = make_pretrained()[1].model

    def gradients(name):
        loss = lambda params: pretrain_loss(params, model, batch.expert, 0.5, encoder_loss)[1][name]  # noqa: E731
        (encoder, policy), dynamics = jax.grad(loss)((model.actor, model.dynamics))
        return {
            name: any(leaf.any() for leaf in jax.tree.leaves(grads))
            for name, grads in (("encoder", encoder), ("policy", policy), ("dynamics", dynamics))
        }

    assert gradients(f"{encoder_loss}_loss")["encoder"]
    own = {"bc_loss": "policy", "consistency_loss": "dynamics"}
    assert gradients(other) == {name: name == own[other] for name in ("encoder", "policy", "dynamics")}


def test_encoder_learns_from_the_chosen_loss(make_pretrained):
    (_, of_actions, _), (agent, of_dynamics, metrics) = make_pretrained(), make_pretrained(encoder_loss="consistency")
    encoders = [model.encoder for model in (of_actions.model, of_dynamics.model, jax.jit(agent.init)(KEY).model)]
    assert not any(same(*pair) for pair in combinations(encoders, 2))
    assert metrics["bc_loss"][-1] < 0.2 * metrics["bc_loss"][0]


@pytest.mark.parametrize(("encoder", "fixed"), [("frozen", True), ("free", False)])
def test_encoder_is_frozen_or_free(make_pretrained, batch, encoder, fixed):
    agent, state, _ = make_pretrained(encoder=encoder)
    new, _ = jax.jit(agent.update)(state, batch, KEY)
    assert same(new.model.encoder, state.model.encoder) == fixed
    assert not same(new.model.dynamics, state.model.dynamics)


@pytest.mark.parametrize("encoder", ["frozen", "free"])
def test_values_shape_the_dynamics_only_with_a_free_encoder(make_pretrained, batch, encoder):
    agent, state, _ = make_pretrained(encoder=encoder)
    head = lambda s: s.model.critics.members.head.weight  # noqa: E731
    value = 0.3 * jax.random.normal(KEY, head(state).shape)
    state = eqx.tree_at(lambda s: (s.updates, head(s)), state, (jnp.array(1000, jnp.int32), value))

    def gradient(value_coef):
        changed = replace(agent, config=replace(agent.config, value_coef=value_coef))
        params = lambda dynamics: state.trainable._replace(dynamics=dynamics)  # noqa: E731
        loss = lambda dynamics: changed.model_loss(params(dynamics), state, batch, KEY)[0]  # noqa: E731
        return jnp.concatenate([x.ravel() for x in jax.tree.leaves(jax.jit(jax.grad(loss))(state.model.dynamics))])

    without, with_values = gradient(0.0), gradient(1.0)
    assert jnp.any(without != 0)
    assert np.allclose(without, with_values, rtol=1e-4, atol=1e-7) == (encoder == "frozen")


def test_free_encoder_learns_as_without_pretraining(make_pretrained, batch):
    """The factor of the encoder's gradient changes nothing where it is 1."""
    agent, state, _ = make_pretrained(encoder="free")
    plain = eqx.tree_at(lambda a: a.pretraining, agent, None)
    loss = lambda a, s: jax.jit(jax.grad(lambda p: a.model_loss(p, s, batch, KEY)[0]))(s.trainable)  # noqa: E731
    without = eqx.tree_at(lambda s: s.pretrained, state, None, is_leaf=lambda x: x is None)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), loss(agent, state), loss(plain, without)
    )


def test_pretrained_policy_stays_while_the_agent_learns(make_pretrained, batch):
    agent, state, _ = make_pretrained()
    act = jax.jit(lambda s, explore: agent.pretraining.act(s.model, s.pretrained, batch.agent.obs[0, 0], KEY, explore))
    before = act(state, NO)
    mode = state.model.pi(state.model.encode(batch.agent.obs[0, 0])).mode
    np.testing.assert_allclose(before, mode, atol=1e-6)
    state = eqx.tree_at(lambda s: s.updates, state, jnp.array(1000, jnp.int32))
    new, _ = jax.jit(agent.update)(state, batch, KEY)
    assert not same(new.model.policy, state.model.policy)
    np.testing.assert_array_equal(act(new, NO), before)
    assert not np.array_equal(act(new, YES), before)


@pytest.mark.parametrize("algo", ["cdred", "iqlearn-sac"])
def test_agent_acts_as_chosen_unless_it_explores(make_pretrained, batch, algo):
    agent, state, _ = make_pretrained(algo)
    # A policy that differs from the pretrained one, which both differ from the plan.
    other = jax.jit(agent.init)(jax.random.key(8)).model.policy
    state = eqx.tree_at(lambda s: s.model.policy, state, other)
    obs, own = batch.expert.obs[0, 0], jnp.array([0.9, -0.9])
    mode = state.model.pi(state.model.encode(obs)).mode
    pretrained = agent.pretraining.act(state.model, state.pretrained, obs, KEY, NO)
    for index, expected in enumerate((own, mode, pretrained)):
        kept = eqx.tree_at(lambda p: p.acting, state.pretrained, jnp.array(index, jnp.int32))
        np.testing.assert_array_equal(choose_action(state.model, kept, own, obs, NO), expected, CANDIDATES[index])
        np.testing.assert_array_equal(choose_action(state.model, kept, own, obs, YES), own)
    assert choose_action(state.model, None, own, obs, NO) is own


def test_self_imitation_loss_is_the_action_error_of_selected_segments(make_pretrained, batch):
    _, state, _ = make_pretrained()
    model, segments = state.model, batch.agent
    mode = jax.vmap(jax.vmap(lambda obs: model.pi(model.encode(obs)).mode))(segments.obs[:, :-1])
    expected = float(((np.asarray(mode) - np.asarray(segments.action)) ** 2).sum(-1).mean())
    loss = self_imitation_loss(model.policy, model, Selected(segments, YES))
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert float(self_imitation_loss(model.policy, model, Selected(segments, NO))) == 0.0


@pytest.mark.parametrize("algo", ["cdred", "iqlearn-sac"])
def test_selected_segments_pull_the_policy_towards_their_actions(config, spec, batch, algo):
    pretrain = PretrainConfig(updates=1, self_imitation_coef=100.0)
    agent = make_algorithm(replace(config, algo=algo, pretrain=pretrain), spec)
    state, update = jax.jit(agent.init)(KEY), jax.jit(agent.update)
    errors = {}
    for exist in (NO, YES):
        new = state
        for k in range(20):
            new, metrics = update(new, batch._replace(selected=Selected(batch.agent, exist)), jax.random.key(k))
        errors[bool(exist)] = float(self_imitation_loss(new.model.policy, new.model, Selected(batch.agent, YES)))
        assert (float(metrics["self_imitation_loss"]) > 0) == bool(exist)
    assert errors[True] < errors[False]


@pytest.mark.parametrize(("spread", "scale"), [(0.01, 0.0), (9.0, 1.0)])
def test_auto_freezes_the_encoder_where_demonstrations_end_together(config, spec, spread, scale):
    agent = make_algorithm(replace(config, pretrain=PretrainConfig(updates=1)), spec)
    model = agent.make_model(key=KEY)
    start, end = jax.random.normal(KEY, (2, 6, 1, 3)) * jnp.array([9.0, spread]).reshape(2, 1, 1, 1)
    # Away from the origin, near which layer normalisation magnifies differences.
    end = end + 3.0
    weight = jnp.linspace(0.0, 1.0, 60)[None, :, None]
    obs = (start + weight * (end - start)).reshape(360, 3)
    demos = DemoRows(obs, jnp.zeros(360, bool), jnp.tile(jnp.arange(60), 6))
    kept = jax.jit(agent.pretraining.finish)(model, demos)
    assert float(kept.encoder_scale) == scale
    assert (float(kept.demos_detected) < MIN_DETECTED) == bool(scale)


def test_plan_replaces_the_pretrained_action_only_where_all_critics_agree(make_pretrained, batch):
    agent, state, _ = make_pretrained(propose_actions=True)
    # Networks that learned something else since, and critics that differ, which they do not when new.
    model = jax.jit(agent.init)(jax.random.key(8)).model
    critics = jax.tree.map(lambda x: x + 0.2 * jax.random.normal(KEY, x.shape), model.critics)
    state = eqx.tree_at(lambda s: s.model, state, eqx.tree_at(lambda m: m.critics, model, critics))
    obs = batch.expert.obs[0, 0]
    z, sequences = model.encode(obs), jax.random.uniform(KEY, (40, 3, 2), minval=-1.0, maxval=1.0)

    # The mean over copies of one critic is its own estimate.
    copies = jax.tree.map(lambda x: jnp.stack([jnp.broadcast_to(row, x.shape) for row in x]), critics)

    @jax.jit
    def compare(state, sequences):
        fallback = agent.pretrained_fallback(state, z, obs)

        def estimates(critics):
            alone = eqx.tree_at(lambda s: s.model.critics, state, critics)
            return jax.vmap(partial(agent.imagined_return, alone, z))(sequences)

        return fallback.actions, jax.vmap(fallback.is_better)(sequences), jax.vmap(estimates)(copies)

    proposed, *_ = compare(state, sequences)
    np.testing.assert_allclose(proposed[0], agent.pretraining.act(model, state.pretrained, obs, KEY, NO), atol=1e-6)
    _, better, returns = compare(state, sequences.at[0].set(proposed))
    higher = np.asarray(returns) > np.asarray(returns)[:, :1]
    np.testing.assert_array_equal(better[1:], higher[:, 1:].all(axis=0))
    # Of equal sequences neither is better; compiled programs may round the two returns differently.
    fallback = agent.pretrained_fallback(state, z, obs)
    assert not fallback.is_better(fallback.actions)
    assert 0 < better.sum() < higher.any(axis=0).sum()


def test_agent_acts_by_its_fallback(make_pretrained, batch):
    agent, state, _ = make_pretrained(propose_actions=True)
    other = jax.jit(agent.init)(jax.random.key(8)).model
    state = eqx.tree_at(lambda s: s.model, state, other)
    # Critics that do not depend on the action, and a reward that does not either, agree on nothing.
    state = eqx.tree_at(lambda s: s.model.critics, state, jax.tree.map(jnp.zeros_like, other.critics))
    state = eqx.tree_at(lambda s: s.reward, state, jax.tree.map(jnp.zeros_like, state.reward))
    obs = batch.expert.obs[0, 0]
    action, _ = jax.jit(agent.act)(state, agent.init_plan(), obs, KEY, NO)
    np.testing.assert_allclose(action, agent.pretraining.act(other, state.pretrained, obs, KEY, NO), atol=1e-6)
