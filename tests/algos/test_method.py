"""Invariants of both agents under any `Method`: the built-in ones with a reward model, and a custom one without."""

from dataclasses import replace
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.algos.factory import make_algorithm, make_method
from cdred.algos.losses import rho_weighted
from cdred.algos.method import Method, MethodLosses

KEY = jax.random.key(13)


class ExpertValue(Method):
    """Value regression on 1 for the expert's transitions and 0 for the agent's, without a reward model."""

    has_warmup: ClassVar[bool] = False
    scalar_critics: ClassVar[bool] = True

    def make_reward(self, input_dim, *, key):
        del input_dim, key

    def losses(self, state, batch, params, key):
        del key
        x = batch.state_actions(state.model)
        q = jax.vmap(jax.vmap(lambda x: state.model.critics(x)[:, 0]))(x)
        label = (jnp.arange(len(x)) < len(x) // 2).astype(jnp.float32)[:, None, None]
        loss = jnp.mean((q - label) ** 2, axis=-1)
        reward = jax.lax.stop_gradient(jnp.mean(q, axis=-1))
        return MethodLosses(rho_weighted(loss, params.rho), jnp.zeros(()), reward, {"q_abs_max": jnp.max(jnp.abs(q))})

    def reward(self, state, z, action, next_z, discount):
        del next_z, discount
        return jnp.mean(state.model.values(state.model.critics, z, action))


METHODS = ("custom", "cdred", "gail", "red", "tdmpc2")
# An algorithm of each agent with the right kind of critics; its method is replaced.
HOSTS = {"world model": ("iqmpc", "gail"), "sac": ("iqlearn-sac", "gail-sac")}


@pytest.fixture
def make_hosted(config, spec):
    """Function that makes an agent with any method."""

    def make(agent, name):
        method = ExpertValue() if name == "custom" else make_method(replace(config, algo=name))
        scalar, distributional = HOSTS[agent]
        host = make_algorithm(replace(config, algo=scalar if method.scalar_critics else distributional), spec)
        return replace(host, method=method)

    return make


def after_warmup(algorithm):
    """Initialise the state past the warm-up, with critics of random values."""
    state = jax.jit(algorithm.init)(KEY)
    critics = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(KEY, x.shape), state.model.critics)
    return eqx.tree_at(lambda s: (s.model.critics, s.updates), state, (critics, jnp.array(1000, jnp.int32)))


# Slow: an eager update compiles every operation by itself.
@pytest.mark.slow
@pytest.mark.parametrize("agent", HOSTS)
@pytest.mark.parametrize("method", METHODS)
def test_compiled_update_equals_eager(make_hosted, make_batch, agent, method):
    """The optimisers' moments are compared instead of the parameters: Adam's first step is the gradient's sign."""
    algorithm, batch = make_hosted(agent, method), make_batch(KEY, 2)
    batch = batch if algorithm.uses_demos else batch._replace(expert=None)
    state = after_warmup(algorithm)
    compiled, metrics = jax.jit(algorithm.update)(state, batch, KEY)
    eager, eager_metrics = algorithm.update(state, batch, KEY)
    assert all(jnp.isfinite(value) for value in metrics.values())
    assert {k: float(v) for k, v in eager_metrics.items()} == pytest.approx(
        {k: float(v) for k, v in metrics.items()}, rel=1e-4, abs=1e-5
    )
    names = [name for name in ("model_opt_state", "critic_opt_state", "policy_opt_state") if hasattr(state, name)]
    assert len(names) == 2
    for name in (*names, "target_critics"):
        leaves = zip(*(jax.tree.leaves(getattr(s, name)) for s in (eager, compiled)), strict=True)
        for eager_leaf, compiled_leaf in leaves:
            np.testing.assert_allclose(eager_leaf, compiled_leaf, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("agent", HOSTS)
def test_method_without_reward_model_trains_critics_and_policy(make_hosted, make_batch, agent):
    algorithm = make_hosted(agent, "custom")
    state, update = jax.jit(algorithm.init)(KEY), jax.jit(algorithm.update)
    assert state.reward is None
    first, _ = update(state, make_batch(KEY), KEY)
    for part in (lambda s: s.model.critics.members.head.weight, lambda s: s.model.policy.head.weight):
        assert not jnp.array_equal(part(first), part(state))
    for key in jax.random.split(KEY, 200):
        state, metrics = update(state, make_batch(key), key)
    assert float(metrics["reward_expert"]) > float(metrics["reward_agent"])


def test_agent_without_demos_has_no_bc_term(make_hosted, make_batch):
    """With a BC weight, the agent's own actions must not take the expert's place."""
    batch, algorithm = make_batch(KEY)._replace(expert=None), make_hosted("sac", "tdmpc2")
    assert algorithm.config.bc_coef > 0
    state = after_warmup(algorithm)
    updates = [replace(algorithm, config=replace(algorithm.config, bc_coef=coef)).update for coef in (0.0, 10.0)]
    metrics = [jax.jit(update)(state, batch, KEY)[1] for update in updates]
    assert "bc_loss" not in metrics[1]
    assert metrics[0]["policy_grad_norm"] == metrics[1]["policy_grad_norm"]
    world_model = make_hosted("world model", "tdmpc2")
    shapes = jax.eval_shape(lambda: world_model.update(world_model.init(KEY), batch, KEY)[1])
    assert "bc_loss" not in shapes
