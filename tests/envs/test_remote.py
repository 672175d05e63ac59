"""Environments in other processes: exact transfer of arrays and errors, and no process left running."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cdred.envs.remote import server
from cdred.envs.remote.client import EnvServer, RemoteEnv
from cdred.envs.remote.interpreter import Interpreter, find_interpreter
from cdred.envs.remote.server import pack, unpack
from cdred.errors import UserError
from cdred.types import EnvSpec

FAKE = Interpreter(sys.executable, "fake_suite", (str(Path(__file__).parents[1] / "helpers"),))


@pytest.fixture
def env_server():
    env_server = EnvServer(FAKE)
    yield env_server
    env_server.close()


@pytest.fixture
def env(env_server):
    env = RemoteEnv(env_server, 0, "fake/count", "count", None).wait_ready()
    env.reset(3)
    return env


def make_action(failure, reward=0.0):
    """Return an action of `fake_suite.Counter`: kind of failure, additional reward."""
    return np.array([failure, reward], np.float32)


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if Path("/proc").exists() else True


def ends_within(pid, seconds=10.0):
    deadline = time.monotonic() + seconds
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_alive(pid)


@pytest.mark.parametrize(
    "arrays",
    [
        [],
        [np.arange(6, dtype=np.uint8).reshape(1, 2, 3), np.float64(0.1), np.zeros((0, 4), np.float32)],
        [np.arange(12.0).reshape(3, 4).T, np.array([np.nan, np.inf])],
    ],
)
def test_messages_are_transferred_exactly(arrays):
    header, unpacked = unpack(pack({"x": 0.1 + 0.2, "text": "ü"}, arrays))
    assert header == {"x": 0.1 + 0.2, "text": "ü"}
    for expected, array in zip(arrays, unpacked, strict=True):
        assert (expected.dtype, expected.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(expected, array)
        assert array.flags.writeable


def test_remote_env_implements_env(env):
    assert env.spec == EnvSpec("fake/count", (3,), 2, 5, 1, True, obs_parts=(("seed", 1), ("counts", 2)))
    assert isinstance(hash(env.spec), int)
    np.testing.assert_array_equal(env.reset(7), np.array([7, 0, 1], np.float32))
    step = env.step(make_action(0, 0.7))
    np.testing.assert_array_equal(step.obs, np.array([7, 1, 1], np.float32))
    assert step[1:] == (0.1 + float(np.float32(0.7)), False, False, True)
    assert type(step.success) is bool
    assert (env.render() == np.ones((4, 4, 3), np.uint8)).all()


def test_one_process_serves_several_envs_in_order(env_server, env):
    second = RemoteEnv(env_server, 1, "fake/count", "count", 2).wait_ready()
    env.send("reset", 1)
    second.send("reset", 2)
    env.send("step", make_action(0))
    assert [env.wait()[0], second.wait()[0], env.wait().obs[1]] == [1, 2, 1]
    assert second.render().shape == (2, 2, 3)


@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        (2, FloatingPointError, "exploded"),
        (4, LookupError, "of a type with children"),
        (5, FloatingPointError, "fake/count: the simulator returned a non-finite observation"),
    ],
)
def test_error_keeps_its_type_and_env_continues(env, failure, kind, message):
    with pytest.raises(kind, match=message) as caught:
        env.step(make_action(failure))
    assert failure == 5 or "fake_suite.py" in caught.value.__notes__[0]
    assert env.reset(9)[0] == 9


def test_remote_user_error_becomes_local_user_error(env_server):
    with pytest.raises(UserError, match="pip install it"):
        RemoteEnv(env_server, 0, "fake/unknown", "unknown", None).wait_ready()


def test_killed_process_reports_signal_and_last_output(env):
    with pytest.raises(RuntimeError, match=r"killed by signal 9; its last output:\nout of memory") as caught:
        env.step(make_action(3))
    assert str(env._server.pid) in str(caught.value)
    with pytest.raises(RuntimeError, match="signal 9"):
        env.reset(0)


def test_failed_remote_import_gives_the_install_hint():
    env_server = EnvServer(Interpreter(sys.executable, "no_such_suite", install_hint="make suite"))
    with pytest.raises(UserError, match=r"a/b needs .*No module named 'no_such_suite'.*: make suite"):
        RemoteEnv(env_server, 0, "a/b", "b", None).wait_ready()
    env_server.close()


def test_process_that_does_not_start_is_reported():
    env_server = EnvServer(Interpreter("/bin/false", "fake_suite"))
    with pytest.raises(RuntimeError, match="exit code 1"):
        RemoteEnv(env_server, 0, "a/b", "b", None).wait_ready()
    env_server.close()


def test_close_ends_the_process_and_can_be_repeated():
    env_server = EnvServer(FAKE)
    env_server.close()
    env_server.close()
    assert not is_alive(env_server.pid)


def start_script(*lines):
    """Start a Python process that can import these tests."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1] / "helpers"), *sys.path])}
    command = [sys.executable, "-c", "\n".join(lines)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def test_servers_end_when_the_parent_is_killed():
    parent = start_script(
        "import time, test_remote as t",
        "from cdred.envs.remote.interpreter import current_interpreter",
        "servers = t.EnvServer(t.FAKE), t.EnvServer(current_interpreter())",
        "print(*[server.pid for server in servers], flush=True)",
        "time.sleep(60)",
    )
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 2
    assert all(is_alive(pid) for pid in pids)
    parent.kill()
    parent.wait()
    assert all(ends_within(pid) for pid in pids)


@pytest.mark.parametrize(("module", "excluded"), [("cdred.envs.remote", "jaxtyping"), ("cdred.envs.registry", "jax")])
def test_server_imports_few_packages(module, excluded):
    child = start_script(
        "import importlib, sys",
        "sys.modules.pop('cdred', None)",
        "from runpy import run_path",
        f"run_path({server.__file__!r})['stub_package']()",
        f"importlib.import_module({module!r})",
        "print(*sorted(sys.modules))",
    )
    imported = set(child.communicate()[0].split())
    assert {module, "numpy"} <= imported
    assert not {excluded, "jax", "beartype", "equinox", "cdred.api"} & imported


def test_missing_interpreter_gives_the_install_hint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CDRED_FAKE_PYTHON", raising=False)
    with pytest.raises(UserError, match=r"no \.venv-fake in the working directory.*: make fake"):
        find_interpreter("CDRED_FAKE_PYTHON", ".venv-fake", "make fake")
    monkeypatch.setenv("CDRED_FAKE_PYTHON", str(tmp_path / "python"))
    with pytest.raises(UserError, match=r"CDRED_FAKE_PYTHON=.* does not exist: make fake"):
        find_interpreter("CDRED_FAKE_PYTHON", ".venv-fake", "make fake")
    monkeypatch.setenv("CDRED_FAKE_PYTHON", sys.executable)
    assert find_interpreter("CDRED_FAKE_PYTHON", ".venv-fake", "make fake") == sys.executable


def test_interpreter_of_make_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CDRED_FAKE_PYTHON", raising=False)
    path = tmp_path / ".venv-fake" / "bin" / "python"
    path.parent.mkdir(parents=True)
    path.touch()
    assert find_interpreter("CDRED_FAKE_PYTHON", ".venv-fake", "make fake") == str(path)
