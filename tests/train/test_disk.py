"""A disk that takes no more, or nothing at all: one clear error, and a folder from which the same command goes on."""

import errno
import os
from dataclasses import replace

import pytest

import cdred
from cdred import api
from cdred.checkpoint import checkpoint
from cdred.errors import UserError
from cdred.files import disk_errors, write_error
from cdred.files import replace as replace_file
from cdred.loggers.metrics import JsonlLogger
from cdred.train import interrupt
from cdred.train.interrupt import lock_folder
from runs import arrays, assert_same_arrays, curves

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def config(out):
    """A method that learns without acting: it compiles soonest."""
    base = replace(cdred.preset("debug"), task="probe/point", algo="bc", demos="3", video=False, out=str(out))
    return replace(base, steps=60, checkpoint_every=20, updates_per_call=20)


def full_for(name):
    def fails(path, text):
        if path.name == name:
            raise FULL
        replace_file(path, text)

    return fails


def full_at(step):
    def fails(self, at, metrics, kind, whole=JsonlLogger.log):
        if at >= step:
            raise FULL
        whole(self, at, metrics, kind)

    return fails


def test_whichever_file_finds_the_disk_full_the_same_command_goes_on(tmp_path, monkeypatch):
    cdred.train(config(tmp_path / "whole"), quiet=True)
    run = tmp_path / "run"
    stages = [  # what fails, how, and the checkpoint that stands then
        (api, "replace_file", full_for("config.yaml"), None),
        (JsonlLogger, "log", full_at(40), "000000020"),
        (api, "replace_file", full_for("result.json"), "000000060"),
    ]
    for owner, name, fails, stands in stages:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fails)
            with pytest.raises(UserError) as told:
                cdred.train(config(run), quiet=True)
        assert str(told.value).startswith(f"{run}: cannot be written to (No space left on device).\n")
        assert "Free some space and give the same command" in str(told.value)
        assert not (run / "result.json").exists()
        latest = checkpoint.latest(run / "checkpoints")
        assert (latest and latest.name) == stands
    cdred.train(config(run), quiet=True)
    assert_same_arrays(arrays(tmp_path / "whole"), arrays(run))
    assert curves(tmp_path / "whole") == curves(run)


def test_a_folder_that_cannot_be_made_or_written_to_is_told_before_anything_is_trained(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(api, "_train", lambda *_: pytest.fail("it trained"))
    with pytest.raises(UserError, match=r"file/run: cannot be written to \(Not a directory\)\..*\n.*another --out"):
        cdred.train(config(tmp_path / "file" / "run"), quiet=True)


def test_a_read_only_folder_with_a_lock_in_it_is_told(tmp_path, monkeypatch):
    def refuse(**_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    (tmp_path / ".lock").write_text("")
    monkeypatch.setattr(interrupt.tempfile, "TemporaryFile", refuse)
    with pytest.raises(UserError, match="Read-only file system"), lock_folder(tmp_path):
        pytest.fail("held")


def test_a_file_that_finds_no_room_stays_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "config.yaml"
    replace_file(path, "old")

    def full(_):
        raise FULL

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, "new")
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["config.yaml"]


def test_other_errors_of_the_system_are_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path):
        (tmp_path / "absent").read_text()
    assert "Make it writable" in str(write_error(tmp_path, PermissionError(errno.EACCES, "Permission denied")))
