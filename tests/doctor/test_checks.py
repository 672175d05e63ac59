"""Checks in other processes: results, failures, time limits."""

import pytest

from cdred.doctor.checks import ProbeError, run_probe


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Return a function that makes a module of some code and returns its name."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def make(code):
        (tmp_path / "a_probe.py").write_text(code)
        return "a_probe"

    return make


def test_result_is_the_last_line(module):
    code = "import os, sys\nprint('a banner')\nprint('{\"a\": [1, \"%s %s\"]}' % (sys.argv[1], os.environ['SOME']))"
    assert run_probe(module(code), ("x",), seconds=60, variables={"SOME": "y"}) == {"a": [1, "x y"]}


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise RuntimeError('no driver')", r"RuntimeError: no driver \(exit code 1\)"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended by signal 9"),
        ("print('no JSON')", "no result from a_probe"),
        ("", "no result from a_probe"),
    ],
)
def test_failure_is_reported_with_its_reason(code, message, module):
    with pytest.raises(ProbeError, match=message):
        run_probe(module(code), seconds=60)


def test_probe_that_hangs_is_stopped(module):
    with pytest.raises(ProbeError, match=r"not finished after 0\.5 s"):
        run_probe(module("import time; time.sleep(1000)"), seconds=0.5)


def test_working_directory_hides_no_package(module, tmp_path, monkeypatch):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "json.py").write_text("raise RuntimeError('not the standard library')")
    monkeypatch.chdir(folder)
    assert run_probe(module("import json; print(json.dumps({}))"), seconds=60) == {}
