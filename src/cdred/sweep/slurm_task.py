"""What a SLURM job of a sweep does, for submitit to call. As `process`, it imports nothing that needs JAX."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cdred.sweep.process import RunProcess, wait_until_unlocked

# Seconds in which a run may save its state, of those that SLURM grants after SIGTERM.
SAVE_SECONDS = 100.0


class SlurmTask:
    """Run of a job, which is requeued after `checkpoint`.

    Args:
        settings: of the run, as from `plain_settings`.
        folder: run folder.
    """

    def __init__(self, settings: Mapping[str, Any], folder: str):
        self._settings, self._folder = settings, folder
        self._process: RunProcess | None = None

    def __call__(self) -> int | None:
        """Train the run in a process of its own, and return its exit code."""
        self._process = RunProcess(self._settings, Path(self._folder), {})
        return self._process.run()

    def checkpoint(self) -> Any:
        """Save the state of the run, and return the job to requeue; called in the handler of SIGTERM."""
        submitit: Any = importlib.import_module("submitit")  # here: an extra

        if self._process is not None:
            self._process.stop()
            wait_until_unlocked(Path(self._folder), SAVE_SECONDS)
        return submitit.helpers.DelayedSubmission(SlurmTask(self._settings, self._folder))
