"""The door to other processes: nothing is lost on the way, neither numbers nor errors, and nobody stays behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cdred.envs.remote import server
from cdred.envs.remote.client import RemoteEnv, Worker
from cdred.envs.remote.interpreter import Interpreter, interpreter
from cdred.envs.remote.server import pack, unpack
from cdred.errors import UserError
from cdred.types import EnvSpec

FAKE = Interpreter(sys.executable, "fake_suite", (str(Path(__file__).parents[1] / "helpers"),))


@pytest.fixture
def worker():
    worker = Worker(FAKE)
    yield worker
    worker.close()


@pytest.fixture
def env(worker):
    env = RemoteEnv(worker, 0, "fake/count", "count", None).settled()
    env.reset(3)
    return env


def wish(number, extra=0.0):
    return np.array([number, extra], np.float32)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if Path("/proc").exists() else True


def gone_within(pid, seconds=10.0):
    until = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not alive(pid)


@pytest.mark.parametrize(
    "arrays",
    [
        [],
        [np.arange(6, dtype=np.uint8).reshape(1, 2, 3), np.float64(0.1), np.zeros((0, 4), np.float32)],
        [np.arange(12.0).reshape(3, 4).T, np.array([np.nan, np.inf])],
    ],
)
def test_a_message_carries_every_bit(arrays):
    head, got = unpack(pack({"x": 0.1 + 0.2, "text": "ü"}, arrays))
    assert head == {"x": 0.1 + 0.2, "text": "ü"}
    for array, other in zip(arrays, got, strict=True):
        assert (array.dtype, array.shape) == (other.dtype, other.shape)
        np.testing.assert_array_equal(array, other)
        assert other.flags.writeable


def test_a_remote_environment_is_used_like_our_own(env):
    assert env.spec == EnvSpec("fake/count", (3,), 2, 5, 1, True)
    np.testing.assert_array_equal(env.reset(7), np.array([7, 0, 1], np.float32))
    step = env.step(wish(0, 0.7))
    np.testing.assert_array_equal(step.obs, np.array([7, 1, 1], np.float32))
    assert step[1:] == (0.1 + float(np.float32(0.7)), False, False, True)
    assert type(step.success) is bool
    assert (env.render() == np.ones((4, 4, 3), np.uint8)).all()


def test_one_process_serves_several_and_answers_in_order(worker, env):
    other = RemoteEnv(worker, 1, "fake/count", "count", 2).settled()
    env.begin("reset", 1)
    other.begin("reset", 2)
    env.begin("step", wish(0))
    assert [env.finish()[0], other.finish()[0], env.finish().obs[1]] == [1, 2, 1]
    assert other.render().shape == (2, 2, 3)


@pytest.mark.parametrize(
    ("number", "kind", "says"),
    [
        (2, FloatingPointError, "exploded"),
        (4, LookupError, "of a type with children"),
        (5, FloatingPointError, "fake/count: the simulator returned an observation that is not finite"),
    ],
)
def test_an_error_is_the_same_on_this_side_and_the_world_goes_on(env, number, kind, says):
    with pytest.raises(kind, match=says) as caught:
        env.step(wish(number))
    assert number == 5 or "fake_suite.py" in caught.value.__notes__[0]
    assert env.reset(9)[0] == 9


def test_a_users_error_is_ours(worker):
    with pytest.raises(UserError, match="pip install it"):
        RemoteEnv(worker, 0, "fake/unknown", "unknown", None).settled()


def test_a_killed_process_says_how_it_ended_and_what_it_said_last(env):
    with pytest.raises(RuntimeError, match=r"ended by signal 9; it last said:\nout of memory") as caught:
        env.step(wish(3))
    assert str(env._worker.pid) in str(caught.value)
    with pytest.raises(RuntimeError, match="signal 9"):
        env.reset(0)


def test_what_the_interpreter_cannot_import_is_said_with_the_mend():
    worker = Worker(Interpreter(sys.executable, "no_such_suite", mend="make suite"))
    with pytest.raises(UserError, match=r"a/b needs .*No module named 'no_such_suite'.*: make suite"):
        RemoteEnv(worker, 0, "a/b", "b", None).settled()
    worker.close()


def test_a_script_that_does_not_start_is_said():
    worker = Worker(Interpreter("/bin/false", "fake_suite"))
    with pytest.raises(RuntimeError, match="exit code 1"):
        RemoteEnv(worker, 0, "a/b", "b", None).settled()
    worker.close()


def test_closing_ends_the_process_and_may_be_repeated():
    worker = Worker(FAKE)
    worker.close()
    worker.close()
    assert not alive(worker.pid)


def script(*lines):
    """A Python process of its own that finds these tests."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1] / "helpers"), *sys.path])}
    command = [sys.executable, "-c", "\n".join(lines)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def test_nobody_is_left_behind_when_the_parent_is_killed():
    parent = script(
        "import time, test_remote as t",
        "from cdred.envs.remote.interpreter import current_interpreter",
        "workers = t.Worker(t.FAKE), t.Worker(current_interpreter())",
        "print(*[worker.pid for worker in workers], flush=True)",
        "time.sleep(60)",
    )
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 2
    assert all(alive(pid) for pid in pids)
    parent.kill()
    parent.wait()
    assert all(gone_within(pid) for pid in pids)


@pytest.mark.parametrize(("module", "not_even"), [("cdred.envs.remote", "jaxtyping"), ("cdred.envs.registry", "jax")])
def test_the_far_end_imports_little(module, not_even):
    child = script(
        "import importlib, sys",
        "sys.modules.pop('cdred', None)",
        "from runpy import run_path",
        f"run_path({server.__file__!r})['bare_package']()",
        f"importlib.import_module({module!r})",
        "print(*sorted(sys.modules))",
    )
    imported = set(child.communicate()[0].split())
    assert {module, "numpy"} <= imported
    assert not {not_even, "jax", "beartype", "equinox", "cdred.api"} & imported


def test_a_missing_interpreter_says_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CDRED_FAKE_PYTHON", raising=False)
    with pytest.raises(UserError, match=r"no \.venv-fake here.*: make fake"):
        interpreter("CDRED_FAKE_PYTHON", ".venv-fake", "make fake")
    monkeypatch.setenv("CDRED_FAKE_PYTHON", str(tmp_path / "python"))
    with pytest.raises(UserError, match=r"CDRED_FAKE_PYTHON names .*: make fake"):
        interpreter("CDRED_FAKE_PYTHON", ".venv-fake", "make fake")
    monkeypatch.setenv("CDRED_FAKE_PYTHON", sys.executable)
    assert interpreter("CDRED_FAKE_PYTHON", ".venv-fake", "make fake") == sys.executable


def test_the_interpreter_is_found_where_make_puts_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CDRED_FAKE_PYTHON", raising=False)
    path = tmp_path / ".venv-fake" / "bin" / "python"
    path.parent.mkdir(parents=True)
    path.touch()
    assert interpreter("CDRED_FAKE_PYTHON", ".venv-fake", "make fake") == str(path)
