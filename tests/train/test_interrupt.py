"""Told to stop, a run saves itself and can go on as if nothing had been; and nobody else may touch its folder."""

import os
import signal
import subprocess
import sys
import time

import pytest

import cdred
from cdred.checkpoint import checkpoint
from cdred.errors import Interrupted, UserError
from cdred.loggers.metrics import JsonlLogger
from cdred.train.interrupt import SIGNALS, Stop, lock_folder
from runs import arrays, assert_same_arrays, config, curves, stopped_at

PATIENCE = 300


def test_a_signal_is_taken_down_and_the_handlers_are_given_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    with Stop().listening() as stop:
        assert not stop
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop
        assert stop.signal == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            # The second one is not taken down.
            signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.usefixtures("toy")
def test_a_stopped_run_goes_on_bit_for_bit(reference_run, tmp_path):
    # While the steps from 140 on are collected: away from every multiple of `checkpoint_every`.
    with stopped_at(140, "stopped at step 160 of 200.*goes on"):
        cdred.train(config(tmp_path / "run"), quiet=True)
    assert_goes_on_as(reference_run, tmp_path / "run", 160)


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(("step", "kind"), [(140, "train"), (100, "eval"), (100, "save"), (200, "train")])
def test_a_signal_that_comes_after_learning_stops_the_run_at_that_very_decision(
    reference_run, tmp_path, monkeypatch, step, kind
):
    """While it logs, evaluates, saves; and after the last block, before the evaluation of its end."""

    def log(self, at, metrics, of, whole=JsonlLogger.log):
        whole(self, at, metrics, of)
        if (at, of) == (step, kind):
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(JsonlLogger, "log", log)
        with pytest.raises(Interrupted, match=f"stopped at step {step} of 200"):
            cdred.train(config(tmp_path / "run"), quiet=True)
    assert_goes_on_as(reference_run, tmp_path / "run", step)


def assert_goes_on_as(unbroken, run, step):
    assert checkpoint.latest(run / "checkpoints").name == f"{step:09}"
    assert not (run / "result.json").exists()
    cdred.train(config(run), quiet=True)
    assert_same_arrays(arrays(unbroken), arrays(run))
    assert curves(unbroken) == curves(run)


def test_sigterm_ends_the_command_with_its_code_and_one_line(tmp_path):
    command = [
        sys.executable,
        "-m",
        "cdred",
        "train",
        "probe/point",
        "--preset",
        "debug",
        "--steps",
        "1000000",
    ]
    command += ["--video", "False", "--eval-every", "10000000", "--out", str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + PATIENCE
        while '"train"' not in _read(tmp_path / "run" / "metrics.jsonl") and process.poll() is None:
            assert time.monotonic() < deadline, "no metrics yet"
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert said.count("\n") == 1
    assert "stopped at step" in said
    assert checkpoint.latest(tmp_path / "run" / "checkpoints") is not None


def _read(path):
    return path.read_text() if path.exists() else ""


def test_a_folder_is_held_by_one_process_and_free_when_it_has_died(tmp_path):
    hold = "import sys, time; from pathlib import Path; from cdred.train.interrupt import lock_folder\n"
    hold += "with lock_folder(Path(sys.argv[1])): print('held', flush=True); time.sleep(1000)"
    with subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"trained in by process {other.pid}"), lock_folder(tmp_path):
            pass
        other.kill()
        other.wait()
    with lock_folder(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"process {os.getpid()}"
