"""Suites that work, that are missing, and that are broken."""

import pytest

from cdred.doctor import suites
from cdred.doctor.suites import PROBES, probe_suite

BY_NAME = {probe.name: probe for probe in PROBES}


def test_every_public_suite_with_tasks_is_probed():
    from cdred.envs.registry import PUBLIC_SUITES

    assert {probe.task.partition("/")[0] for probe in PROBES} == set(PUBLIC_SUITES) - {"env"}


def test_suite_that_works_has_versions_and_sizes():
    check, spec = probe_suite(BY_NAME["gym"])
    assert (check.mark, check.fix) == ("ok", "")
    assert check.result.startswith("gymnasium 1.")
    assert check.result.endswith("gym/Pendulum-v1 has 3 observations, 1 action, 200 steps")
    assert (spec.obs_shape, spec.action_dim, spec.episode_length) == ((3,), 1, 200)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("dmc", "pip install 'cdred[dmc]'"),
        ("metaworld", "pip install 'cdred[metaworld]'"),
        ("gym, MuJoCo", "pip install 'cdred[mujoco]'"),
        ("mjx", "make mjx"),
    ],
)
def test_missing_packages_are_named_with_the_command(name, command, monkeypatch):
    monkeypatch.setattr(suites, "not_installed", lambda _: ["one", "two"])
    check, spec = probe_suite(BY_NAME[name])
    assert check == (name, "missing", "one, two are not installed", command)
    assert spec is None


def test_missing_interpreter_has_the_commands_that_make_it(monkeypatch, tmp_path):
    monkeypatch.setenv("CDRED_MANISKILL_PYTHON", str(tmp_path / "python"))
    check, _ = probe_suite(BY_NAME["maniskill"])
    assert check.mark == "missing"
    assert f"{tmp_path / 'python'} does not exist" in check.result
    assert check.fix.splitlines()[0].startswith("python3 -m venv .venv-maniskill && ")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ImportError('another MuJoCo')", "another MuJoCo"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "was killed by signal 9"),
    ],
)
def test_installed_package_that_does_not_work_is_a_problem(code, reason, monkeypatch, tmp_path):
    (tmp_path / "dm_control").mkdir()
    (tmp_path / "dm_control" / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(suites, "not_installed", lambda _: [])
    check, _ = probe_suite(BY_NAME["dmc"])
    assert (check.mark, check.fix) == ("problem", "pip install 'cdred[dmc]'")
    assert "dmc/walker-walk cannot be made" in check.result
    assert reason in check.result


def test_suite_that_hangs_is_stopped(monkeypatch, tmp_path):
    (tmp_path / "slow_env.py").write_text("import time\ntime.sleep(1000)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TimeoutError):
        suites.task_spec("gym/slow_env:Task-v0", seconds=5)
