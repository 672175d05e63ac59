import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdred.envs.failures import SimulatorError
from cdred.envs.jax_env import JaxEnvAdapter
from cdred.envs.jax_vector_env import NOT_FINITE, JaxVectorEnv, Origin, episode_seeds, make_vector_env
from cdred.envs.registry import functional, make
from cdred.envs.suites.jax_probes import JaxDying
from cdred.envs.suites.probes import Dying, Point
from cdred.envs.vector_env import STREAMS, VectorEnv, episode_seed
from cdred.errors import UserError

word = st.integers(0, 2**32 - 1)


@given(seed=word, stream=st.sampled_from(STREAMS), env=st.integers(0, 10**6), episode=st.integers(0, 2**31 - 1))
def test_an_episodes_seed_on_the_device_is_the_hosts(seed, stream, env, episode):
    words = [jnp.full((1, 1), one, jnp.uint32) for one in (seed, STREAMS.index(stream), env, episode)]
    assert int(episode_seeds(Origin(*words[:3]), words[3])[0, 0]) == episode_seed(seed, stream, env, episode)


@pytest.mark.parametrize(("task", "host"), [("point", Point), ("dying", Dying)])
def test_the_twins_move_as_the_probes_do(task, host):
    twin, env = make(f"jaxprobe/{task}"), host()
    assert (twin.spec.obs_shape, twin.spec.action_dim) == (env.spec.obs_shape, env.spec.action_dim)
    for seed in range(5):
        start, actions = twin.reset(seed), np.random.default_rng(seed)
        env.reset(seed)
        if task == "point":
            env._position, env._goal = start[:2].astype(float), start[2:].astype(float)
        else:
            env._position = float(start[0])
        ended = False
        while not ended:
            action = actions.uniform(-2, 2, env.spec.action_dim).astype(np.float32)
            one, other = twin.step(action), env.step(action)
            np.testing.assert_allclose(one.obs, other.obs, atol=1e-5)
            np.testing.assert_allclose(one.reward, other.reward, atol=1e-5)
            assert (one.terminated, one.truncated) == (other.terminated, other.truncated)
            assert one.success == other.success
            ended = one.terminated or one.truncated


def grids(task, seeds=(0, 3), envs=2, stream="train"):
    return make_vector_env(task, seeds, envs, stream), make_vector_env(
        task, seeds, envs, stream, vectorization="thread"
    )


def actions(grid, steps):
    return np.random.default_rng(0).uniform(-1.2, 1.2, (steps, *grid.shape, grid.spec.action_dim)).astype(np.float32)


@pytest.mark.parametrize("task", ["jaxprobe/point", "jaxprobe/dying"])
def test_the_grid_on_the_device_lives_what_the_hosts_grid_lives(task):
    device, host = grids(task)
    assert isinstance(device, JaxVectorEnv)
    assert isinstance(host, VectorEnv)
    with device, host:
        np.testing.assert_array_equal(device.reset(), host.reset())
        for action in actions(device, 50):
            one, other = device.step(action), host.step(action)
            for a, b in zip(one, other, strict=True):
                np.testing.assert_allclose(a, b, atol=1e-6)
            ended = one.terminated | one.truncated
            np.testing.assert_allclose(device.reset(ended), host.reset(ended), atol=1e-6)
            assert [device.episode_seed(*cell) for cell in np.ndindex(device.shape)] == [
                host.episode_seed(*cell) for cell in np.ndindex(host.shape)
            ]


def test_a_row_is_what_it_would_be_alone():
    both, alone = make_vector_env("jaxprobe/point", (0, 3), 2), make_vector_env("jaxprobe/point", (3,), 2)
    np.testing.assert_array_equal(both.reset()[1:], alone.reset())
    for action in actions(both, 20):
        np.testing.assert_array_equal(both.step(action).obs[1:], alone.step(action[1:]).obs)


def test_a_restored_grid_goes_on_bit_for_bit():
    grid, other = make_vector_env("jaxprobe/dying", (0, 1), 2), make_vector_env("jaxprobe/dying", (0, 1), 2)
    grid.reset()
    chosen = 0.1 * actions(grid, 15)
    for action in chosen[:7]:
        grid.step(action)
    other.restore(grid.snapshot())
    for action in chosen[7:]:
        np.testing.assert_array_equal(grid.step(action).obs, other.step(action).obs)
    np.testing.assert_array_equal(grid.reset(), other.reset())
    with pytest.raises(ValueError, match="seeds"):
        make_vector_env("jaxprobe/dying", (5, 6), 2).restore(grid.snapshot())


def test_a_step_before_a_reset_is_refused():
    grid = make_vector_env("jaxprobe/point", (0,), 1)
    with pytest.raises(RuntimeError, match="step before reset"):
        grid.step(np.zeros((1, 1, 2), np.float32))
    with pytest.raises(UserError, match=">= 0"):
        make_vector_env("jaxprobe/point", (-1,))


@pytest.mark.parametrize("action", [np.zeros((1, 1, 3)), np.full((1, 1, 2), np.nan)])
def test_actions_of_another_shape_or_not_finite_are_refused(action):
    grid = make_vector_env("jaxprobe/point", (0,))
    grid.reset()
    with pytest.raises(ValueError, match=r"finite actions of shape \(1, 1, 2\)"):
        grid.step(action)


def spoilt(grid, *cells):
    """The grid, the simulators of these cells having left the numbers."""
    for cell in cells:
        grid.state = grid.state._replace(env=grid.state.env.at[cell].set(jnp.nan))


def test_an_episode_that_leaves_the_numbers_is_given_up_and_the_others_live_on():
    said = []
    grid, whole = (make_vector_env("jaxprobe/dying", (0, 7), 2, say=said.append) for _ in range(2))
    before = grid.reset()
    whole.reset()
    spoilt(grid, (1, 0))
    step, other = (one.step(np.zeros((2, 2, 1), np.float32)) for one in (grid, whole))
    assert step.void.tolist() == [[False, False], [True, False]]
    np.testing.assert_array_equal(step.obs[1, 0], before[1, 0])
    assert [bool(field[1, 0]) for field in step[1:5]] == [False] * 4
    for field, undisturbed in zip(step, other, strict=True):
        np.testing.assert_array_equal(field[0], undisturbed[0])
        np.testing.assert_array_equal(field[1, 1], undisturbed[1, 1])
    assert grid.broken.tolist() == [0, 1]
    assert said == ["jaxprobe/dying, seed 7, environment 0: an episode is given up: " + NOT_FINITE]
    with pytest.raises(RuntimeError, match="step before reset"):
        grid.step(np.zeros((2, 2, 1), np.float32))
    begun = grid.reset(step.ended)
    np.testing.assert_array_equal(begun[1, 0], make("jaxprobe/dying").reset(episode_seed(7, "train", 0, 1)))
    resumed = make_vector_env("jaxprobe/dying", (0, 7), 2)
    resumed.restore(grid.snapshot())
    assert resumed.broken.tolist() == [0, 1]


def test_an_episode_that_begins_beyond_the_numbers_is_given_up_at_its_first_decision(monkeypatch):
    env, first = JaxDying(), jnp.uint32(episode_seed(0, "train", 0, 0))
    whole = env.reset

    def reset(seed):
        state, obs = whole(seed)
        return state, jnp.where(seed == first, jnp.nan, obs)

    monkeypatch.setattr(env, "reset", reset)
    grid = JaxVectorEnv(env, (0,), say=lambda _: None)
    assert np.isfinite(grid.reset()).all()
    assert grid.step(np.zeros((1, 1, 1), np.float32)).void.all()
    np.testing.assert_array_equal(grid.reset()[0, 0], whole(jnp.uint32(episode_seed(0, "train", 0, 1)))[1])
    assert not grid.step(np.zeros((1, 1, 1), np.float32)).void.any()
    assert grid.broken.tolist() == [1]


def test_a_simulator_on_the_device_that_only_breaks_ends_it():
    grid = make_vector_env("jaxprobe/dying", (0,), say=lambda _: None)

    def another():
        grid.reset()
        spoilt(grid, (0, 0))
        return grid.step(np.zeros((1, 1, 1), np.float32))

    assert [another().void.all() for _ in range(2)] == [True, True]
    with pytest.raises(SimulatorError, match="jaxprobe/dying, seed 0, environment 0: 3 episodes in a row") as caught:
        another()
    assert grid.broken.tolist() == [3]
    assert NOT_FINITE in str(caught.value)


def test_one_object_a_task_and_none_for_a_simulator_on_the_host():
    assert functional("jaxprobe/point") is functional("jaxprobe/point")
    assert functional("probe/point") is None
    assert isinstance(make("jaxprobe/point"), JaxEnvAdapter)
    with pytest.raises(UserError, match="no picture"):
        make_vector_env("jaxprobe/point", (0,)).render(0, 0)


def test_where_no_episode_ends_no_reset_is_computed():
    grid = make_vector_env("jaxprobe/point", (0,), 1)
    from cdred.envs.jax_vector_env import begin

    text = str(
        jax.make_jaxpr(lambda state, mask: begin(grid.env, grid.origin, state, mask))(grid.state, np.ones((1, 1), bool))
    )
    assert "cond[" in text
