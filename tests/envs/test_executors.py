"""Whoever steps the environments, they do the same."""

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
def fake(monkeypatch):
    """`fake/count`: a suite that lives in an interpreter of its own."""
    monkeypatch.setattr(executors, "host", lambda _task: FAKE)


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(executors, "usable_cores", lambda: 2)


def lived(grid, steps, generator):
    """Everything that `steps` steps with random actions show, resets included."""
    seen = []
    for _ in range(steps):
        step = grid.step(generator.uniform(-1, 1, (*grid.shape, grid.spec.action_dim)).astype(np.float32))
        done = step.terminated | step.truncated
        seen += [*step, grid.reset(done)]
    return seen


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("task", TASKS)
def test_the_same_bits_whoever_steps_and_after_restoring(task, mode):
    if not task.startswith(("gym", "probe")):
        pytest.importorskip({"metaworld": "metaworld", "dmc": "dm_control"}[task.split("/")[0]])
    options = {"seeds": [0, 3], "num_envs": 2}
    with VectorEnv(task, **options) as ours, VectorEnv(task, **options, vectorization=mode) as theirs:
        assert ours.spec == theirs.spec
        np.testing.assert_array_equal(ours.reset(), theirs.reset())
        first, second = np.random.default_rng(0), np.random.default_rng(0)
        for one, other in zip(lived(ours, 30, first), lived(theirs, 30, second), strict=True):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype
        snapshot = ours.snapshot()
        theirs.reset()
        theirs.restore(snapshot)
        for one, other in zip(lived(ours, 10, first), lived(theirs, 10, second), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("mode", MODES)
def test_frames_are_those_of_the_cell(mode):
    with VectorEnv("probe/point", [0, 1], 2, render_size=16, vectorization=mode) as grid:
        grid.reset()
        alone = registry.make("probe/point", render_size=16)
        alone.reset(grid.episode_seed(1, 0))
        np.testing.assert_array_equal(grid.render(1, 0), alone.render())


@pytest.mark.parametrize("mode", ["sync", *MODES])
def test_a_users_error_is_the_same(mode):
    with pytest.raises(UserError, match="Did you mean probe/point"):
        VectorEnv("probe/piont", [0], vectorization=mode)
    with VectorEnv("probe/dying", [0], vectorization=mode) as grid:
        grid.reset()
        with pytest.raises(UserError, match="has no picture"):
            grid.render(0, 0)


def test_another_mode_is_refused():
    with pytest.raises(ValueError, match=r"sync.*process"):
        VectorEnv("probe/point", [0], vectorization="fork")


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("mode", ["sync", "process"])
def test_a_failure_says_where_it_happened_and_leaves_the_others_in_step(mode):
    group = make_executor("fake/count", ["first", "second", "third"], mode)
    group.call("reset", {0: 10, 1: 11, 2: 12})
    wishes = {i: np.array([2 if i == 1 else 0, 0], np.float32) for i in range(3)}
    answers, failures = group.call("step", wishes)
    assert {i: step.obs[1] for i, step in answers.items()} == {0: 1, 2: 1}
    assert [type(failure) for failure in failures.values()] == [FloatingPointError]
    assert "It happened in second." in failures[1].__notes__
    again, failures = group.call("reset", {1: 21, 2: 22})
    assert ([obs[0] for obs in again.values()], failures) == ([21, 22], {})
    group.close()


@pytest.mark.usefixtures("fake")
def test_who_is_made_anew_shares_a_process_with_one_of_those_asked_for():
    group = make_executor("fake/count", ["a", "b", "c"], "process")
    before = [worker.pid for worker in group._workers]
    assert group.renew([2]) == {0, 2}
    after = [worker.pid for worker in group._workers]
    assert (before[0] != after[0], before[1] == after[1]) == (True, True)
    answers, failures = group.call("reset", {0: 1, 1: 2, 2: 3})
    assert ([int(obs[0]) for obs in answers.values()], failures) == ([1, 2, 3], {})
    group.close()
    for pid in {*before, *after}:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(("mode", "processes"), [("sync", 1), ("thread", 1), ("process", 2)])
def test_a_foreign_suite_shares_as_few_processes_as_told(mode, processes):
    group = make_executor("fake/count", ["a", "b", "c"], mode)
    made = [obs[2] for obs in group.call("reset", {0: 1, 1: 2, 2: 3})[0].values()]
    group.close()
    assert len(group._workers) == processes
    assert made == ([3, 3, 3] if processes == 1 else [2, 1, 2])


def test_one_environment_needs_one_process():
    group = make_executor("probe/point", ["only"], "process")
    group.close()
    assert len(group._workers) == 1
