"""Failing simulators: recovered if possible, otherwise only the episode is lost."""

import os
import re
import signal
import sys

import numpy as np
import pytest

import failing_env
from cdred.envs import executors
from cdred.envs.failures import FailureCounts, SimulatorError, format_exception
from cdred.envs.remote.interpreter import Interpreter
from cdred.envs.seeding import episode_seed
from cdred.envs.suites import probes
from cdred.envs.vector_env import VectorEnv
from cdred.errors import UserError
from failing_env import FailingPoint, plan_failures

TASK, SEEDS, ENVS, STEPS = "probe/point", (0, 7), 2, 45
KINDS = ("raise", "nan", "reward", "large", "shape", "success", "none")
FAILING_SLOT = (1, 0)
OTHER_SLOTS = [slot for slot in np.ndindex(len(SEEDS), ENVS) if slot != FAILING_SLOT]
# Index of `invalid` in the rows of `run_all`.
INVALID = 5


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Replaces `probe/point` by a failing simulator; called with its failures."""
    monkeypatch.setenv(failing_env.FILE_VARIABLE, str(tmp_path / "failures"))
    monkeypatch.setitem(probes._PROBES, "point", FailingPoint)

    def write(*failures):
        plan_failures(tmp_path / "failures", *failures)

    write()
    return write


@pytest.fixture
def plan_remote(plan, monkeypatch):
    """As `plan`, with the simulators in one other process, or in two with `process`."""
    interpreter = Interpreter(sys.executable, "failing_env", tuple(sys.path))
    monkeypatch.setattr(executors, "remote_interpreter", lambda _task: interpreter)
    monkeypatch.setattr(executors, "usable_cores", lambda: 2)
    return plan


@pytest.fixture(scope="module")
def undisturbed():
    with VectorEnv(TASK, SEEDS, ENVS) as envs:
        return run_all(envs)


def make_envs(log, mode="sync", **options):
    return VectorEnv(TASK, SEEDS, ENVS, vectorization=mode, log=log.append, **options)


def ignore(_text):
    pass


def run_all(envs, steps=STEPS, before=None):
    """Return the rows `[slot][t]` of a run with actions that depend on t only: fields of the step, obs after resets."""
    generator, shape = np.random.default_rng(0), (*envs.shape, envs.spec.action_dim)
    obs = envs.reset()
    rows = {slot: [(obs[slot],)] for slot in np.ndindex(envs.shape)}
    for t in range(steps):
        if before:
            before(t)
        step = envs.step(generator.uniform(-1, 1, shape).astype(np.float32))
        obs = envs.reset(step.needs_reset)
        for slot, slot_rows in rows.items():
            slot_rows.append((*(field[slot] for field in step), obs[slot]))
    return rows


def assert_same(first, second, slots=None):
    for slot in slots or first:
        for t, (a, b) in enumerate(zip(first[slot], second[slot], strict=True)):
            for x, y in zip(a, b, strict=True):
                np.testing.assert_array_equal(x, y, err_msg=f"{slot} at {t}")


@pytest.mark.parametrize("mode", ["sync", "thread"])
@pytest.mark.parametrize("kind", [*KINDS, "exit"])
def test_single_failure_is_recovered_without_loss(plan, undisturbed, kind, mode):
    plan((7, 0, 1, 6, kind, True))
    log = []
    with make_envs(log, mode) as envs:
        assert_same(run_all(envs), undisturbed)
        assert envs.failed_episodes.tolist() == [0, 0]
    assert len(log) == 1
    start = "probe/point, seed 7, environment 0: simulator recreated, episode replayed, nothing lost: "
    assert log[0].startswith(start)
    assert "\n" not in log[0]


@pytest.mark.parametrize("kind", KINDS)
def test_repeated_failure_aborts_the_episode_without_transition(plan, undisturbed, kind):
    plan((7, 0, 1, 6, kind))
    log = []
    with make_envs(log) as envs:
        rows = run_all(envs)
        assert envs.failed_episodes.tolist() == [0, 1]
        assert envs.snapshot()["length"].tolist() == [[5, 5], [45 - 26, 5]]
    assert_same(rows, undisturbed, OTHER_SLOTS)
    failing = rows[FAILING_SLOT]
    assert_same({FAILING_SLOT: failing[:26]}, {FAILING_SLOT: undisturbed[FAILING_SLOT][:26]})
    obs, reward, terminated, truncated, success, invalid, next_obs = failing[26]
    # The sixth step of the second episode yields no transition, only the start of the third episode.
    np.testing.assert_array_equal(obs, failing[25][-1])
    assert (reward, terminated, truncated, success, invalid) == (0, False, False, False, True)
    np.testing.assert_array_equal(next_obs, probes.Point().reset(episode_seed(7, "train", 0, 2)))
    assert sum(row[INVALID] for row in failing[1:]) == 1
    assert len(log) == 1
    assert log[0].startswith("probe/point, seed 7, environment 0: episode 1 aborted at step 6: ")


def test_message_names_file_and_line_of_the_exception(plan):
    plan((0, 0, 0, 1, "raise"))
    log = []
    with make_envs(log) as envs:
        run_all(envs, 1)
    assert re.search(r"aborted at step 1: ZeroDivisionError: the wheel \(failing_env\.py:\d+\)$", log[0])


def test_failures_are_warnings_by_default(plan):
    plan((0, 0, 0, 1, "raise"))
    with VectorEnv(TASK, [0]) as envs, pytest.warns(RuntimeWarning, match="aborted"):
        run_all(envs, 1)


@pytest.mark.parametrize("kind", ["raise", "nan", "shape"])
def test_episode_that_fails_to_start_is_skipped(plan, kind):
    plan((7, 0, 1, 0, kind))
    log = []
    with make_envs(log) as envs:
        rows = run_all(envs)
        assert envs.failed_episodes.tolist() == [0, 1]
    assert not any(row[INVALID] for row in rows[FAILING_SLOT][1:])
    np.testing.assert_array_equal(rows[FAILING_SLOT][20][-1], probes.Point().reset(episode_seed(7, "train", 0, 2)))
    assert "episode 1 aborted at step 1" in log[0]


@pytest.mark.parametrize(("kind", "mode"), [("die", "sync"), ("hang", "process")])
def test_dead_or_hanging_process_is_replaced(plan_remote, undisturbed, kind, mode):
    # Once in the first episode, which is recovered; every time in the second, which is aborted.
    plan_remote((7, 0, 0, 6, kind, True), (7, 0, 1, 6, kind))
    log = []
    with make_envs(log, mode, env_step_timeout=1.5) as envs:
        rows = run_all(envs)
        assert envs.failed_episodes.tolist() == [0, 1]
        assert envs.snapshot()["length"].tolist() == [[5, 5], [45 - 26, 5]]
    assert_same(rows, undisturbed, OTHER_SLOTS)
    assert_same({FAILING_SLOT: rows[FAILING_SLOT][:26]}, {FAILING_SLOT: undisturbed[FAILING_SLOT][:26]})
    assert rows[FAILING_SLOT][26][INVALID]
    reason = {
        "die": "ended with exit code 7; its last output: out of luck",
        "hang": "took more than 1.5 s (--env-step-timeout)",
    }
    aborted = [line for line in log if "aborted at step 6" in line]
    assert len(aborted) == 1
    assert reason[kind] in aborted[0]
    assert reason[kind] in log[0]
    assert "nothing lost" in log[0]


def test_killed_processes_are_replaced_without_loss(undisturbed, monkeypatch):
    monkeypatch.setattr(executors, "usable_cores", lambda: 2)
    log = []

    def kill(t):
        if t in (0, 13, 30):
            os.kill(envs._executor._servers[t % 2].pid, signal.SIGKILL)

    with make_envs(log, "process") as envs:
        assert_same(run_all(envs, before=kill), undisturbed)
        assert envs.failed_episodes.tolist() == [0, 0]
    assert len(log) == 3
    assert all("was killed by signal 9" in line for line in log)


@pytest.mark.parametrize(
    ("step", "message"),
    [(1, "3 consecutive episodes.*completed step"), (4, "10 consecutive episodes.*completed episode")],
)
def test_too_many_consecutive_failures_raise_simulator_error(plan, step, message):
    plan((None, 0, None, step, "raise"))
    log = []
    expected = f"probe/point, seed 0, environment 0: {message}"
    with make_envs(log) as envs, pytest.raises(SimulatorError, match=expected) as caught:
        run_all(envs, 100)
    assert issubclass(caught.type, UserError)
    assert "ZeroDivisionError: the wheel" in str(caught.value)
    assert str(caught.value).splitlines()[1:] == ["Fix the simulator, then run the same command again."]


def test_occasional_failures_do_not_accumulate(plan):
    plan(*((0, 0, episode, 5, "raise") for episode in range(0, 40, 2)))
    with VectorEnv(TASK, [0], log=ignore) as envs:
        run_all(envs, 500)
        assert envs.failed_episodes.tolist() == [20]


def test_failed_recreation_raises_simulator_error(plan, monkeypatch):
    plan((7, 0, 0, 2, "raise"))
    with make_envs([]) as envs:
        monkeypatch.setattr(envs._executor, "_make", lambda: 1 / 0)
        with pytest.raises(SimulatorError, match=r"failed \(ZeroDivisionError: the wheel.*cannot be recreated: Zero"):
            run_all(envs)


def test_different_replay_aborts_the_episode(plan, monkeypatch):
    """The failure of one environment ends the process of another; its replayed episode then differs."""
    plan((7, 0, 0, 6, "raise", True))
    log = []
    with make_envs(log) as envs:
        recreate = envs._executor.recreate

        def recreate_slower(indices):
            envs._executor._envs[0] = type("SlowerPoint", (FailingPoint,), {"SPEED": 0.1})()
            return recreate(indices) | {0}

        monkeypatch.setattr(envs._executor, "recreate", recreate_slower)
        rows = run_all(envs, 6)
        assert envs.failed_episodes.tolist() == [1, 0]
    assert [slot for slot in rows if rows[slot][6][INVALID]] == [(0, 0)]
    assert rows[0, 0][6][1] == 0
    assert "episode 0 aborted at step 7: RuntimeError: replaying the episode gave different" in log[0]


def test_restored_envs_with_aborted_episodes_continue_identically(plan):
    plan((7, 0, 0, 4, "raise"), (0, 1, 0, 20, "nan"), (0, 0, 1, 3, "raise"), (7, 0, 1, 1, "nan"))
    for steps in (3, 4, 5, 20, 21, 23, 30):
        with make_envs([]) as envs, make_envs([]) as restored:
            run_all(envs, steps)
            restored.restore(envs.snapshot())
            generator = np.random.default_rng(1)
            for _ in range(30):
                action = generator.uniform(-1, 1, (2, 2, 2)).astype(np.float32)
                step, restored_step = envs.step(action), restored.step(action)
                for x, y in zip(step, restored_step, strict=True):
                    np.testing.assert_array_equal(x, y)
                np.testing.assert_array_equal(envs.reset(step.needs_reset), restored.reset(restored_step.needs_reset))
            assert envs.failed_episodes.tolist() == restored.failed_episodes.tolist() != [0, 0]
            for name, value in envs.snapshot().items():
                np.testing.assert_array_equal(value, restored.snapshot()[name], err_msg=name)


def test_aborted_episode_is_not_replayed(plan):
    plan((0, 0, 0, 4, "raise"))
    with VectorEnv(TASK, [0], log=ignore) as envs:
        envs.reset()
        while not envs.step(np.zeros((1, 1, 2))).invalid.any():
            pass
        with pytest.raises(RuntimeError, match="reset"):
            envs.step(np.zeros((1, 1, 2)))
        snapshot = envs.snapshot()
        plan((0, 0, 0, 1, "raise"))
        with VectorEnv(TASK, [0]) as restored:
            restored.restore(snapshot)
            np.testing.assert_array_equal(restored.reset(), envs.reset())
            assert restored.failed_episodes.tolist() == [1]


def test_restore_raises_if_the_replay_fails(plan):
    with VectorEnv(TASK, [0], log=ignore) as envs:
        run_all(envs, 5)
        snapshot = envs.snapshot()
        plan((0, 0, 0, 2, "raise"))
        with pytest.raises(SimulatorError, match="environment 0: the episode of the checkpoint fails when"):
            envs.restore(snapshot)


def test_failure_counts_follow_their_definition():
    generator = np.random.default_rng(0)
    counts = FailureCounts.zeros((1, 1))
    since_step = since_episode = total = 0
    for event in generator.choice(["invalid", "valid", "done"], 200):
        invalid, done = np.array([[event == "invalid"]]), np.array([[event == "done"]])
        counts = counts.update(invalid, done)
        total += event == "invalid"
        since_step = since_step + 1 if event == "invalid" else 0
        since_episode = since_episode + 1 if event == "invalid" else since_episode * (event != "done")
        assert [int(count[0, 0]) for count in counts] == [total, since_step, since_episode]


def test_exception_without_message_is_formatted_as_its_type():
    assert format_exception(ValueError()) == "ValueError"
