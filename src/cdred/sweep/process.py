"""Processes that train the runs of a sweep; one that is killed is replaced, and its run resumes.

This module imports none that needs JAX: Ray's workers and SLURM's jobs, which only wait, would take its memory.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cdred.train.interrupt import lock_owner

WORKER = ("-m", "cdred.sweep.worker")
LOG = "train.log"
# Seconds between SIGTERM, after which a run saves its state unless it is in a compilation, and the end of the process.
SAVE_SECONDS = 120.0
# Times that a run's process is replaced without a new checkpoint in between: it may be killed for what it does.
MAX_RESTARTS = 3
# Exit codes of a run that was stopped by Ctrl-C or SIGTERM after it saved its state.
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)
# Fraction of a GPU's memory that all runs on it may take together; the driver needs the rest.
GPU_MEMORY = 0.9


class RunProcess:
    """Process of a run. It ends with this process, and with `stop` after it has saved its state.

    Args:
        settings: of the run, as from `plain_settings`.
        folder: run folder.
        env: environment variables in addition to those of this process, which come first.
    """

    def __init__(self, settings: Mapping[str, Any], folder: Path, env: Mapping[str, str]):
        self._settings, self._folder = settings, folder
        self._env = {**env, **os.environ}
        self._process: subprocess.Popen[str] | None = None
        # Between the check and the start of a process, `stop` must wait. A signal handler may call it here.
        self._lock = threading.RLock()
        self._stopping = False

    def run(self) -> int | None:
        """Train until the run has finished, failed or been stopped.

        Returns:
            The exit code, negative for the signal that ended the process; None if it was stopped before it began.
        """
        code, restarts, saved = None, 0, self._saved()
        while restarts <= MAX_RESTARTS and (process := self._start()):
            code = self._wait(process)
            if code >= 0 and code not in STOPPED:
                break
            before, saved = saved, self._saved()
            restarts = restarts + 1 if saved == before else 0
        return code

    def stop(self) -> None:
        """Ask the process to save its state and end, and start no other."""
        with self._lock:
            self._stopping = True
            process = self._process
        if process is not None:
            process.terminate()

    def _start(self) -> "subprocess.Popen[str] | None":
        """Start the process; None if the run is to stop."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._lock, (self._folder / LOG).open("a") as log:
            if self._stopping:
                return None
            self._process = process = subprocess.Popen(
                [sys.executable, *WORKER, str(self._folder)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._env,
                text=True,
                # Ctrl-C in a terminal would reach it as well as `stop`, and the second signal ends it without saving.
                start_new_session=True,
            )
        return process

    def _wait(self, process: "subprocess.Popen[str]") -> int:
        """Send the settings and wait for the end of the process, which ends as well if this raises."""
        assert process.stdin
        try:
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps(self._settings) + "\n")
                process.stdin.flush()
            # Not without end: a signal handler that stops the run has to return here.
            while process.poll() is None:
                time.sleep(0.1)
        except BaseException:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(SAVE_SECONDS)
            raise
        finally:
            with suppress(BrokenPipeError):
                process.stdin.close()
        return process.returncode

    def _saved(self) -> set[str]:
        """Return the names of the checkpoints, which are those of their steps."""
        return {path.name for path in (self._folder / "checkpoints").glob("*")}


def train_in_process(settings: Mapping[str, Any], folder: str, env: Mapping[str, str]) -> int | None:
    """Train a run in a process of its own, which ends with this one, and return its exit code; for Ray to call."""
    return RunProcess(settings, Path(folder), env).run()


def wait_until_unlocked(folder: Path, seconds: float) -> None:
    """Wait until no process holds the lock of a run folder, for some seconds at most."""
    deadline = time.monotonic() + seconds
    while lock_owner(folder) is not None and time.monotonic() < deadline:
        time.sleep(0.2)


def gpu_memory(share: float) -> dict[str, str]:
    """Return environment variables with which a run takes its share of a GPU's memory, of which JAX takes 75 %.

    Args:
        share: fraction of the GPU; nothing changes from 1 on.
    """
    return {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{GPU_MEMORY * share:.3f}"} if 0 < share < 1 else {}
