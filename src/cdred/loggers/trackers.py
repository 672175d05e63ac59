"""Experiment trackers: the protocol of one, and those of TensorBoard, Weights & Biases and trackio.

Their packages are extras, imported when a run uses them. `loggers.tracking` calls trackers, in threads of their own.
"""

import importlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast, get_args, runtime_checkable

from cdred.constraints import check_choice
from cdred.errors import UserError
from cdred.types import TrackerName

Rows = Mapping[str, Mapping[str, float]]
"""Value by metric, such as `eval/episode_return`, of each row: `seed-0`, ... and `mean`."""

# Project of the runs, where the user's settings name none.
PROJECT = "cdred"
# Seconds after which wandb gives up the upload of a finished run, which would otherwise keep the process from ending.
UPLOAD_SECONDS = 45.0


@dataclass(frozen=True)
class TrackedRun:
    """The run that a tracker is started for.

    Attributes:
        id: identifies the run for the tracker; the same when the run is resumed.
        name: task, method and preset.
        folder: the run folder.
        config: all settings, as in `config.yaml`.
        resume_step: step per seed at which the run is resumed; None if it begins.
    """

    id: str
    name: str
    folder: Path
    config: Mapping[str, Any]
    resume_step: int | None


@runtime_checkable
class Tracker(Protocol):
    """Receiver of a run's metrics, a tool or your own. All methods of one are called in one thread of its own.

    An exception switches the tracker off for the rest of the run, which goes on.

    A tracker may have an attribute `rewinds`. If it is true, `start` discards all beyond `TrackedRun.resume_step`, and
    the resumed run logs it again. By default the tracker keeps what it has got, and gets no step of a kind twice.
    """

    def start(self, run: TrackedRun) -> str | None:
        """Begin, or continue the tracker's run with the same `run.id`.

        Returns:
            A line for the user, such as where the run is shown.
        """
        ...

    def log(self, step: int, rows: Rows) -> None:
        """Take the metrics of one kind at `step` environment steps per seed.

        Args:
            step: environment steps per seed.
            rows: the known values of each seed (`seed-0`, named by the seed), and `mean`: means over the seeds, and
                metrics of the whole run, such as its speed. Unknown values are absent; others may be NaN or infinite.
        """
        ...

    def finish(self, result: Mapping[str, Any] | None) -> None:
        """End, with the content of `result.json`, or None if the run was stopped or has failed."""
        ...


class TensorBoardTracker:
    """Event files in `tensorboard/` of the run folder, a TensorBoard run per seed and one of the means.

    The tags of all seeds are the same, so TensorBoard draws their curves into one panel. Records are written here and
    not by `SummaryWriter`, which waits forever for its thread after a failed write.
    """

    rewinds = True

    def __init__(self):
        self._record_writer = _import("tensorboardX", "tensorboard").RecordWriter
        self._event = importlib.import_module("tensorboardX.proto.event_pb2")
        self._summary = importlib.import_module("tensorboardX.summary")
        self._folder, self._resume_step = Path(), None
        self._writers: dict[str, Any] = {}

    def start(self, run: TrackedRun) -> str:
        """Write the settings, as text of the means."""
        self._folder, self._resume_step, self._writers = run.folder / "tensorboard", run.resume_step, {}
        for folder in sorted(path for path in self._folder.glob("*") if path.is_dir()):
            # Also those that get no value any more: values of an earlier run in this folder are hidden.
            self._writers[folder.name] = self._open(folder)
        text = f"```json\n{json.dumps(run.config, indent=1)}\n```"
        self._write("mean", summary=self._summary.text("config", text), step=run.resume_step or 0)
        self._flush()
        return f"tensorboard: tensorboard --logdir {self._folder}"

    def log(self, step: int, rows: Rows) -> None:
        """Write a scalar per row and metric."""
        for row, values in rows.items():
            for name, value in values.items():
                self._write(row, summary=self._summary.scalar(name, value), step=step)
        self._flush()

    def finish(self, result: Mapping[str, Any] | None) -> None:
        """Close the files; the result's values are those of the last evaluation."""
        del result
        for writer in self._writers.values():
            writer.close()

    def _write(self, row: str, **content: Any) -> None:
        if row not in self._writers:
            self._writers[row] = self._open(self._folder / row)
        self._writers[row].write(self._event.Event(wall_time=time.time(), **content).SerializeToString())

    def _open(self, folder: Path) -> Any:
        """Begin an event file, which hides what the earlier ones of the folder have beyond the resumed step."""
        folder.mkdir(parents=True, exist_ok=True)
        earlier = [_number(path) for path in folder.glob("events.out.tfevents.*")]
        # TensorBoard reads them in the order of their names, and a clock may have been set back.
        number = max([int(time.time()), *(last + 1 for last in earlier)])
        writer = self._record_writer(str(folder / f"events.out.tfevents.{number:010}.cdred"))
        events = [self._event.Event(wall_time=time.time(), file_version="brain.Event:2")]
        if earlier:
            purge_step = 0 if self._resume_step is None else self._resume_step + 1
            start = self._event.SessionLog(status=self._event.SessionLog.START)
            events.append(self._event.Event(wall_time=time.time(), step=purge_step, session_log=start))
        for event in events:
            writer.write(event.SerializeToString())
        return writer

    def _flush(self) -> None:
        for writer in self._writers.values():
            writer.flush()


def _number(path: Path) -> int:
    number = path.name.split(".")[3]
    return int(number) if number.isdecimal() else 0


class WandbTracker:
    """One run of Weights & Biases per run of cdred, with keys per seed: the seeds share settings and process.

    Without credentials the run is offline. Entity, project, mode and group are those of the user's wandb settings.
    """

    def __init__(self):
        self._wandb, self._run = _import("wandb", "wandb"), cast(Any, None)

    def start(self, run: TrackedRun) -> str:
        """Begin a run, or continue the one with this id."""
        settings = self._wandb.setup().settings
        mode = settings.mode
        # A prompt for an account would wait in this thread for an answer.
        if mode not in ("offline", "dryrun", "disabled") and not self._wandb.login(prompt=False, verify=False):
            mode = "offline"
        self._run = self._wandb.init(
            project=settings.project or PROJECT,
            id=run.id,
            name=run.name,
            dir=str(run.folder),
            config=dict(run.config),
            allow_val_change=True,
            resume="allow",
            mode=mode,
            reinit="create_new",
            settings=self._wandb.Settings(
                console="off", silent=True, finish_timeout=UPLOAD_SECONDS, finish_timeout_raises=True
            ),
        )
        # Not wandb's own step: what is logged at a smaller one than the last is dropped.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        return f"wandb: offline, in {run.folder / 'wandb'}" if self._run.offline else f"wandb: {self._run.url}"

    def log(self, step: int, rows: Rows) -> None:
        """Log all rows with the step."""
        self._run.log({"step": step, **_flat(rows)})

    def finish(self, result: Mapping[str, Any] | None) -> None:
        """End the run; it is marked as failed if it has no result."""
        self._run.finish(exit_code=0 if result else 1)


class TrackioTracker:
    """One run of trackio per run of cdred, with keys per seed: on this machine, unless trackio's settings name others.

    trackio reports its failures by warnings, and prints where it writes to.
    """

    def __init__(self):
        self._trackio, self._run = _import("trackio", "trackio"), cast(Any, None)

    def start(self, run: TrackedRun) -> None:
        """Begin a run, or continue the one of this name, which contains the id."""
        name = f"{run.name}-{run.id}"
        self._run = self._trackio.init(
            PROJECT, name, config=dict(run.config), resume="allow", embed=False, auto_log_gpu=False, auto_log_cpu=False
        )

    def log(self, step: int, rows: Rows) -> None:
        """Log all rows at the step."""
        self._run.log(_flat(rows), step=step)

    def finish(self, result: Mapping[str, Any] | None) -> None:
        """Write what is left."""
        del result
        self._run.finish()


BUILT_IN: dict[TrackerName, type[Tracker]] = {
    "tensorboard": TensorBoardTracker,
    "wandb": WandbTracker,
    "trackio": TrackioTracker,
}


def separate_trackers(given: Any) -> tuple[Any, tuple[Tracker, ...]]:
    """Separate the names of trackers, which are settings, from objects.

    Args:
        given: a name, a tracker, or a sequence of both; anything else is returned as the names, which are checked with
            the other settings.

    Raises:
        UserError: an item is neither a name nor a tracker.
    """
    items = given if isinstance(given, (list, tuple)) else [given]
    objects = tuple(item for item in items if isinstance(item, Tracker) and not isinstance(item, type))
    names = tuple(item for item in items if item not in objects)
    for name in names:
        if not isinstance(name, str):
            known = ", ".join(get_args(TrackerName))
            what = name.__name__ if isinstance(name, type) else type(name).__name__
            raise UserError(f"trackers should be of {known}, or objects with start, log and finish, got {what}.")
        check_choice("--trackers", name, get_args(TrackerName))
    return names, objects


def make_trackers(names: Sequence[TrackerName], objects: Sequence[Tracker]) -> dict[str, Tracker]:
    """Make the trackers of a run; objects are named by their class, and numbered from the second of a class on.

    Raises:
        UserError: the package of a tracker is not installed.
    """
    trackers: dict[str, Tracker] = {name: BUILT_IN[name]() for name in names}
    for tracker in objects:
        name = type(tracker).__name__
        number = 1 + sum(type(other) is type(tracker) for other in trackers.values())
        trackers[name if number == 1 else f"{name}-{number}"] = tracker
    return trackers


def _import(package: str, name: TrackerName) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        reason = "which is not installed" if getattr(error, "name", None) == package else f"not importable ({error})"
        raise UserError(f"--track {name} needs {package}, {reason}: pip install 'cdred[{name}]'.") from error


def _flat(rows: Rows) -> dict[str, float]:
    return {f"{row}/{name}": value for row, values in rows.items() for name, value in values.items()}
