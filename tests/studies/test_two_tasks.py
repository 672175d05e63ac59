"""Environments and demonstrations of several tasks and experts."""

import numpy as np
import pytest

from cdred.data.demonstrations import load_demos
from cdred.envs.registry import get_env_spec, make
from cdred.studies.two_tasks import TASKS_OF, file_name, task_name, with_embedding, write_demos


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demos")
    write_demos(folder, "metaworld/reach", 3, lambda _: None)
    return folder


def test_embedding_is_appended():
    obs = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(with_embedding(obs, 1), [[0, 1, 2, 0, 1], [3, 4, 5, 0, 1]])


def test_each_episode_is_of_the_task_that_its_seed_determines():
    env = make(task_name("both"))
    assert (env.spec.obs_shape, env.spec.episode_length, env.spec.has_success) == ((41,), 100, True)
    starts = [env.reset(seed) for seed in range(8)]
    np.testing.assert_array_equal(env.reset(3), starts[3])
    embeddings = {tuple(start[-2:].tolist()) for start in starts}
    assert embeddings == {(1.0, 0.0), (0.0, 1.0)}
    action = np.array([0.3, -0.5, 0.2, 1.0], np.float32)
    steps = [env.step(action) for _ in range(100)]
    assert [step.truncated for step in steps] == [False] * 99 + [True]
    np.testing.assert_array_equal(steps[-1].obs[-2:], starts[3][-2:])
    env.close()


@pytest.mark.parametrize(("name", "index"), [("push", 0), ("pull", 1)])
def test_environment_of_one_task_has_no_other(name, index):
    env = make(task_name(name))
    assert all(env.reset(seed)[39 + index] == 1.0 for seed in range(4))
    env.close()


def test_demonstrations_are_of_all_tasks_and_fit_their_environments(folder):
    for name, indices in TASKS_OF.items():
        demos = load_demos(folder / file_name(name, 3), get_env_spec(task_name(name)))
        embeddings = [demo.obs[0, 39:].argmax() for demo in demos]
        assert embeddings == [index for index in indices for _ in range(3)]
        assert all(demo.success_at_end for demo in demos)


def test_noisy_demonstrations_are_half_of_the_mixed_ones(folder):
    noisy, mixed = (load_demos(folder / file_name(name, 3)) for name in ("noisy", "mixed"))
    np.testing.assert_array_equal(mixed[2].action, noisy[0].action)
    # Without noise the expert moves evenly.
    jitter = [np.abs(np.diff(demo.action[:20, 0])).mean() for demo in mixed]
    assert max(jitter[:2]) < 0.5 * jitter[2]


def test_existing_files_are_kept(folder):
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    (folder / file_name("pull", 3)).unlink()
    messages = []
    write_demos(folder, "metaworld/reach", 3, messages.append)
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {file_name("pull", 3)}
    write_demos(folder, "metaworld/reach", 3, messages.append)
    assert len(messages) == 1
