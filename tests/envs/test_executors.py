"""All executors give the same results."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from cdred.envs import executors, registry
from cdred.envs.executors import make_executor
from cdred.envs.remote.interpreter import Interpreter
from cdred.envs.vector_env import VectorEnv
from cdred.errors import UserError

MODES = ["thread", "process"]
TASKS = ["probe/dying", "metaworld/drawer-close", "dmc/reacher-hard", "gym/Pendulum-v1"]
FAKE = Interpreter(sys.executable, "fake_suite", (str(Path(__file__).parents[1] / "helpers"),))


@pytest.fixture
def fake_suite(monkeypatch):
    """`fake/count`: a suite with its own interpreter."""
    monkeypatch.setattr(executors, "remote_interpreter", lambda _task: FAKE)


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(executors, "usable_cores", lambda: 2)


def run_random(envs, steps, generator):
    """Return all arrays of `steps` steps with random actions, including the observations of resets."""
    arrays = []
    for _ in range(steps):
        step = envs.step(generator.uniform(-1, 1, (*envs.shape, envs.spec.action_dim)).astype(np.float32))
        arrays += [*step, envs.reset(step.done)]
    return arrays


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("task", TASKS)
def test_modes_are_bitwise_identical_and_restorable(task, mode):
    if not task.startswith(("gym", "probe")):
        pytest.importorskip({"metaworld": "metaworld", "dmc": "dm_control"}[task.split("/")[0]])
    options = {"seeds": [0, 3], "num_envs": 2}
    with VectorEnv(task, **options) as sync, VectorEnv(task, **options, vectorization=mode) as concurrent:
        assert sync.spec == concurrent.spec
        np.testing.assert_array_equal(sync.reset(), concurrent.reset())
        first, second = np.random.default_rng(0), np.random.default_rng(0)
        for a, b in zip(run_random(sync, 30, first), run_random(concurrent, 30, second), strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
        snapshot = sync.snapshot()
        concurrent.reset()
        concurrent.restore(snapshot)
        for a, b in zip(run_random(sync, 10, first), run_random(concurrent, 10, second), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("mode", MODES)
def test_render_is_that_of_the_slot(mode):
    with VectorEnv("probe/point", [0, 1], 2, render_size=16, vectorization=mode) as envs:
        envs.reset()
        single = registry.make("probe/point", render_size=16)
        single.reset(envs.episode_seed(1, 0))
        np.testing.assert_array_equal(envs.render(1, 0), single.render())


@pytest.mark.parametrize("mode", ["sync", *MODES])
def test_user_errors_are_the_same_in_every_mode(mode):
    with pytest.raises(UserError, match="Did you mean probe/point"):
        VectorEnv("probe/piont", [0], vectorization=mode)
    with VectorEnv("probe/dying", [0], vectorization=mode) as envs:
        envs.reset()
        with pytest.raises(UserError, match="does not support rendering"):
            envs.render(0, 0)


def test_unknown_mode_is_rejected():
    with pytest.raises(ValueError, match=r"sync.*process"):
        VectorEnv("probe/point", [0], vectorization="fork")


@pytest.mark.usefixtures("fake_suite")
@pytest.mark.parametrize("mode", ["sync", "process"])
def test_failure_is_labelled_and_others_continue(mode):
    executor = make_executor("fake/count", ["first", "second", "third"], mode)
    executor.call("reset", {0: 10, 1: 11, 2: 12})
    actions = {i: np.array([2 if i == 1 else 0, 0], np.float32) for i in range(3)}
    results, failures = executor.call("step", actions)
    assert {i: step.obs[1] for i, step in results.items()} == {0: 1, 2: 1}
    assert [type(failure) for failure in failures.values()] == [FloatingPointError]
    assert "Raised in second." in failures[1].__notes__
    results, failures = executor.call("reset", {1: 21, 2: 22})
    assert ([obs[0] for obs in results.values()], failures) == ([21, 22], {})
    executor.close()


@pytest.mark.usefixtures("fake_suite")
def test_recreate_includes_envs_of_the_same_process():
    executor = make_executor("fake/count", ["a", "b", "c"], "process")
    before = [server.pid for server in executor._servers]
    assert executor.recreate([2]) == {0, 2}
    after = [server.pid for server in executor._servers]
    assert (before[0] != after[0], before[1] == after[1]) == (True, True)
    results, failures = executor.call("reset", {0: 1, 1: 2, 2: 3})
    assert ([int(obs[0]) for obs in results.values()], failures) == ([1, 2, 3], {})
    executor.close()
    for pid in {*before, *after}:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.usefixtures("fake_suite")
@pytest.mark.parametrize(("mode", "processes"), [("sync", 1), ("thread", 1), ("process", 2)])
def test_remote_suite_shares_processes(mode, processes):
    executor = make_executor("fake/count", ["a", "b", "c"], mode)
    num_made = [obs[2] for obs in executor.call("reset", {0: 1, 1: 2, 2: 3})[0].values()]
    executor.close()
    assert len(executor._servers) == processes
    assert num_made == ([3, 3, 3] if processes == 1 else [2, 1, 2])


def test_one_environment_needs_one_process():
    executor = make_executor("probe/point", ["only"], "process")
    executor.close()
    assert len(executor._servers) == 1
