import numpy as np
import pytest

from cdred.envs.failures import SimulatorError
from cdred.envs.make import make_vector_env
from cdred.envs.registry import make
from cdred.envs.vector_env import VectorEnv
from cdred.errors import UserError

TASKS = ("metaworld/drawer-close", "dmc/reacher-hard", "gym/Pendulum-v1")


def random_actions(envs, steps, seed=0):
    size = (steps, *envs.shape, envs.spec.action_dim)
    return np.random.default_rng(seed).uniform(-1, 1, size).astype(np.float32)


def run(envs, actions):
    """Step with each of `actions`, resetting environments that are done; return the results of steps and resets."""
    results = []
    for action in actions:
        step = envs.step(action)
        results.append((step.obs, step.reward, step.terminated, step.truncated, step.success))
        if step.done.any():
            results.append((envs.reset(step.done),))
    return results


def assert_same(first, second):
    assert len(first) == len(second)
    for first_result, second_result in zip(first, second, strict=True):
        for a, b in zip(first_result, second_result, strict=True):
            np.testing.assert_array_equal(a, b)


def test_seed_is_independent_of_other_seeds():
    with VectorEnv("probe/point", [0, 3], 2) as two_seeds, VectorEnv("probe/point", [3], 2) as one_seed:
        actions = random_actions(two_seeds, 45)
        np.testing.assert_array_equal(two_seeds.reset()[1:], one_seed.reset())
        second_seed = [tuple(array[1:] for array in result) for result in run(two_seeds, actions)]
        assert_same(second_seed, run(one_seed, actions[:, 1:]))


def test_action_repeat_reaches_other_processes():
    pytest.importorskip("dm_control")
    task, results = "dmc/reacher-easy?repeat=4", []
    for vectorization in ("sync", "process"):
        with VectorEnv(task, [0, 1], vectorization=vectorization) as envs:
            assert (envs.spec.task, envs.spec.action_repeat, envs.spec.episode_length) == (task, 4, 250)
            envs.reset()
            results.append(run(envs, random_actions(envs, 3)))
    assert_same(*results)


def test_environments_and_episodes_differ():
    with VectorEnv("probe/point", [0, 1], 3) as envs:
        starts = np.concatenate([envs.reset().reshape(-1, 4), envs.reset().reshape(-1, 4)])
        assert len(np.unique(starts, axis=0)) == 12


def test_episode_seed_reproduces_the_episode():
    with VectorEnv("probe/point", [5, 6], 2, "eval") as envs:
        envs.reset()
        obs = envs.reset()
        np.testing.assert_array_equal(make("probe/point").reset(envs.episode_seed(1, 0)), obs[1, 0])


@pytest.mark.parametrize("task", ["probe/point", "jaxprobe/point"])
def test_skipping_to_an_episode_starts_it_again(task):
    with make_vector_env(task, [0, 1], 2) as envs:
        assert envs.next_episode == 0
        first, second = envs.reset(), envs.reset()
        envs.step(np.zeros((2, 2, 2), np.float32))
        envs.skip_to(0)
        with pytest.raises(RuntimeError, match="reset"):
            envs.step(np.zeros((2, 2, 2), np.float32))
        np.testing.assert_array_equal(envs.reset(), first)
        np.testing.assert_array_equal(envs.reset(), second)
        envs.reset(np.array([[True, False], [False, False]]))
        assert envs.next_episode == 3


def test_reset_affects_only_the_mask():
    with VectorEnv("probe/point", [0, 1], 2) as envs:
        envs.reset()
        before = envs.step(random_actions(envs, 1)[0]).obs
        mask = np.array([[False, True], [False, False]])
        after = envs.reset(mask)
        np.testing.assert_array_equal(after[~mask], before[~mask])
        assert not np.array_equal(after[mask], before[mask])


def test_final_observation_is_returned_and_reset_required():
    with VectorEnv("probe/dying", [0, 1]) as envs:
        with pytest.raises(RuntimeError, match="reset"):
            envs.step(np.ones((2, 1, 1)))
        envs.reset()
        step = envs.step(np.ones((2, 1, 1)))
        while not step.terminated.any():
            step = envs.step(np.ones((2, 1, 1)))
        assert (step.obs[step.terminated] > 1).all()
        with pytest.raises(RuntimeError, match="reset"):
            envs.step(np.ones((2, 1, 1)))
        envs.reset(step.terminated)
        envs.step(np.zeros((2, 1, 1)))


def test_returned_arrays_are_copies():
    with VectorEnv("probe/point", [0]) as envs:
        first = envs.reset()
        first_copy = first.copy()
        second = envs.step(np.ones((1, 1, 2)))
        second_copy = second.obs.copy()
        snapshot = envs.snapshot()
        snapshot_copy = {key: value.copy() for key, value in snapshot.items()}
        envs.step(np.ones((1, 1, 2)))
        np.testing.assert_array_equal(first, first_copy)
        np.testing.assert_array_equal(second.obs, second_copy)
        for key, value in snapshot_copy.items():
            np.testing.assert_array_equal(snapshot[key], value)


@pytest.mark.parametrize("action", [np.zeros((2, 2)), np.zeros((1, 1, 3)), np.full((1, 1, 2), np.nan)])
def test_invalid_actions_are_rejected(action):
    with VectorEnv("probe/point", [0]) as envs:
        envs.reset()
        with pytest.raises(ValueError, match=r"finite actions of shape \(1, 1, 2\)"):
            envs.step(action)


@pytest.mark.parametrize("steps", [0, 7, 20, 33])
def test_restored_envs_continue_identically(steps):
    with VectorEnv("probe/dying", [0, 4], 2) as envs, VectorEnv("probe/dying", [0, 4], 2) as restored:
        envs.reset()
        actions = random_actions(envs, steps + 40)
        run(envs, actions[:steps])
        restored.restore(envs.snapshot())
        assert_same(run(envs, actions[steps:]), run(restored, actions[steps:]))


@pytest.mark.parametrize("task", TASKS)
def test_simulators_are_restored_within_an_episode(task):
    if not task.startswith("gym"):
        pytest.importorskip({"metaworld": "metaworld", "dmc": "dm_control"}[task.split("/")[0]])
    with VectorEnv(task, [0, 1]) as envs, VectorEnv(task, [0, 1]) as restored:
        envs.reset(), envs.reset()
        actions = random_actions(envs, 60)
        run(envs, actions[:30])
        # The state before `restore` must not matter.
        restored.reset()
        run(restored, actions[30:35])
        restored.restore(envs.snapshot())
        assert_same(run(envs, actions[30:]), run(restored, actions[30:]))


def test_finished_episode_is_restored_as_finished():
    with VectorEnv("probe/point", [0]) as envs, VectorEnv("probe/point", [0]) as restored:
        envs.reset()
        for action in random_actions(envs, 20):
            last = envs.step(action)
        restored.restore(envs.snapshot())
        with pytest.raises(RuntimeError, match="reset"):
            restored.step(np.zeros((1, 1, 2)))
        np.testing.assert_array_equal(restored.reset(np.zeros((1, 1), bool)), last.obs)
        np.testing.assert_array_equal(restored.reset(), envs.reset())


def test_snapshot_before_first_reset_restores_unstarted_envs():
    with VectorEnv("probe/point", [0]) as envs, VectorEnv("probe/point", [0]) as restored:
        restored.reset()
        restored.restore(envs.snapshot())
        with pytest.raises(RuntimeError, match="reset"):
            restored.step(np.zeros((1, 1, 2)))
        np.testing.assert_array_equal(restored.reset(), envs.reset())


def test_snapshot_of_different_envs_is_rejected():
    with VectorEnv("probe/point", [0, 1]) as envs, VectorEnv("probe/point", [0, 2]) as other_seeds:
        with pytest.raises(ValueError, match="different vector env"):
            other_seeds.restore(envs.snapshot())
        with VectorEnv("probe/point", [0]) as smaller, pytest.raises(ValueError, match="different vector env"):
            smaller.restore(envs.snapshot())


def test_different_replay_raises_simulator_error(monkeypatch):
    from cdred.envs.suites.probes import Point

    with VectorEnv("probe/point", [0]) as envs:
        envs.reset()
        envs.step(np.ones((1, 1, 2)))
        snapshot = envs.snapshot()
        monkeypatch.setattr(Point, "SPEED", 0.1)
        with pytest.raises(SimulatorError, match=r"probe/point, seed 0, environment 0.*different observations"):
            envs.restore(snapshot)


def test_invalid_seeds_are_rejected():
    with pytest.raises(UserError, match="seeds"):
        VectorEnv("probe/point", [-1])


def test_render_is_that_of_the_slot():
    with VectorEnv("probe/point", [0, 1], render_size=16) as envs:
        envs.reset()
        single = make("probe/point", render_size=16)
        single.reset(envs.episode_seed(1, 0))
        np.testing.assert_array_equal(envs.render(1, 0), single.render())
