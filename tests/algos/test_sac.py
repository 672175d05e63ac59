"""The peers on raw observations: what they see, and that each comes to do what the expert does."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.algos.base import Batch
from cdred.algos.factory import make_algorithm
from cdred.algos.sac_agent import _lived
from cdred.config import SACConfig
from cdred.types import Segment

KEY = jax.random.key(21)
REWARDED = ("gail-sac", "red-sac", "cdred-sac")


@pytest.fixture
def peer(config, spec):
    """Builds a method that nothing but its reward tells what the expert does."""
    optim = replace(config.optim, learning_rate=3e-3, lr_decay_fraction=0.0, tau=0.05, bc_coef=0.0, batch_size=32)
    settings = replace(config, optim=optim, model=replace(config.model, hidden_dims=(32, 32)))
    return lambda algo, spec=spec, **changes: make_algorithm(replace(settings, algo=algo, **changes), spec)


def played(key, own, num=32):
    """Observations that no action changes; the expert plays half of what it sees, and `own` is another's actions."""
    obs_key, action_key = jax.random.split(key)
    obs = jax.random.uniform(obs_key, (num, 4, 3), minval=-1.0)
    action = 0.5 * obs[:, :-1, :2]
    if own:
        action = jax.random.uniform(action_key, action.shape, minval=-1.0)
    return Segment(obs, action, jnp.zeros((num, 3)), jnp.zeros((num, 4), bool))


def learned(algorithm, updates):
    def step(state, key):
        expert_key, own_key, update_key = jax.random.split(key, 3)
        return algorithm.update(state, Batch(played(expert_key, False), played(own_key, True)), update_key)

    run = jax.jit(lambda: jax.lax.scan(step, algorithm.init(KEY), jax.random.split(jax.random.key(1), updates)))
    return run()


@pytest.mark.parametrize("algo", ["iqlearn-sac", *REWARDED])
def test_it_comes_to_do_what_the_expert_does(peer, algo):
    """Actions drawn at random are 0.56 from the expert's on average, those of a policy that knows no better 0.35."""
    algorithm = peer(algo)
    state, metrics = learned(algorithm, 600)
    obs = jax.random.uniform(jax.random.key(50), (256, 3), minval=-1.0)
    act = jax.jit(jax.vmap(lambda o: algorithm.act(state, algorithm.init_plan(), o, KEY, jnp.array(False))[0]))
    assert float(jnp.linalg.norm(act(obs) - 0.5 * obs[:, :2], axis=-1).mean()) < 0.2
    assert all(jnp.isfinite(series).all() for series in metrics.values())
    assert float(metrics["reward_expert"][-50:].mean()) > float(metrics["reward_agent"][-50:].mean()) + 0.1


def test_it_learns_from_transitions_as_they_were_lived_through(peer):
    model = jax.jit(peer("iqlearn-sac").init)(KEY).model
    batch = Batch(played(jax.random.key(1), False, 2), played(jax.random.key(2), True, 2))
    lived = _lived(model, batch)
    rows = [(store, i, t) for store in batch[:2] for i in range(2) for t in range(3)]
    np.testing.assert_array_equal(lived.latents[:, 0], [store.obs[i, t] for store, i, t in rows])
    np.testing.assert_array_equal(lived.encoded[:, 0], [store.obs[i, t + 1] for store, i, t in rows])
    np.testing.assert_array_equal(lived.inputs[:, 0, 3:], [store.action[i, t] for store, i, t in rows])


def test_an_ended_world_is_seen_as_such_and_as_nothing_else(peer, spec):
    model = jax.jit(peer("gail-sac", replace(spec, can_terminate=True)).init)(KEY).model
    segments = played(KEY, False, 1)
    ended = segments._replace(absorbing=jnp.array([[False, False, True, True]]))
    lived = _lived(model, Batch(ended, ended))
    np.testing.assert_array_equal(lived.latents[0], jnp.pad(segments.obs[0, :2], ((0, 0), (0, 1))))
    np.testing.assert_array_equal(lived.latents[1, 1], [0, 0, 0, 1])
    np.testing.assert_array_equal(lived.latents[2], [[0, 0, 0, 1], [0, 0, 0, 1]])


def test_values_count_the_entropy_of_what_is_done_next(peer):
    """With critics of zeros and discount g, a target is r - g beta log pi: in the mean r + g beta times the entropy."""
    without, with_entropy = (peer("red-sac", sac=SACConfig(temperature)) for temperature in (0.0, 0.5))
    state = jax.jit(without.init)(KEY)
    batch = Batch(played(jax.random.key(1), False, 512), played(jax.random.key(2), True, 512))
    plain, more = (jax.jit(algorithm.update)(state, batch, KEY)[1] for algorithm in (without, with_entropy))
    added = float(more["td_target"] - plain["td_target"])
    assert added == pytest.approx(without.discount * 0.5 * float(plain["policy_entropy"]), rel=0.05)
    assert abs(added) > 0.05


def test_the_imitation_term_is_the_policys_distance_from_the_expert(peer):
    algorithm = peer("iqlearn-sac")
    state, batch = jax.jit(algorithm.init)(KEY), Batch(played(KEY, False), played(KEY, True))
    modes = jax.vmap(jax.vmap(lambda obs: state.model.pi(obs).mode))(batch.expert.obs[:, :-1])
    distance = jnp.mean(jnp.sum((modes - batch.expert.action) ** 2, axis=-1))
    _, metrics = jax.jit(algorithm.update)(state, batch, KEY)
    assert float(metrics["bc_loss"]) == pytest.approx(float(distance), rel=1e-4)


def test_nothing_but_the_reward_model_learns_while_it_warms_up(peer):
    algorithm = peer("gail-sac")
    state = jax.jit(algorithm.init)(KEY)
    after, _ = jax.jit(algorithm.update)(state, Batch(played(KEY, False), played(KEY, True)), KEY)
    assert algorithm.warmup_updates > 1
    assert jax.tree.all(jax.tree.map(jnp.array_equal, after.model, state.model))
    assert not jnp.array_equal(after.reward.network.head.weight, state.reward.network.head.weight)
