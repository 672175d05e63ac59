"""BC: it learns the expert's actions, and measures its loss on validation demonstrations."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.algos.base import Batch
from cdred.algos.factory import make_algorithm
from cdred.types import EnvSpec, Segment
from small_config import small_config

KEY = jax.random.key(4)
UPDATES = 1000


def expert_segments(key, gain, num=16):
    """Make segments of an expert with action `gain` / 2 times the first two components of its observation."""
    obs = jax.random.uniform(key, (num, 4, 3), minval=-1.0)
    action = gain * 0.5 * obs[:, :-1, :2]
    return Segment(obs, action, jnp.zeros((num, 3)), jnp.zeros((num, 4), bool))


@pytest.fixture(scope="module")
def bc():
    config = small_config()
    optim = replace(config.optim, learning_rate=3e-3, lr_decay_fraction=0.0)
    return make_algorithm(replace(config, algo="bc", optim=optim), EnvSpec("probe/fake", (3,), 2, 100))


@pytest.fixture(scope="module")
def train(bc):
    """Function that trains, given the gain of the validation demonstrations; returns the state and all metrics."""

    def step(gain, state, key):
        expert_key, validation_key = jax.random.split(key)
        batch = Batch(expert_segments(expert_key, 1.0), None, expert_segments(validation_key, gain))
        return bc.update(state, batch, key)

    keys = jax.vmap(lambda i: jax.random.fold_in(KEY, i))(jnp.arange(UPDATES))
    run = jax.jit(lambda gain: jax.lax.scan(partial(step, gain), bc.init(KEY), keys))
    return cache(lambda gain: run(jnp.array(gain)))


def actions(algorithm, state, obs):
    act = jax.jit(jax.vmap(lambda o: algorithm.act(state, algorithm.init_plan(), o, KEY, jnp.array(False))[0]))
    return act(obs)


def test_trained_policy_repeats_expert_actions(bc, train):
    state, metrics = train(1.0)
    obs = jax.random.uniform(jax.random.key(50), (64, 3), minval=-1.0)
    np.testing.assert_allclose(actions(bc, state, obs), 0.5 * obs[:, :2], atol=0.15)
    assert float(metrics["validation_loss"][-1]) < 0.1 * float(metrics["validation_loss"][0])
    assert all(jnp.isfinite(series).all() for series in metrics.values())


def test_validation_demos_are_measured_not_trained_on(train):
    """The validation demonstrations have smaller actions, so that training passes through their optimum."""
    state, metrics = train(0.4)
    other, _ = train(1.0)
    assert 5 < int(jnp.argmin(metrics["validation_loss"])) < 800
    # Actions 0.3 times the observation apart in two components, uniform in [-1, 1].
    assert float(metrics["validation_loss"][-100:].mean()) == pytest.approx(2 * 0.3**2 / 3, rel=0.2)
    jax.tree.map(np.testing.assert_array_equal, state, other)


def test_loss_is_mean_over_non_absorbing_states(bc):
    state, segments = jax.jit(bc.init)(KEY), expert_segments(KEY, 1.0, num=2)
    segments = segments._replace(absorbing=segments.absorbing.at[0, 2:].set(True))
    _, metrics = jax.jit(bc.update)(state, Batch(segments, None), KEY)
    steps = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    distance = [jnp.sum((state.policy(segments.obs[i, t]).mode - segments.action[i, t]) ** 2) for i, t in steps]
    assert float(metrics["loss"]) == pytest.approx(float(np.mean(distance)), rel=1e-5)
