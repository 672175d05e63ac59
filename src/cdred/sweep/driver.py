"""The execution of a sweep: starts its runs, reports their progress, and how each has ended."""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from cdred.errors import Interrupted
from cdred.run_folder import finished_result
from cdred.sweep.backend import Backend
from cdred.sweep.collect import mean_score
from cdred.sweep.events import read_events
from cdred.sweep.plan import SweepRun
from cdred.sweep.process import LOG
from cdred.train.interrupt import SignalHandler
from cdred.types import LogFn

# Seconds between two looks at the runs: the files of many, on another machine's disk, take time to read.
POLL_SECONDS, POLL_SECONDS_PER_RUN = 0.5, 0.01


@dataclass(frozen=True)
class Failure:
    """A run that ended without a result.

    Attributes:
        run: the run.
        reason: one line or more.
    """

    run: SweepRun
    reason: str


def execute(runs: Sequence[SweepRun], backend: Backend, log: LogFn) -> list[Failure]:
    """Execute runs and return the failures, which do not stop the others.

    Raises:
        Interrupted: Ctrl-C or SIGTERM was received; the runs are stopped as the backend does.
    """
    with closing(backend), SignalHandler().installed() as signals:
        progress = _Progress(runs, log)
        backend.start(runs)
        while not progress.done and not signals.received:
            progress.report_starts()
            for run, problem in backend.ended():
                progress.report_end(run, problem)
            if not progress.done:
                time.sleep(max(POLL_SECONDS, POLL_SECONDS_PER_RUN * len(runs)))
        if signals.received and not progress.done:
            happens = backend.stop()
            raise Interrupted(f"{happens}; the same command continues the sweep.", 128 + signals.received)
    return progress.failures


class _Progress:
    """Reports what happens to each run, once."""

    def __init__(self, runs: Sequence[SweepRun], log: LogFn):
        self.failures: list[Failure] = []
        self._log, self._num_runs, self._num_ended = log, len(runs), 0
        self._known = {run: len(read_events(run.folder)) for run in runs}
        self._before = dict(self._known)

    @property
    def done(self) -> bool:
        """True if all runs have ended."""
        return self._num_ended == self._num_runs

    def report_starts(self) -> None:
        """Report the runs that began or resumed since the last call."""
        for run, known in self._known.items():
            events = read_events(run.folder)
            for event in events[known:]:
                if event["event"] == "started":
                    self._log(f"{self._count()} {run.name}: started on {event.get('host')}, log {run.folder / LOG}")
            self._known[run] = len(events)

    def report_end(self, run: SweepRun, problem: str) -> None:
        """Report a run that has ended."""
        self.report_starts()
        self._known.pop(run)
        self._num_ended += 1
        result = finished_result(run.folder, run.config)
        if result is not None:
            self._log(f"{self._count()} {run.name}: finished, {mean_score(result)}")
            return
        self.failures.append(Failure(run, self._reason(run, problem)))
        self._log(f"{self._count()} {run.name}: failed: {self.failures[-1].reason}")

    def _count(self) -> str:
        return f"[{self._num_ended}/{self._num_runs}]"

    def _reason(self, run: SweepRun, problem: str) -> str:
        """Return the error that the run recorded, if it recorded one since the sweep was started."""
        errors = [event.get("error") for event in read_events(run.folder)[self._before[run] :]]
        if errors and errors[-1]:
            return str(errors[-1])
        return f"{problem or 'it ended without a result'}; its output is in {run.folder / LOG}"
