"""Demonstrations without actions: the expert's states shape the reward, and nothing else learns from them."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.algos.factory import make_algorithm
from cdred.algos.method import concat_batch
from cdred.algos.rollouts import batch_latents, rollout_latents
from cdred.config import needs_actions, preset, without_actions

KEY = jax.random.key(3)


@pytest.fixture
def observed(make_batch):
    """Function that makes a batch whose expert has no actions, its observations shifted."""

    def make(shift=0.0):
        batch = make_batch(KEY, 4)
        expert = batch.expert._replace(obs=batch.expert.obs + shift, action=jnp.zeros((4, 3, 0)))
        return batch._replace(expert=expert)

    return make


@pytest.fixture
def make_observer(config, spec):
    """Function that makes an agent as trained on demonstrations without actions, past the warm-up at once."""

    def make(algo):
        name = algo.removesuffix("-sac")
        reward = replace(getattr(config, name), input="transition")
        optim = replace(config.optim, reward_warmup_updates=0)
        return make_algorithm(without_actions(replace(config, algo=algo, optim=optim, **{name: reward})), spec)

    return make


@pytest.mark.parametrize("algo", ["cdred", "cdred-sac"])
def test_only_the_reward_learns_from_the_states_of_the_expert(make_observer, observed, algo):
    algorithm = make_observer(algo)
    state, update = jax.jit(algorithm.init)(KEY), jax.jit(algorithm.update)
    (new, metrics), (_, other) = (update(state, observed(shift), KEY) for shift in (0.0, 5.0))
    assert all(np.isfinite(value) for value in metrics.values())
    assert "bc_loss" not in metrics
    # Losses of what predicts the outcomes of actions are those of the agent's own transitions.
    for name in ("consistency_loss", "termination_loss", "critic_loss"):
        assert metrics.get(name) == other.get(name)
    assert metrics["critic_loss"] > 0
    assert metrics["reward_loss"] != other["reward_loss"]
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), new.reward.trainable, state.reward.trainable)
    assert any(jax.tree.leaves(moved))


def test_latents_of_the_expert_are_encodings(initial_state, observed, batch):
    model, segments = initial_state.model, concat_batch(observed())
    latents = jax.jit(batch_latents)(model, segments)
    encode = jax.vmap(jax.vmap(model.encode))
    np.testing.assert_allclose(latents[:4], encode(segments.obs[:4]), rtol=1e-5, atol=1e-6)
    own = jax.tree.map(lambda x: x[-4:], segments)
    np.testing.assert_allclose(latents[4:], jax.vmap(rollout_latents, (None, 0))(model, own), rtol=1e-5, atol=1e-6)
    known = concat_batch(batch)
    rolled_out = jax.vmap(rollout_latents, (None, 0))(model, known)
    np.testing.assert_allclose(batch_latents(model, known), rolled_out, rtol=1e-5, atol=1e-6)


def test_diagnostics_leave_unknown_actions_out(make_observer, observed):
    algorithm, batch = make_observer("cdred"), observed()
    batch = batch._replace(validation=batch.expert)
    args = (batch, batch.agent, jnp.ones(4, bool), KEY)
    metrics = jax.jit(lambda key: algorithm.diagnostics(algorithm.init(key), *args))(KEY)
    assert "action_error_validation" not in metrics
    assert float(metrics["novelty_validation"]) == float(metrics["novelty_expert"]) > 0


@pytest.mark.parametrize(
    ("algo", "settings", "needs"),
    [
        ("cdred", {}, True),
        ("cdred", {"cdred": "transition"}, False),
        ("cdred-sac", {"cdred": "state"}, False),
        ("gail", {"cdred": "state"}, True),
        ("red-sac", {"red": "state"}, False),
        ("bc", {"cdred": "state"}, True),
        ("iqmpc", {}, True),
        ("iqlearn-sac", {}, True),
    ],
)
def test_which_algorithms_need_actions(algo, settings, needs):
    config = replace(preset("cpu"), algo=algo)
    inputs = {name: replace(getattr(config, name), input=kind) for name, kind in settings.items()}
    assert needs_actions(replace(config, **inputs)) == needs
