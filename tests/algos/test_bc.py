"""Behavioural cloning learns what the expert did, and keeps what held up best on what it did not learn from."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.algos.base import Batch
from cdred.algos.factory import make_algorithm
from cdred.types import Segment

KEY = jax.random.key(4)


def played(key, gain, num=16):
    """An expert who plays `gain` times its observation's first two components, halved."""
    obs = jax.random.uniform(key, (num, 4, 3), minval=-1.0)
    action = gain * 0.5 * obs[:, :-1, :2]
    return Segment(obs, action, jnp.zeros((num, 3)), jnp.zeros((num, 4), bool))


@pytest.fixture
def algorithm(config, spec):
    optim = replace(config.optim, learning_rate=3e-3, lr_decay_fraction=0.0)
    return make_algorithm(replace(config, algo="bc", optim=optim), spec)


def learned(algorithm, held_out_gain, updates=400):
    def step(state, key):
        one, other = jax.random.split(key)
        return algorithm.update(state, Batch(played(one, 1.0), None, played(other, held_out_gain)), key)

    keys = jax.vmap(lambda i: jax.random.fold_in(KEY, i))(jnp.arange(updates))
    return jax.jit(lambda: jax.lax.scan(step, algorithm.init(KEY), keys))()


def actions(algorithm, state, obs):
    act = jax.jit(jax.vmap(lambda o: algorithm.act(state, algorithm.init_plan(), o, KEY, jnp.array(False))[0]))
    return act(obs)


def test_it_does_what_the_expert_did(algorithm):
    state, metrics = learned(algorithm, 1.0)
    obs = jax.random.uniform(jax.random.key(50), (64, 3), minval=-1.0)
    np.testing.assert_allclose(actions(algorithm, state, obs), 0.5 * obs[:, :2], atol=0.15)
    assert float(metrics["validation_loss"][-1]) < 0.1 * float(metrics["validation_loss"][0])
    assert all(jnp.isfinite(series).all() for series in metrics.values())


def test_it_acts_as_it_did_when_it_was_nearest_to_held_out_demonstrations(algorithm):
    """These play less than half of what is learned, so learning passes them by."""
    state, metrics = learned(algorithm, 0.4, 1000)
    best = int(jnp.argmin(metrics["validation_loss"]))
    assert 5 < best < 800
    assert float(state.best_loss) == pytest.approx(float(metrics["validation_loss"].min()), rel=1e-6)
    until_then, _ = learned(algorithm, 0.4, best + 1)
    obs = jax.random.uniform(jax.random.key(50), (64, 3), minval=-1.0)
    np.testing.assert_allclose(actions(algorithm, state, obs), actions(algorithm, until_then, obs), atol=1e-6)


def test_the_loss_is_the_distance_from_what_was_done_while_the_world_lasted(algorithm):
    state, segments = jax.jit(algorithm.init)(KEY), played(KEY, 1.0, num=2)
    segments = segments._replace(absorbing=segments.absorbing.at[0, 2:].set(True))
    _, metrics = jax.jit(algorithm.update)(state, Batch(segments, None, segments), KEY)
    lived = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    distance = [jnp.sum((state.clone(segments.obs[i, t]).mode - segments.action[i, t]) ** 2) for i, t in lived]
    assert float(metrics["loss"]) == pytest.approx(float(np.mean(distance)), rel=1e-5)
