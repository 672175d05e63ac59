"""Calls of a run's trackers, each in a thread of its own: a slow or failing tracker neither delays nor ends a run.

The folder `trackers/` of a run has a file per tracker: the run's id, and the last step that the tracker has got of each
kind of metrics. A resumed run continues with both.
"""

import json
import os
import queue
import re
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cdred.loggers.metrics import Logger, Metrics
from cdred.loggers.trackers import Rows, TrackedRun, Tracker
from cdred.text import shorten
from cdred.types import LogFn

FOLDER = "trackers"
# Reports that wait for a tracker before it is switched off.
MAX_WAITING = 20_000
# Seconds that the end of a run waits for its trackers, together.
FINISH_SECONDS = 60.0
# Status of a tracker that got all metrics, in `result.json`.
COMPLETE = "complete"


def rows_of(metrics: Metrics, kind: str, seeds: Sequence[int]) -> dict[str, dict[str, float]]:
    """Return the known values of each seed, and their means.

    Args:
        metrics: as of `Logger.log`. A number of the whole run is put to the means; what is not a number is left out.
        kind: as of `Logger.log`, the first part of each metric's name.
        seeds: in the order of the lists.

    Returns:
        Values by row and name. A mean is absent if the value of a seed is unknown, and NaN if one is.
    """
    rows: dict[str, dict[str, float]] = {f"seed-{seed}": {} for seed in seeds} | {"mean": {}}
    for key, value in metrics.items():
        name, per_seed = f"{kind}/{key}", np.ndim(value) == 1 and len(value) == len(seeds)
        numbers = [_number(item) for item in (value if per_seed else [value])]
        if per_seed:
            for seed, number in zip(seeds, numbers, strict=True):
                if number is not None:
                    rows[f"seed-{seed}"][name] = number
        known = [number for number in numbers if number is not None]
        if len(known) == len(numbers):
            with np.errstate(invalid="ignore"):
                rows["mean"][name] = float(np.mean(known))
    return {row: values for row, values in rows.items() if values}


def _number(value: Any) -> float | None:
    if value is None or isinstance(value, str) or np.ndim(value):
        return None
    return float(value)


@dataclass
class TrackerState:
    """What the run folder keeps for a tracker.

    Attributes:
        path: its file.
        id: the run's id.
        logged: last step by kind.
    """

    path: Path
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    logged: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, resume_step: int | None) -> "TrackerState":
        """Read the state of a run that is resumed; a run that begins, or has no such file, gets a new id."""
        try:
            saved = json.loads(path.read_text()) if resume_step is not None else None
            logged = {str(kind): int(step) for kind, step in saved["logged"].items()} if saved else {}
            return cls(path, saved["id"], logged) if saved and re.fullmatch(r"[0-9a-f]{12}", saved["id"]) else cls(path)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return cls(path)

    def write(self) -> None:
        """Replace the file, without a flush to the disk: only a power failure would lose it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".unfinished")
        draft.write_text(json.dumps({"id": self.id, "logged": self.logged}) + "\n")
        os.replace(draft, self.path)


class _Worker(threading.Thread):
    """Thread that makes all calls of one tracker.

    Attributes:
        error: why the tracker is switched off; None while it works.
    """

    def __init__(self, name: str, tracker: Tracker, run: TrackedRun, message: LogFn):
        # The process does not wait for a tracker that hangs.
        super().__init__(name=f"tracker {name}", daemon=True)
        self.error: str | None = None
        self._tracker, self._run, self._message = tracker, run, message
        self._state_path = run.folder / FOLDER / f"{name}.json"
        self._queue: queue.Queue[tuple[int, str, Rows] | tuple[Mapping[str, Any] | None]] = queue.Queue(MAX_WAITING)
        self.start()

    def put(self, *item: Any) -> None:
        """Queue the arguments of a call: step, kind and rows, or the result, after which the thread ends."""
        if self.error is None:
            try:
                self._queue.put_nowait(item)
            except queue.Full:
                self.error = f"it does not keep up: {MAX_WAITING:,} reports are waiting"

    def run(self) -> None:
        """Start the tracker and make the calls that are queued, until it finishes, fails or is switched off."""
        try:
            state = self._begin()
            while self.error is None:
                item = self._queue.get()
                if len(item) == 1:
                    self._tracker.finish(item[0])
                    return
                self._log(state, *item)
        # Also a SystemExit, by which a thread ends without a message.
        except BaseException as error:
            self.error = self.error or shorten(f"{type(error).__name__}: {error}", 200)

    def _begin(self) -> TrackerState:
        state, step = TrackerState.read(self._state_path, self._run.resume_step), self._run.resume_step
        if step is not None and getattr(self._tracker, "rewinds", False):
            state.logged = {kind: min(logged, step) for kind, logged in state.logged.items()}
        state.write()
        self._kept = dict(state.logged)
        notice = self._tracker.start(replace(self._run, id=state.id))
        if notice:
            self._message(notice)
        return state

    def _log(self, state: TrackerState, step: int, kind: str, rows: Rows) -> None:
        # Of a step before the run was killed, to which it returns from its last checkpoint.
        if step <= self._kept.get(kind, -1):
            return
        self._tracker.log(step, rows)
        if step != state.logged.get(kind):
            state.logged[kind] = step
            state.write()


class TrackerLogger:
    """Logger that forwards to trackers.

    Args:
        trackers: by name.
        run: the run, with any id.
        seeds: in the order of the per-seed lists.
        message: shows the user a line, from any thread.
        failures: logger of the metrics of kind `tracker`, which name a tracker that failed.
    """

    def __init__(
        self, trackers: Mapping[str, Tracker], run: TrackedRun, seeds: Sequence[int], message: LogFn, failures: Logger
    ):
        self._seeds, self._message, self._failures = tuple(seeds), message, failures
        self._workers = {name: _Worker(name, tracker, run, message) for name, tracker in trackers.items()}
        self._reported: dict[str, str] = {}
        self._step = run.resume_step or 0
        self._held: tuple[int, str, Rows] | None = None
        self._finished = False

    def log(self, step: int, metrics: Metrics, kind: str) -> None:
        """Queue a report for each tracker. Of the reports of pretraining, all at step 0, the last one is forwarded."""
        if not self._workers:
            return
        self._step = max(self._step, step)
        report = (step, kind, rows_of(metrics, kind, self._seeds))
        if kind == "pretrain":
            self._held = report
        else:
            self._put_held()
            self._put(*report)
        self._report()

    def status(self) -> dict[str, str]:
        """Return by tracker `COMPLETE`, or the step at which it was switched off and why."""
        return {name: self._reported.get(name, COMPLETE) for name in self._workers}

    def finish(self, result: Mapping[str, Any] | None) -> None:
        """End all trackers, and wait for them up to `FINISH_SECONDS`.

        Args:
            result: content of `result.json`; None for a run that did not finish.
        """
        if self._finished:
            return
        self._finished = True
        self._put_held()
        self._put(result)
        deadline = time.monotonic() + FINISH_SECONDS
        for worker in self._workers.values():
            if worker.error is None:
                worker.join(max(0.0, deadline - time.monotonic()))
            if worker.is_alive() and worker.error is None:
                worker.error = f"it did not finish within {FINISH_SECONDS:g} s"
        self._report()

    def close(self) -> None:
        """End all trackers as those of a run that did not finish, unless they have ended."""
        self.finish(None)

    def _put_held(self) -> None:
        if self._held:
            self._put(*self._held)
            self._held = None

    def _put(self, *item: Any) -> None:
        for worker in self._workers.values():
            worker.put(*item)

    def _report(self) -> None:
        """Warn once of each tracker that failed. In the main thread, in which the metrics file is written."""
        for name, worker in self._workers.items():
            if worker.error is not None and name not in self._reported:
                self._reported[name] = f"switched off at step {self._step:,}: {worker.error}"
                self._message(f"warning: tracker {name} is {self._reported[name]}. The run goes on without it.")
                self._failures.log(self._step, {"tracker": name, "error": worker.error}, "tracker")
