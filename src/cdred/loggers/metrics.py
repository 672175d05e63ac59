"""The tracker protocol, the metrics file, and the fan-out to several sinks."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, TextIO, runtime_checkable

import numpy as np

from cdred.files import replace

Metrics = Mapping[str, Any]
"""Metric name to a number, a list of one number per seed, or None where there is none."""


@runtime_checkable
class Logger(Protocol):
    """Takes what a run reports. A sink shows or stores the keys that it knows and passes over the others."""

    def log(self, step: int, metrics: Metrics, kind: str) -> None:
        """Report `metrics` of one `kind` at `step` steps per seed.

        Kinds are `levels`, `train`, `episode`, `eval`, `save`, `health` and `rollback`.
        """
        ...

    def close(self) -> None:
        """Write out what is pending and let go of the terminal or file."""
        ...


class MultiLogger:
    """One tracker that passes everything on to several."""

    def __init__(self, trackers: Sequence[Logger]):
        self._trackers = tuple(trackers)

    def log(self, step: int, metrics: Metrics, kind: str) -> None:
        for tracker in self._trackers:
            tracker.log(step, metrics, kind)

    def close(self) -> None:
        """Close every tracker, also when the closing of another one fails."""
        with ExitStack() as stack:
            for tracker in reversed(self._trackers):
                stack.callback(tracker.close)


class JsonlLogger:
    """One JSON object per line: `step`, `kind`, `time` (Unix seconds), then the metrics.

    JSON knows no infinity: a number that is not finite is written as null and its key is listed under `non_finite`.

    Nothing is changed before the first line comes: a run that cannot be resumed leaves its file as it was.

    Args:
        path: the file; appended to if it exists.
        resume_step: drop the lines beyond this step, which the resumed run is about to report again. None keeps all,
            -1 starts the file anew.
        again: the kind of lines that it will report again at that very step, too.
    """

    def __init__(self, path: Path, resume_step: int | None = None, again: str | None = None):
        self._path, self._resume_step, self._again = path, resume_step, again
        self._file: TextIO | None = None

    def _opened(self) -> TextIO:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            _rewind(self._path, self._resume_step, self._again)
        return self._path.open("a", encoding="utf-8")

    def log(self, step: int, metrics: Metrics, kind: str) -> None:
        plain = {key: _plain(value) for key, value in metrics.items()}
        line = {"step": int(step), "kind": kind, "time": round(time.time(), 3), **plain}
        strange = [key for key, value in metrics.items() if _has_hole(plain[key]) and value is not None]
        if strange:
            line["non_finite"] = strange
        self._file = self._file or self._opened()
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        if self._file:
            self._file.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a metrics file in the order written; a line cut short by a killed run is passed over."""
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int) and isinstance(line.get("kind"), str):
            lines.append(line)
    return lines


def _rewind(path: Path, last_step: int | None, again: str | None) -> None:
    def stays(line: dict[str, Any]) -> bool:
        if last_step is None or line["step"] < last_step:
            return True
        return line["step"] == last_step and line["kind"] != again

    # A line cut short by a kill goes here too: what is appended must begin a line of its own.
    replace(path, "".join(json.dumps(line) + "\n" for line in read_lines(path) if stays(line)))


def _plain(value: Any) -> Any:
    """JAX, NumPy or Python numbers, however nested, as JSON numbers; nine digits keep a float32 exactly."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (list, tuple)) or np.ndim(value):
        return [_plain(item) for item in value]
    number = np.asarray(value).item()
    if isinstance(number, float):
        return float(f"{number:.9g}") if math.isfinite(number) else None
    return number


def _has_hole(plain: Any) -> bool:
    return plain is None or (isinstance(plain, list) and any(_has_hole(item) for item in plain))
