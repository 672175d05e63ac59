import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.envs.failures import SimulatorError
from cdred.envs.jax_env import JaxEnvAdapter
from cdred.envs.jax_vector_env import NON_FINITE, JaxVectorEnv, reset_where
from cdred.envs.make import make_vector_env
from cdred.envs.registry import jax_env, make
from cdred.envs.seeding import episode_seed
from cdred.envs.suites.jax_probes import JaxTerminatingLine
from cdred.envs.suites.probes import Point, TerminatingLine
from cdred.envs.vector_env import VectorEnv
from cdred.errors import UserError


def ignore(_text):
    pass


@pytest.mark.parametrize(("task", "host_class"), [("point", Point), ("dying", TerminatingLine)])
def test_jax_probe_equals_numpy_probe(task, host_class):
    env, host = make(f"jaxprobe/{task}"), host_class()
    assert (env.spec.obs_shape, env.spec.action_dim) == (host.spec.obs_shape, host.spec.action_dim)
    for seed in range(5):
        obs, generator = env.reset(seed), np.random.default_rng(seed)
        host.reset(seed)
        if task == "point":
            host._position, host._goal = obs[:2].astype(float), obs[2:].astype(float)
        else:
            host._position = float(obs[0])
        done = False
        while not done:
            action = generator.uniform(-2, 2, host.spec.action_dim).astype(np.float32)
            step, host_step = env.step(action), host.step(action)
            np.testing.assert_allclose(step.obs, host_step.obs, atol=1e-5)
            np.testing.assert_allclose(step.reward, host_step.reward, atol=1e-5)
            assert (step.terminated, step.truncated) == (host_step.terminated, host_step.truncated)
            assert step.success == host_step.success
            done = step.terminated or step.truncated


def make_both(task, seeds=(0, 3), num_envs=2):
    device = make_vector_env(task, seeds, num_envs)
    return device, make_vector_env(task, seeds, num_envs, vectorization="thread")


def random_actions(envs, steps):
    return np.random.default_rng(0).uniform(-1.2, 1.2, (steps, *envs.shape, envs.spec.action_dim)).astype(np.float32)


@pytest.mark.parametrize("task", ["jaxprobe/point", "jaxprobe/dying"])
def test_device_envs_run_the_same_episodes_as_host(task):
    device, host = make_both(task)
    assert isinstance(device, JaxVectorEnv)
    assert isinstance(host, VectorEnv)
    with device, host:
        np.testing.assert_array_equal(device.reset(), host.reset())
        for action in random_actions(device, 50):
            step, host_step = device.step(action), host.step(action)
            for a, b in zip(step, host_step, strict=True):
                np.testing.assert_allclose(a, b, atol=1e-6)
            np.testing.assert_allclose(device.reset(step.done), host.reset(step.done), atol=1e-6)
            assert [device.episode_seed(*slot) for slot in np.ndindex(device.shape)] == [
                host.episode_seed(*slot) for slot in np.ndindex(host.shape)
            ]


def test_seed_is_independent_of_other_seeds():
    two_seeds, one_seed = make_vector_env("jaxprobe/point", (0, 3), 2), make_vector_env("jaxprobe/point", (3,), 2)
    np.testing.assert_array_equal(two_seeds.reset()[1:], one_seed.reset())
    for action in random_actions(two_seeds, 20):
        np.testing.assert_array_equal(two_seeds.step(action).obs[1:], one_seed.step(action[1:]).obs)


def test_restored_envs_continue_identically():
    envs, restored = make_vector_env("jaxprobe/dying", (0, 1), 2), make_vector_env("jaxprobe/dying", (0, 1), 2)
    envs.reset()
    actions = 0.1 * random_actions(envs, 15)
    for action in actions[:7]:
        envs.step(action)
    restored.restore(envs.snapshot())
    for action in actions[7:]:
        np.testing.assert_array_equal(envs.step(action).obs, restored.step(action).obs)
    np.testing.assert_array_equal(envs.reset(), restored.reset())
    with pytest.raises(ValueError, match=r"of seeds \[0, 1\], expected \[5, 6\]"):
        make_vector_env("jaxprobe/dying", (5, 6), 2).restore(envs.snapshot())


def test_step_before_reset_is_rejected():
    envs = make_vector_env("jaxprobe/point", (0,), 1)
    with pytest.raises(RuntimeError, match="step before reset"):
        envs.step(np.zeros((1, 1, 2), np.float32))
    with pytest.raises(UserError, match=">= 0"):
        make_vector_env("jaxprobe/point", (-1,))


@pytest.mark.parametrize("action", [np.zeros((1, 1, 3)), np.full((1, 1, 2), np.nan)])
def test_invalid_actions_are_rejected(action):
    envs = make_vector_env("jaxprobe/point", (0,))
    envs.reset()
    with pytest.raises(ValueError, match=r"finite actions of shape \(1, 1, 2\)"):
        envs.step(action)


def set_nan(envs, *slots):
    """Set the simulator states of these slots to NaN."""
    for slot in slots:
        envs.state = envs.state._replace(env=envs.state.env.at[slot].set(jnp.nan))


def test_non_finite_step_aborts_only_its_episode():
    log = []
    envs, undisturbed = (make_vector_env("jaxprobe/dying", (0, 7), 2, log=log.append) for _ in range(2))
    before = envs.reset()
    undisturbed.reset()
    set_nan(envs, (1, 0))
    step, expected = (one.step(np.zeros((2, 2, 1), np.float32)) for one in (envs, undisturbed))
    assert step.invalid.tolist() == [[False, False], [True, False]]
    np.testing.assert_array_equal(step.obs[1, 0], before[1, 0])
    assert [bool(field[1, 0]) for field in step[1:5]] == [False] * 4
    for field, expected_field in zip(step, expected, strict=True):
        np.testing.assert_array_equal(field[0], expected_field[0])
        np.testing.assert_array_equal(field[1, 1], expected_field[1, 1])
    assert envs.failed_episodes.tolist() == [0, 1]
    assert log == ["jaxprobe/dying, seed 7, environment 0: episode aborted: " + NON_FINITE]
    with pytest.raises(RuntimeError, match="step before reset"):
        envs.step(np.zeros((2, 2, 1), np.float32))
    obs = envs.reset(step.needs_reset)
    np.testing.assert_array_equal(obs[1, 0], make("jaxprobe/dying").reset(episode_seed(7, "train", 0, 1)))
    restored = make_vector_env("jaxprobe/dying", (0, 7), 2)
    restored.restore(envs.snapshot())
    assert restored.failed_episodes.tolist() == [0, 1]


def test_non_finite_first_observation_aborts_at_first_step(monkeypatch):
    env, failing_seed = JaxTerminatingLine(), jnp.uint32(episode_seed(0, "train", 0, 0))
    original = env.reset

    def reset(seed):
        state, obs = original(seed)
        return state, jnp.where(seed == failing_seed, jnp.nan, obs)

    monkeypatch.setattr(env, "reset", reset)
    envs = JaxVectorEnv(env, (0,), log=ignore)
    assert np.isfinite(envs.reset()).all()
    assert envs.step(np.zeros((1, 1, 1), np.float32)).invalid.all()
    np.testing.assert_array_equal(envs.reset()[0, 0], original(jnp.uint32(episode_seed(0, "train", 0, 1)))[1])
    assert not envs.step(np.zeros((1, 1, 1), np.float32)).invalid.any()
    assert envs.failed_episodes.tolist() == [1]


def test_too_many_consecutive_failures_raise_simulator_error():
    envs = make_vector_env("jaxprobe/dying", (0,), log=ignore)

    def fail_once():
        envs.reset()
        set_nan(envs, (0, 0))
        return envs.step(np.zeros((1, 1, 1), np.float32))

    assert [fail_once().invalid.all() for _ in range(2)] == [True, True]
    expected = "jaxprobe/dying, seed 0, environment 0: 3 consecutive episodes failed"
    with pytest.raises(SimulatorError, match=expected) as caught:
        fail_once()
    assert envs.failed_episodes.tolist() == [3]
    assert NON_FINITE in str(caught.value)


def test_jax_env_is_cached_and_none_for_host_tasks():
    assert jax_env("jaxprobe/point") is jax_env("jaxprobe/point")
    assert jax_env("probe/point") is None
    assert isinstance(make("jaxprobe/point"), JaxEnvAdapter)
    with pytest.raises(UserError, match="does not support rendering"):
        make_vector_env("jaxprobe/point", (0,)).render(0, 0)


def test_reset_is_computed_conditionally():
    envs = make_vector_env("jaxprobe/point", (0,), 1)
    reset = lambda state, mask: reset_where(envs.env, envs.episode_key, state, mask)  # noqa: E731
    assert "cond[" in str(jax.make_jaxpr(reset)(envs.state, np.ones((1, 1), bool)))
