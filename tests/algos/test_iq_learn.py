"""IQ-Learn and IQ-MPC: the loss against a solution by hand, and its parts on the world model."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.algos.iq_learn import IQLearnConfig, iq_loss
from cdred.algos.losses import bootstrap_value
from cdred.nn.layers import SharedLatent

KEY = jax.random.key(11)


def test_two_state_problem_matches_solution_by_hand():
    """An action names the next state. The expert always leaves its state; the agent's actions are random.

    With r = Q - gamma V', alpha 1/2, gamma 0.9 and entropy coefficient 1, the loss is stationary where
    0.75 r(expert's action) = 1 - 0.1 p and 0.25 r(other action) = -0.1 (1 - p), p being the soft policy's probability
    of the expert's action. So they differ by 1.2 + (1 - p) 8/15, and 1 - p = sigmoid(-1.2 - (1 - p) 8/15) = 0.2120; by
    symmetry the same in both states.
    """
    gamma, state, agent_action = 0.9, jnp.array([0, 1, 0, 0, 1, 1]), jnp.array([0, 1, 0, 1])
    action = jnp.concatenate([1 - state[:2], agent_action])
    # The expert's half counts as much as the agent's half, which here has twice as many transitions.
    index = jnp.array([0, 1, 0, 1, 2, 3, 4, 5])

    def loss(q):
        v = jax.nn.logsumexp(q, axis=-1)
        next_value = gamma * jax.lax.stop_gradient(v[action])
        per_transition = iq_loss(
            (q[state, action] - next_value)[index][:, None, None], (1 - gamma) * v[state][index][:, None, None], 0.5
        )
        return jnp.mean(per_transition)

    q = jax.jit(lambda: jax.lax.fori_loop(0, 20_000, lambda _, q: q - 0.1 * jax.grad(loss)(q), jnp.zeros((2, 2))))()
    policy = jax.nn.softmax(q, axis=-1)
    assert float(policy[0, 1]) == pytest.approx(1 - 0.2120, abs=1e-3)
    assert float(policy[1, 0]) == pytest.approx(1 - 0.2120, abs=1e-3)
    decoded = q - gamma * jax.nn.logsumexp(q, axis=-1)[None]
    np.testing.assert_allclose(decoded, [[-0.4 * 0.2120, 0.9212 / 0.75], [0.9212 / 0.75, -0.4 * 0.2120]], atol=2e-3)


def test_trained_residuals_reach_their_optimum(make_agent, train_agent):
    """With alpha 1/2 and disjoint data, the optimal residuals are 2 (2 gamma where V is Q) and 0."""
    _, metrics = train_agent(make_agent("iqmpc"), 300)
    assert float(metrics["reward_expert"][-50:].mean()) == pytest.approx(2.0, abs=0.3)
    assert float(metrics["reward_agent"][-50:].mean()) == pytest.approx(0.0, abs=0.3)
    assert all(jnp.isfinite(series).all() for series in metrics.values())


def test_constant_critics_give_loss_by_hand(make_agent, batch):
    """Critics of value c, targets of value b: -(c - gamma b) + (1 - gamma) c + (c - gamma b)^2 / (4 alpha)."""
    agent, c, b = make_agent("iqmpc"), 3.0, 2.0
    state = jax.jit(agent.init)(KEY)
    biases = lambda s: (s.model.critics.members.head.bias, s.target_critics.members.head.bias)  # noqa: E731
    state = eqx.tree_at(biases, state, replace_fn=lambda x: jnp.full_like(x, c))
    state = eqx.tree_at(lambda s: s.target_critics.members.head.bias, state, replace_fn=lambda x: jnp.full_like(x, b))
    gamma, alpha = agent.discount, agent.method.config.chi2_coef
    expected = -(c - gamma * b) + (1 - gamma) * c + (c - gamma * b) ** 2 / (4 * alpha)
    # Times sum_t rho^t over three transitions; the policy's entropy coefficient is 1e-4.
    loss = jax.jit(agent.update)(state, batch, KEY)[1]["critic_loss"]
    assert float(loss) == pytest.approx(expected * 1.75, abs=5e-3)


def test_imagined_return_is_value_plus_advantages(make_agent):
    """sum_h gamma^h (Q_h - gamma V_{h+1}) + gamma^H V_H telescopes."""
    agent = make_agent("iqmpc")
    state = jax.jit(agent.init)(KEY)
    heads = jax.random.normal(KEY, state.model.critics.members.head.weight.shape)
    state = eqx.tree_at(lambda s: s.model.critics.members.head.weight, state, heads)
    model, actions = state.model, jax.random.uniform(KEY, (3, 2), minval=-1.0)
    z = jax.nn.softmax(jax.random.normal(KEY, (2, 8))).reshape(16)

    @jax.jit
    def imagined_and_telescoped():
        total, latent = jnp.zeros(()), z
        for h, action in enumerate(actions):
            advantage = jnp.mean(model.values(model.critics, latent, action)) - bootstrap_value(model, latent)
            total += agent.discount**h * advantage
            latent = model.predict_next(latent, action)
        return agent.imagined_return(state, SharedLatent(z), actions), total + bootstrap_value(model, z)

    imagined, telescoped = imagined_and_telescoped()
    assert float(imagined) == pytest.approx(float(telescoped), rel=1e-4)
    assert abs(float(imagined)) > 0.01


def test_gradient_penalty_penalizes_critic_slopes(make_agent, batch):
    """Critics of slope 0 are 1 away from slope 1."""
    plain, penalized = (make_agent("iqmpc", iq=IQLearnConfig(gradient_penalty=weight)) for weight in (0.0, 2.0))
    state = jax.jit(plain.init)(KEY)
    loss, penalized_loss = (jax.jit(a.update)(state, batch, KEY)[1]["critic_loss"] for a in (plain, penalized))
    assert float(penalized_loss - loss) == pytest.approx(2.0 * 1.75, rel=1e-3)
