"""A run that receives a signal saves its state and can be resumed; a run folder is locked against other processes."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import cdred
from cdred.checkpoint import checkpoint
from cdred.errors import Interrupted, UserError
from cdred.loggers.metrics import JsonlLogger
from cdred.train.interrupt import FIRST_ANSWER, SECOND_ANSWER, SIGNALS, SignalHandler, lock_folder
from runs import arrays, assert_same_arrays, metric_lines, run_config, stopped_at

TIMEOUT = 300


def test_first_signal_is_recorded_and_handlers_are_restored():
    before = [signal.getsignal(number) for number in SIGNALS]
    with SignalHandler().installed() as handler:
        assert handler.received is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert handler.received == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            # The second one has its default effect.
            signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in SIGNALS] == before


# A call that does not return to the interpreter for minutes, like a compilation, nor is ended by a signal.
LONG_CALL = """
import hashlib
from cdred.train.interrupt import SignalHandler
with SignalHandler().installed() as handler:
    print("before the call", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
    print("returned", flush=True)
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_during_a_long_call_is_answered_before_it_returns(number):
    command = [sys.executable, "-c", LONG_CALL]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "before the call\n"
            time.sleep(2.0)  # until it is
            process.send_signal(number)
            assert process.stderr.readline() == f"cdred: {FIRST_ANSWER}\n"
            assert process.poll() is None
            process.send_signal(number)
            output, errors = process.communicate(timeout=TIMEOUT)
        finally:
            process.kill()
    assert (output, errors, process.returncode) == ("", f"cdred: {SECOND_ANSWER}\n", 128 + number)


def test_signals_are_answered_once_and_the_thread_ends(capsys):
    threads, wakeup = threading.active_count(), signal.set_wakeup_fd(-1)
    with SignalHandler().installed() as handler:
        signal.raise_signal(signal.SIGINT)
        assert handler.received == signal.SIGINT
    assert capsys.readouterr().err == f"cdred: {FIRST_ANSWER}\n"
    assert threading.active_count() == threads
    assert signal.set_wakeup_fd(wakeup) == -1


@pytest.mark.usefixtures("toy")
def test_stopped_run_resumes_bitwise_identically(reference_run, tmp_path):
    # During the block from step 140 on: at no multiple of `checkpoint_every`.
    with stopped_at(140, "stopped at step 160 of 200.*same command to resume"):
        cdred.train(run_config(tmp_path / "run"), quiet=True)
    assert_resumes_as(reference_run, tmp_path / "run", 160)


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(("step", "kind"), [(140, "train"), (100, "eval"), (100, "checkpoint"), (200, "train")])
def test_signal_after_a_block_stops_at_its_step(reference_run, tmp_path, monkeypatch, step, kind):
    """Covers logging, evaluation, saving, and the last block before the final evaluation."""

    def log(self, at, metrics, of, original=JsonlLogger.log):
        original(self, at, metrics, of)
        if (at, of) == (step, kind):
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(JsonlLogger, "log", log)
        with pytest.raises(Interrupted, match=f"stopped at step {step} of 200"):
            cdred.train(run_config(tmp_path / "run"), quiet=True)
    assert_resumes_as(reference_run, tmp_path / "run", step)


def assert_resumes_as(reference_run, run, step):
    assert checkpoint.latest(run / "checkpoints").name == f"{step:09}"
    assert not (run / "result.json").exists()
    cdred.train(run_config(run), quiet=True)
    assert_same_arrays(arrays(reference_run), arrays(run))
    assert metric_lines(reference_run) == metric_lines(run)


def test_sigterm_ends_the_command_with_its_exit_code(tmp_path):
    command = [
        sys.executable,
        "-m",
        "cdred",
        "train",
        "probe/point",
        "--preset",
        "debug",
        "--algo",
        "bc",
        "--steps",
        "1000000",
    ]
    command += ["--no-video", "--eval-every", "10000000", "--out", str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + TIMEOUT
        while '"train"' not in _read(tmp_path / "run" / "metrics.jsonl") and process.poll() is None:
            assert time.monotonic() < deadline, "no metrics yet"
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 128 + signal.SIGTERM, error
    answer, end = error.splitlines()
    assert answer == f"cdred: {FIRST_ANSWER}"
    assert "stopped at step" in end
    assert checkpoint.latest(tmp_path / "run" / "checkpoints") is not None


def _read(path):
    return path.read_text() if path.exists() else ""


def test_folder_is_locked_until_the_process_ends(tmp_path):
    script = "import sys, time; from pathlib import Path; from cdred.train.interrupt import lock_folder\n"
    script += "with lock_folder(Path(sys.argv[1])): print('locked', flush=True); time.sleep(1000)"
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match=rf"in use by process {other.pid}"), lock_folder(tmp_path):
            pass
        other.kill()
        other.wait()
    with lock_folder(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"process {os.getpid()}"
