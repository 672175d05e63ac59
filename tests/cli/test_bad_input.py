"""Wrong input of any kind exits with code 2 and a message, without a traceback, and writes nothing."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cdred
from cdred.cli.main import main
from cli_error_cases import ARGUMENT_ERRORS, USAGE_ERRORS
from demo_error_cases import DEMOS
from run_error_cases import RUN_ERRORS


def content(folder: Path) -> dict[str, bytes]:
    """All files and folders, except the lock file, to which a run writes its process id."""
    paths = (path for path in folder.rglob("*") if path.name != ".lock")
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in paths}


def refused(case, capsys) -> str:
    """Run the command, which must fail with code 2 and write nothing, and return its message."""
    before = content(Path())
    code = main(case.command.split())
    out, error = capsys.readouterr()
    assert code == 2, (out, error)
    assert "Traceback" not in out + error
    after = content(Path())
    assert sorted(after) == sorted(before)
    assert after == before
    return error


def assert_short_message(case, error):
    lines = error.splitlines()
    assert lines[0].startswith("cdred: ")
    assert 1 <= len(lines) <= 3
    assert all(lines), error
    for phrase in case.phrases:
        assert phrase in error, error


def params(cases):
    return [pytest.param(case, id=case.name) for case in cases]


@pytest.mark.parametrize("case", params(USAGE_ERRORS))
def test_usage_error_names_the_option_and_its_value(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # tyro frames its message, and breaks it into lines.
    message = " ".join(re.sub(r"[│╭╮╰╯─]", " ", refused(case, capsys)).split())
    for phrase in case.phrases:
        assert phrase in message, message


@pytest.mark.parametrize("case", params(ARGUMENT_ERRORS + DEMOS))
def test_bad_arguments_and_demonstrations_are_refused(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    case.make()
    assert_short_message(case, refused(case, capsys))


@pytest.mark.parametrize("case", params(RUN_ERRORS))
def test_damaged_runs_are_refused(case, bc_run, tmp_path, monkeypatch, capsys):
    shutil.copytree(bc_run, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    case.make()
    assert_short_message(case, refused(case, capsys))


def test_run_that_the_cases_damage_is_valid(bc_run):
    assert cdred.load(bc_run / "run").act(np.zeros(4, np.float32)).shape == (2,)


def test_closed_pipe_makes_no_traceback():
    shell = f"{sys.executable} -m cdred train --help | head -1"
    process = subprocess.run(["sh", "-c", shell], capture_output=True, text=True)
    assert process.stderr == ""
    assert process.stdout.startswith("usage: cdred train")


def test_usage_error_of_the_installed_command_exits_with_code_2(tmp_path):
    command = [sys.executable, "-m", "cdred", "train", "probe/point", "--desicions", "3"]
    process = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert process.returncode == 2
    assert "--desicions" in process.stderr
    assert "Traceback" not in process.stderr
    assert list(tmp_path.iterdir()) == []
