import jax
import jax.numpy as jnp
import pytest

from cdred.algos.base import Batch
from cdred.algos.factory import make_algorithm
from cdred.types import Segment


def segments(key, num, expert, horizon=3):
    """Two kinds of behaviour that differ in where they are and in what they do there."""
    obs_key, action_key = jax.random.split(key)
    obs = 0.3 * jax.random.normal(obs_key, (num, horizon + 1, 3)) + jnp.where(expert, 1.0, -1.0)
    noise = jax.random.uniform(action_key, (num, horizon, 2), minval=-1.0)
    action = jnp.where(expert, 0.5 + 0.1 * noise, noise)
    return Segment(obs, action, jnp.sum(action, axis=-1), jnp.zeros((num, horizon + 1), bool))


@pytest.fixture
def make_batch():
    """Draws a batch: the expert's segments, and own ones that are the expert's too or quite different."""

    def build(key, num=8, like_expert=False):
        expert_key, own_key = jax.random.split(key)
        return Batch(segments(expert_key, num, True), segments(own_key, num, like_expert))

    return build


@pytest.fixture
def batch(make_batch):
    return make_batch(jax.random.key(5))


@pytest.fixture
def algorithm(config, spec):
    """CDRED at debug size."""
    return make_algorithm(config, spec)
