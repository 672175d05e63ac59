import hashlib
import subprocess
import sys

import numpy as np
import pytest

from cdred.envs.registry import list_tasks, make, scripted_expert
from cdred.errors import UserError

pytest.importorskip("metaworld")
from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE

# In `drawer-open` and `window-open` object positions after a first reset depend on the previous reset.
TASKS = ("bin-picking", "drawer-open", "window-open")
ACTIONS = np.random.default_rng(0).uniform(-1, 1, (100, 4)).astype(np.float32)


def rollout(env, seed, actions=ACTIONS):
    first = env.reset(seed)
    steps = [env.step(action) for action in actions]
    return np.array([first, *(step.obs for step in steps)]), steps


def upstream(name, seed):
    """Return observations and summed rewards of a new environment of upstream's class, two frames per action."""
    env = ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[f"{name}-v3-goal-observable"](seed=seed)
    observations, rewards = [env.reset()[0]], []
    for action in ACTIONS:
        frames = [env.step(action) for _ in range(2)]
        observations.append(frames[-1][0])
        rewards.append(sum(frame[1] for frame in frames))
    return np.array(observations, np.float32), rewards


def check_against_upstream(name):
    env = make(f"metaworld/{name}")
    rollout(env, 1), rollout(env, 2, ACTIONS[:40])
    observations, steps = rollout(env, 3)
    expected, rewards = upstream(name, 3)
    np.testing.assert_array_equal(observations, expected)
    assert [step.reward for step in steps] == rewards
    assert env.spec.control_timestep == pytest.approx(2 * env._sim.dt)
    return env


@pytest.mark.parametrize("name", TASKS)
def test_later_episode_equals_new_upstream_environment(name):
    check_against_upstream(name)


def test_written_model_arrays_are_restored():
    from cdred.envs.suites.metaworld import WRITTEN_BY_TASKS

    env = make("metaworld/drawer-open")
    expected, _ = rollout(env, 3)
    for field in WRITTEN_BY_TASKS:
        getattr(env._model, field)[...] += 0.01
    np.testing.assert_array_equal(rollout(env, 3)[0], expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", [task.removeprefix("metaworld/") for task in list_tasks("metaworld")])
def test_every_task_equals_upstream_and_writes_restored_arrays(name):
    import mujoco

    from cdred.envs.suites.metaworld import WRITTEN_BY_TASKS

    env = check_against_upstream(name)
    pristine = mujoco.MjModel.from_xml_path(env._sim.model_name)
    fields = [field for field in dir(pristine) if isinstance(getattr(pristine, field), np.ndarray)]
    same = {f: np.array_equal(getattr(pristine, f), getattr(env._model, f), equal_nan=True) for f in fields}
    assert {field for field, equal in same.items() if not equal} <= set(WRITTEN_BY_TASKS)
    assert scripted_expert(f"metaworld/{name}")()(env.reset(0)).shape == (4,)


def test_goals_vary_and_global_generator_is_unchanged():
    env = make("metaworld/reach")
    np.random.seed(5)  # noqa: NPY002
    goals = {tuple(env.reset(seed)[-3:]) for seed in range(8)}
    after = np.random.uniform()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    assert after == np.random.uniform()  # noqa: NPY002
    assert len(goals) == 8


def test_episode_is_identical_in_another_process():
    script = (
        "import sys, hashlib, numpy as np; from cdred.envs.registry import make\n"
        "env = make('metaworld/bin-picking'); parts = [env.reset(4)]\n"
        "parts += [env.step(a).obs for a in np.random.default_rng(0).uniform(-1, 1, (100, 4)).astype(np.float32)]\n"
        "print(hashlib.sha256(np.array(parts).tobytes()).hexdigest())"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    observations, _ = rollout(make("metaworld/bin-picking"), 4)
    assert output.split()[-1] == hashlib.sha256(observations.tobytes()).hexdigest()


def test_shapes_dtypes_and_time_limit():
    env = make("metaworld/bin-picking")
    observations, steps = rollout(env, 0)
    assert observations.shape == (101, 39)
    assert steps[0].obs.dtype == np.float32
    assert [step.truncated for step in steps] == [False] * 99 + [True]
    assert not any(step.terminated for step in steps)
    # Observations include the previous frame; the first one repeats itself.
    np.testing.assert_array_equal(observations[0, :18], observations[0, 18:36])


def test_episode_at_repeat_1_has_the_same_frames():
    default, other = make("metaworld/bin-picking"), make("metaworld/bin-picking?repeat=1")
    assert (other.spec.task, other.spec.episode_length) == ("metaworld/bin-picking?repeat=1", 200)
    observations, steps = rollout(default, 0)
    frames, single = rollout(other, 0, np.repeat(ACTIONS, 2, axis=0))
    np.testing.assert_array_equal(frames[::2], observations)
    assert [step.reward for step in steps] == [
        a.reward + b.reward for a, b in zip(single[::2], single[1::2], strict=True)
    ]
    assert [step.truncated for step in single] == [False] * 199 + [True]


def test_scripted_expert_acts_at_another_action_repeat():
    env, expert = make("metaworld/reach?repeat=4"), scripted_expert("metaworld/reach?repeat=4")()
    obs, success = env.reset(0), False
    for _ in range(env.spec.episode_length):
        step = env.step(expert(obs, success))
        obs, success = step.obs, success or step.success
    assert step.truncated
    assert success


def test_stopping_after_success_keeps_the_success():
    env = make("metaworld/stick-push")
    success_at_end = {}
    for stop in (False, True):
        expert = scripted_expert("metaworld/stick-push")(stop_after_success=stop)
        obs, successes, actions = env.reset(11), [False], []
        for _ in range(100):
            actions.append(expert(obs, successes[-1]))
            step = env.step(actions[-1])
            obs = step.obs
            successes.append(step.success)
        assert any(successes)
        assert np.abs(actions).max() <= 1
        success_at_end[stop] = successes[-1]
        if stop:
            since = successes.index(True)
            np.testing.assert_array_equal(np.array(actions)[since:, :3], 0)
            assert (np.array(actions)[since:, 3] == actions[since - 1][3]).all()
    assert success_at_end == {False: False, True: True}


def test_rendered_frame_is_upright():
    mujoco = pytest.importorskip("mujoco")
    env = make("metaworld/drawer-close", render_size=48)
    env.reset(0)
    try:
        frame = env.render()
    except UserError as error:
        pytest.skip(str(error))
    renderer = mujoco.Renderer(env._model, 48, 48)
    renderer.update_scene(env._sim.data, camera="corner2")
    raw = renderer.render()
    renderer.close()
    camera_up = env._sim.data.cam("corner2").xmat.reshape(3, 3)[:, 1]
    assert camera_up[2] < 0, "upstream has fixed its camera: remove the rotation"
    np.testing.assert_array_equal(frame, np.rot90(raw, 2))
    env.close()
