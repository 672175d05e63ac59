"""Runs on a full or read-only disk end with a clear error, and the same command resumes them."""

import errno
import os
from dataclasses import replace

import pytest

import cdred
from cdred import api, run_folder
from cdred.checkpoint import checkpoint
from cdred.errors import UserError
from cdred.files import atomic_write_text, disk_errors, write_error
from cdred.loggers.metrics import JsonlLogger
from cdred.report import results
from cdred.train import interrupt
from cdred.train.interrupt import lock_folder
from runs import arrays, assert_same_arrays, metric_lines

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def bc_config(out):
    """Make the settings of a run of BC, which does not act and compiles soonest."""
    base = replace(cdred.preset("debug"), task="probe/point", algo="bc", demos="3", video=False, out=str(out))
    return replace(base, steps=60, checkpoint_every=20, updates_per_call=20)


def full_for(name):
    def write(path, text):
        if path.name == name:
            raise FULL
        atomic_write_text(path, text)

    return write


def full_at(step):
    def log(self, at, metrics, kind, original=JsonlLogger.log):
        if at >= step:
            raise FULL
        original(self, at, metrics, kind)

    return log


def test_same_command_resumes_after_a_full_disk(tmp_path, monkeypatch):
    cdred.train(bc_config(tmp_path / "whole"), quiet=True)
    run = tmp_path / "run"
    stages = [  # function that fails, and the latest checkpoint then
        (run_folder, "atomic_write_text", full_for("config.yaml"), None),
        (JsonlLogger, "log", full_at(40), "000000020"),
        (results, "atomic_write_text", full_for("result.json"), "000000060"),
    ]
    for owner, name, fails, expected in stages:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fails)
            with pytest.raises(UserError) as error:
                cdred.train(bc_config(run), quiet=True)
        assert str(error.value).startswith(f"{run}: cannot be written to (No space left on device).\n")
        assert "Free some space and run the same command" in str(error.value)
        assert not (run / "result.json").exists()
        latest = checkpoint.latest(run / "checkpoints")
        assert (latest and latest.name) == expected
    cdred.train(bc_config(run), quiet=True)
    assert_same_arrays(arrays(tmp_path / "whole"), arrays(run))
    assert metric_lines(tmp_path / "whole") == metric_lines(run)


def test_unusable_run_folder_is_refused_before_training(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(api, "_train", lambda *_: pytest.fail("it trained"))
    with pytest.raises(UserError, match=r"file/run: cannot be written to \(Not a directory\)\..*\n.*another --out"):
        cdred.train(bc_config(tmp_path / "file" / "run"), quiet=True)


def test_read_only_folder_with_a_lock_is_refused(tmp_path, monkeypatch):
    def refuse(**_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    (tmp_path / ".lock").write_text("")
    monkeypatch.setattr(interrupt.tempfile, "TemporaryFile", refuse)
    with pytest.raises(UserError, match="Read-only file system"), lock_folder(tmp_path):
        pytest.fail("locked")


def test_atomic_write_on_a_full_disk_keeps_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "config.yaml"
    atomic_write_text(path, "old")

    def full(_):
        raise FULL

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        atomic_write_text(path, "new")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["config.yaml"]


def test_other_errors_are_not_reported_as_a_full_disk(tmp_path):
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path):
        (tmp_path / "absent").read_text()
    assert "Make it writable" in str(write_error(tmp_path, PermissionError(errno.EACCES, "Permission denied")))
