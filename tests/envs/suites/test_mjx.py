"""MuJoCo Playground. Its MuJoCo conflicts with Meta-World's: `make test-mjx` runs these in their own interpreter."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import cdred
from cdred.checkpoint import checkpoint
from cdred.envs.jax_vector_env import JaxVectorEnv
from cdred.envs.make import make_vector_env
from cdred.envs.registry import jax_env, list_tasks, make
from cdred.envs.vector_env import VectorEnv
from cdred.errors import UserError

pytest.importorskip("mujoco_playground", reason="needs cdred[mjx], which conflicts with other extras: make test-mjx")
TASK = "mjx/CartpoleSwingup"
# Observation and action sizes as Playground documents them.
SIZES = {
    "CartpoleSwingup": (5, 1),
    "CheetahRun": (17, 6),
    "WalkerRun": (24, 6),
    "HopperHop": (15, 4),
    "ReacherHard": (6, 2),
}


@pytest.fixture(autouse=True)
def _default_promotion():
    """Allow the promotions that MJX relies on and conftest.py forbids; globally, because it is traced in threads."""
    promotions = {"jax_numpy_rank_promotion": "allow", "jax_numpy_dtype_promotion": "standard"}
    before = {name: getattr(jax.config, name) for name in promotions}
    for name, value in promotions.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def random_actions(steps, shape):
    return np.random.default_rng(0).uniform(-1, 1, (steps, *shape)).astype(np.float32)


def test_all_control_tasks_are_listed():
    tasks = list_tasks("mjx")
    assert len(tasks) == 25
    assert {f"mjx/{name}" for name in SIZES} <= set(tasks)
    with pytest.raises(UserError, match="Did you mean mjx/CheetahRun"):
        make("mjx/CheetaRun")


@pytest.mark.parametrize("name", SIZES)
def test_spec_matches_dm_control(name):
    env = jax_env(f"mjx/{name}")
    assert env is jax_env(f"mjx/{name}")
    assert (env.spec.obs_shape, env.spec.action_dim) == ((SIZES[name][0],), SIZES[name][1])
    assert (env.spec.episode_length, env.spec.action_repeat, env.spec.can_terminate) == (500, 2, False)
    model = env._env.mj_model
    np.testing.assert_array_equal(model.actuator_ctrlrange, [[-1.0, 1.0]] * env.spec.action_dim)
    assert env._env.mjx_model.impl.value == "jax"


def test_device_envs_equal_host_envs_and_are_restored():
    device, host = make_vector_env(TASK, (0,), 2), make_vector_env(TASK, (0,), 2, vectorization="thread")
    assert isinstance(device, JaxVectorEnv)
    assert isinstance(host, VectorEnv)
    actions = random_actions(6, (*device.shape, 1))
    with host:
        first = device.reset()
        np.testing.assert_allclose(first, host.reset(), atol=1e-5)
        assert not np.array_equal(first[0, 0], first[0, 1])
        for action in actions[:3]:
            step, host_step = device.step(action), host.step(action)
            np.testing.assert_allclose(step.obs, host_step.obs, atol=1e-4)
            np.testing.assert_allclose(step.reward, host_step.reward, atol=1e-4)
    snapshot = device.snapshot()
    steps = [device.step(action) for action in actions[3:]]
    device.restore(snapshot)
    for action, step in zip(actions[3:], steps, strict=True):
        np.testing.assert_array_equal(device.step(action).obs, step.obs)


def test_run_on_device_resumes_identically(tmp_path, monkeypatch):
    settings = replace(
        cdred.preset("debug"), task=TASK, algo="tdmpc2", out=str(tmp_path / "run"), video=False, planner="policy",
        steps=1040, envs=2, eval_every=10**6, checkpoint_every=1020, final_eval_episodes=2,
    )  # fmt: skip
    monkeypatch.setattr("cdred.api.RANDOM_EPISODES", 2)
    whole = cdred.train(settings, quiet=True)
    saved = tmp_path / "run" / "checkpoints"
    after = checkpoint.latest(saved)
    assert (whole["steps"], whole["updates"], after.name) == (1040, 1040, "000001040")
    final = (after / checkpoint.ARRAYS).read_bytes()
    for path in (after, tmp_path / "run" / "result.json"):
        path.rename(tmp_path / path.name)
    assert checkpoint.latest(saved).name == "000001020"
    assert cdred.train(settings, quiet=True)["eval"]["return"] == whole["eval"]["return"]
    assert (checkpoint.latest(saved) / checkpoint.ARRAYS).read_bytes() == final


def test_render_returns_a_frame():
    envs = make_vector_env(TASK, (0,), 2, render_size=32)
    envs.reset()
    try:
        frame = envs.render(0, 1)
    except UserError as error:
        pytest.skip(str(error))
    assert frame.shape == (32, 32, 3)
    assert frame.std() > 1
