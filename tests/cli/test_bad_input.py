"""Whatever is wrong with what a user gives: exit code 2, one to three lines, no traceback, and nothing written."""

import io
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cdred
from cdred.cli.main import main
from cli_error_cases import WORDS
from demo_error_cases import DEMOS
from run_error_cases import RUNS


def content(folder: Path) -> dict[str, bytes]:
    """All that is in a folder, but for the lock, whose holder is written into it."""
    files = (path for path in folder.rglob("*") if path.name != ".lock")
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in files}


def assert_refused(case, capsys):
    before = content(Path())
    code = main(case.words.split())
    out, error = capsys.readouterr()
    lines = error.splitlines()
    assert code == 2, (out, error)
    assert lines[0].startswith("cdred: ")
    assert 1 <= len(lines) <= 3
    assert all(lines), error
    for phrase in case.says:
        assert phrase in error, error
    assert "Traceback" not in out + error
    after = content(Path())
    assert sorted(after) == sorted(before)
    assert after == before


def named(cases):
    return [pytest.param(case, id=case.name) for case in cases]


@pytest.mark.parametrize("case", named(WORDS + DEMOS))
def test_bad_words_and_bad_demonstrations_are_refused(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    case.make()
    assert_refused(case, capsys)


@pytest.mark.parametrize("case", named(RUNS))
def test_bad_runs_are_refused(case, cloned, tmp_path, monkeypatch, capsys):
    shutil.copytree(cloned, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    case.make()
    assert_refused(case, capsys)


def test_there_are_many_and_what_is_spoiled_was_good(cloned):
    assert len(WORDS + DEMOS + RUNS) >= 150
    assert cdred.load(cloned / "run").act(np.zeros(4, np.float32)).shape == (2,)


def test_what_is_written_to_nobody_makes_no_traceback():
    shell = f"{sys.executable} -m cdred train --help | head -1"
    said = subprocess.run(["sh", "-c", shell], capture_output=True, text=True)
    assert said.stderr == ""
    assert said.stdout.startswith("usage: cdred train")


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_wrong_words_are_told_alike_on_every_terminal(encoding, monkeypatch, capsys):
    # Where the terminal can draw it, tyro puts a frame around what it says.
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding))
    assert main(["train", "probe/point", "--desicions", "3"]) == 2
    assert main(["train", "probe/point", "--steps", "x"]) == 2
    assert main(["demos", "collect", "probe/point"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "cdred: no option --desicions. Did you mean --steps?",
        "See `cdred train --help`.",
        "cdred: --steps: 'x' is not a whole number. Expected --steps INT.",
        "See `cdred train --help`.",
        "cdred: missing: --out PATH.",
        "See `cdred demos --help`.",
    ]
