"""GAIL, RED and IQ-MPC on the world model: what each learns from, and that it tells the expert apart."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.algos.factory import make_algorithm
from cdred.algos.iq_learn import iq_loss
from cdred.algos.method import Lived, joined
from cdred.algos.world_model_agent import mean_value
from cdred.config import IQLearnConfig
from cdred.nn.layers import Fixed

KEY = jax.random.key(11)


@pytest.fixture
def peer(config, spec):
    """Builds a peer that learns something in a test, by its own objective alone."""
    optim = replace(config.optim, learning_rate=3e-3, lr_decay_fraction=0.0, tau=0.05, bc_coef=0.0)
    return lambda algo, **changes: make_algorithm(replace(config, algo=algo, optim=optim, **changes), spec)


def learned(algorithm, make_batch, updates):
    def step(state, key):
        batch_key, update_key = jax.random.split(key)
        return algorithm.update(state, make_batch(batch_key, 16), update_key)

    run = jax.jit(lambda key: jax.lax.scan(step, algorithm.init(key), jax.random.split(key, updates)))
    return run(jax.random.key(1))


def said(algorithm, state, segments):
    """The reward that its planner sees, of every transition."""
    reward = jax.jit(jax.vmap(jax.vmap(algorithm.reward_at, (None, 0, 0)), (None, 0, 0)))
    return reward(state, segments.obs[:, :-1], segments.action)


@pytest.mark.parametrize("algo", ["gail", "red"])
def test_after_training_the_reward_ranks_the_expert_above_other_behaviour(peer, make_batch, algo):
    algorithm = peer(algo)
    state, metrics = learned(algorithm, make_batch, 300)
    validation = make_batch(jax.random.key(99), 32)
    expert, own = said(algorithm, state, validation.expert), said(algorithm, state, validation.agent)
    assert float(jnp.percentile(expert, 5.0)) > float(jnp.median(own)) + 0.5
    assert float(metrics["reward_expert"][-1]) > float(metrics["reward_agent"][-1]) + 0.5
    assert all(jnp.isfinite(series).all() for series in metrics.values())


def test_iqmpcs_residuals_come_to_be_high_on_the_experts_data_and_stay_bounded(peer, make_batch):
    """With alpha 1/2 and stores that do not meet, the best residuals are 2, or 2 gamma where V is Q, and 0."""
    _, metrics = learned(peer("iqmpc"), make_batch, 300)
    assert float(metrics["reward_expert"][-50:].mean()) == pytest.approx(2.0, abs=0.3)
    assert float(metrics["reward_agent"][-50:].mean()) == pytest.approx(0.0, abs=0.3)
    assert all(jnp.isfinite(series).all() for series in metrics.values())


def test_gail_is_undecided_about_its_own_kind_and_pays_the_penalty(peer, batch):
    algorithm = peer("gail")
    state = jax.jit(algorithm.init)(KEY)
    _, metrics = jax.jit(algorithm.update)(state, batch, KEY)
    # A head of zeros: log 2 everywhere, and a slope of 0, which is 1 from 1. Times sum_t lambda^t over three steps.
    assert float(metrics["reward_loss"]) == pytest.approx((np.log(2) + algorithm.gradient_penalty) * 1.75, rel=1e-4)
    assert float(metrics["reward_agent"]) == 0.0


def test_red_learns_from_the_expert_alone(peer, batch):
    algorithm = peer("red")
    state = jax.jit(algorithm.init)(KEY)
    other = batch._replace(agent=eqx.tree_at(lambda s: s.action, batch.agent, -batch.agent.action))
    latents = jax.nn.softmax(jax.random.normal(KEY, (16, 4, 2, 8))).reshape(16, 4, 16)

    @jax.jit
    def gradient(batch):
        lived = Lived(joined(batch), latents, latents[:, 1:])
        loss = lambda reward: algorithm.score(reward, lived, KEY).loss.sum()  # noqa: E731
        return jax.grad(loss)(state.reward)

    one, another = gradient(batch), gradient(other)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, one, another))
    assert float(jnp.abs(one.predictor.head.weight).max()) > 0
    assert float(jnp.abs(one.target.head.weight).max()) == 0


def test_reds_reward_is_one_at_the_target_and_falls_with_the_distance(peer):
    reward = jax.jit(peer("red").init)(KEY).reward
    x = jax.random.normal(KEY, (18,))
    assert float(eqx.tree_at(lambda r: r.predictor, reward, reward.target)(x)) == 1.0
    distance = float(jnp.sum((reward.predictor(x) - reward.target(x)) ** 2))
    assert float(reward(x)) == pytest.approx(np.exp(-distance), rel=1e-5)


def test_iq_recovers_the_experts_action_on_two_states_solved_by_hand():
    """An action names the next state. The expert always leaves, the agent has played at random.

    With r = Q - gamma V', alpha 1/2, gamma .9 and temperature 1, the loss is stationary where .75 r(expert's) =
    1 - .1 p and .25 r(other) = -.1 (1 - p), p being the soft policy's share of the expert's action. So they differ by
    1.2 + (1 - p) 8/15, and 1 - p = sigmoid(-1.2 - (1 - p) 8/15) = .2120; by symmetry the same in both states.
    """
    gamma, state, own_action = 0.9, jnp.array([0, 1, 0, 0, 1, 1]), jnp.array([0, 1, 0, 1])
    action = jnp.concatenate([1 - state[:2], own_action])
    # The expert's half counts as much as the own half, which here has twice as many transitions.
    index = jnp.array([0, 1, 0, 1, 2, 3, 4, 5])

    def loss(q):
        v = jax.nn.logsumexp(q, axis=-1)
        following = gamma * jax.lax.stop_gradient(v[action])
        per_transition = iq_loss(
            (q[state, action] - following)[index][:, None, None], (1 - gamma) * v[state][index][:, None, None], 0.5
        )
        return jnp.mean(per_transition)

    q = jax.jit(lambda: jax.lax.fori_loop(0, 20_000, lambda _, q: q - 0.1 * jax.grad(loss)(q), jnp.zeros((2, 2))))()
    policy = jax.nn.softmax(q, axis=-1)
    assert float(policy[0, 1]) == pytest.approx(1 - 0.2120, abs=1e-3)
    assert float(policy[1, 0]) == pytest.approx(1 - 0.2120, abs=1e-3)
    decoded = q - gamma * jax.nn.logsumexp(q, axis=-1)[None]
    np.testing.assert_allclose(decoded, [[-0.4 * 0.2120, 0.9212 / 0.75], [0.9212 / 0.75, -0.4 * 0.2120]], atol=2e-3)


def test_iqmpcs_values_are_pressed_on_with_one_minus_gamma(peer, batch):
    """Critics that say c, targets that say b: -(c - gamma b) + (1 - gamma) c + (c - gamma b)^2 / (4 alpha)."""
    algorithm, c, b = peer("iqmpc"), 3.0, 2.0
    state = jax.jit(algorithm.init)(KEY)
    biases = lambda s: (s.model.critics.members.head.bias, s.target_critics.members.head.bias)  # noqa: E731
    state = eqx.tree_at(biases, state, replace_fn=lambda x: jnp.full_like(x, c))
    state = eqx.tree_at(lambda s: s.target_critics.members.head.bias, state, replace_fn=lambda x: jnp.full_like(x, b))
    gamma = algorithm.discount
    expected = -(c - gamma * b) + (1 - gamma) * c + (c - gamma * b) ** 2 / (4 * algorithm.alpha)
    # Times sum_t lambda^t over three steps; the policy's entropy weighs 1e-4.
    loss = jax.jit(algorithm.update)(state, batch, KEY)[1]["critic_loss"]
    assert float(loss) == pytest.approx(expected * 1.75, abs=5e-3)


def test_iqmpcs_plan_is_worth_its_first_value_and_what_each_action_adds(peer):
    """sum_h gamma^h (Q_h - gamma V_{h+1}) + gamma^H V_H telescopes."""
    algorithm = peer("iqmpc")
    state = jax.jit(algorithm.init)(KEY)
    heads = jax.random.normal(KEY, state.model.critics.members.head.weight.shape)
    state = eqx.tree_at(lambda s: s.model.critics.members.head.weight, state, heads)
    model, actions = state.model, jax.random.uniform(KEY, (3, 2), minval=-1.0)
    z = jax.nn.softmax(jax.random.normal(KEY, (2, 8))).reshape(16)

    @jax.jit
    def both():
        total, latent = jnp.zeros(()), z
        for h, action in enumerate(actions):
            advantage = jnp.mean(model.values(model.critics, latent, action)) - mean_value(model, latent)
            total += algorithm.discount**h * advantage
            latent = model.imagine(latent, action)
        return algorithm.imagined_return(state, Fixed(z), actions), total + mean_value(model, z)

    planned, telescoped = both()
    assert float(planned) == pytest.approx(float(telescoped), rel=1e-4)
    assert abs(float(planned)) > 0.01


def test_iqmpcs_penalty_is_of_the_critics_slopes(peer, batch):
    """Critics of zero slope are 1 from 1."""
    without, penalised = (peer("iqmpc", iqmpc=IQLearnConfig(gradient_penalty=weight)) for weight in (0.0, 2.0))
    state = jax.jit(without.init)(KEY)
    plain, more = (jax.jit(a.update)(state, batch, KEY)[1]["critic_loss"] for a in (without, penalised))
    assert float(more - plain) == pytest.approx(2.0 * 1.75, rel=1e-3)
