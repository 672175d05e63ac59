"""Logger protocol, the metrics file, and a logger that forwards to several."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, TextIO, runtime_checkable

import numpy as np

from cdred.files import atomic_write_text

Metrics = Mapping[str, Any]
"""Metric name to a number, a list of one number per seed, or None for an unknown value."""


@runtime_checkable
class Logger(Protocol):
    """Receiver of a run's metrics, which shows or stores the keys that it knows and ignores all others."""

    def log(self, step: int, metrics: Metrics, kind: str) -> None:
        """Report `metrics` of one `kind` at `step` steps per seed.

        Kinds are `reference` (scores of the expert and a random policy), `train`, `rollout`, `eval`, `diagnostics`,
        `checkpoint` and `restart` (after a divergence).
        """
        ...

    def close(self) -> None:
        """Write pending output and release the terminal or file."""
        ...


class MultiLogger:
    """Logger that forwards to several loggers."""

    def __init__(self, loggers: Sequence[Logger]):
        self._loggers = tuple(loggers)

    def log(self, step: int, metrics: Metrics, kind: str) -> None:
        """Forward a report to each logger."""
        for logger in self._loggers:
            logger.log(step, metrics, kind)

    def close(self) -> None:
        """Close every logger, also if closing another one fails."""
        with ExitStack() as stack:
            for logger in reversed(self._loggers):
                stack.callback(logger.close)


class JsonlLogger:
    """Logger that writes one JSON object per line: `step`, `kind`, `time` (Unix seconds), then the metrics.

    JSON has no NaN and no infinity: non-finite numbers are written as null and their keys listed under `non_finite`.
    The file is not changed before the first line is logged, so a run that fails to resume leaves it intact.

    Args:
        path: the file; appended to if it exists.
        resume_step: drop the lines beyond this step, which the resumed run reports again. None keeps all lines and
            -1 drops all.
        repeated_kind: drop the lines of this kind at exactly `resume_step`, too.
    """

    def __init__(self, path: Path, resume_step: int | None = None, repeated_kind: str | None = None):
        self._path, self._resume_step, self._repeated_kind = path, resume_step, repeated_kind
        self._file: TextIO | None = None

    def log(self, step: int, metrics: Metrics, kind: str) -> None:
        """Append a line."""
        plain = {key: _to_json(value) for key, value in metrics.items()}
        line = {"step": int(step), "kind": kind, "time": round(time.time(), 3), **plain}
        non_finite = [key for key, value in metrics.items() if _has_null(plain[key]) and value is not None]
        if non_finite:
            line["non_finite"] = non_finite
        self._file = self._file or self._open()
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file, if a line was written."""
        if self._file:
            self._file.close()

    def _open(self) -> TextIO:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            _rewind(self._path, self._resume_step, self._repeated_kind)
        return self._path.open("a", encoding="utf-8")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the objects of a metrics file in order; a line left incomplete by a killed run is skipped."""
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int) and isinstance(line.get("kind"), str):
            lines.append(line)
    return lines


def _rewind(path: Path, resume_step: int | None, repeated_kind: str | None) -> None:
    def is_kept(line: dict[str, Any]) -> bool:
        if resume_step is None or line["step"] < resume_step:
            return True
        return line["step"] == resume_step and line["kind"] != repeated_kind

    # An incomplete last line is dropped as well, so that what is appended starts a line of its own.
    atomic_write_text(path, "".join(json.dumps(line) + "\n" for line in read_lines(path) if is_kept(line)))


def _to_json(value: Any) -> Any:
    """Convert nested JAX, NumPy or Python numbers to JSON; nine digits represent a float32 exactly."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (list, tuple)) or np.ndim(value):
        return [_to_json(item) for item in value]
    number = np.asarray(value).item()
    if isinstance(number, float):
        return float(f"{number:.9g}") if math.isfinite(number) else None
    return number


def _has_null(plain: Any) -> bool:
    return plain is None or (isinstance(plain, list) and any(_has_null(item) for item in plain))
