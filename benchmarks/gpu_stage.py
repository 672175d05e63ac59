"""Stage of `benchmarks/gpu.sh`: measurements within a time limit, in one JSON file that is rewritten after each."""

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cdred.files import atomic_write_text

# A function that makes a measurement; it may publish what it has so far, as often as it likes.
Publish = Callable[[Any], None]
Measure = Callable[[Publish], Any]

RUNNING, DONE, FAILED, SKIPPED, STOPPED = "running", "done", "failed", "skipped", "stopped at the limit"


class Stage:
    """Measurements of one stage.

    The file has `{"stage", "limit_s", "seconds", "ended", "measurements"}` and the entries of `about`. `ended` is None
    while the stage runs, and stays None if it is killed. A measurement is `{"status", "started_s", "seconds",
    "result"}`, with an `"error"` if it failed and a `"reason"` if it was skipped; what is not known is None. At the
    limit the process ends, whatever it is doing, because a compilation cannot be interrupted.

    Args:
        name: name of the stage.
        path: the JSON file.
        limit_s: seconds from now until the process ends.
        about: further entries of the file, such as device and versions.
    """

    def __init__(self, name: str, path: Path, limit_s: float, about: dict[str, Any] | None = None):
        self._path, self._limit_s, self._start = path, limit_s, time.monotonic()
        self._lock = threading.RLock()
        self._document: dict[str, Any] = {"stage": name, "limit_s": limit_s, "seconds": 0.0, "ended": None}
        self._document |= (about or {}) | {"measurements": {}}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._write()
        self._watchdog = threading.Timer(limit_s, self._stop)
        self._watchdog.daemon = True
        self._watchdog.start()

    def seconds(self) -> float:
        """Return the seconds since the stage began."""
        return time.monotonic() - self._start

    def seconds_left(self) -> float:
        """Return the seconds until the limit."""
        return self._limit_s - self.seconds()

    def about(self, entries: dict[str, Any]) -> None:
        """Add entries to the file."""
        with self._lock:
            self._document |= entries
            self._write()

    def measure(self, name: str, function: Measure, estimate_s: float = 0.0) -> Any:
        """Make a measurement and write its result, or that it was skipped or failed.

        Args:
            name: name of the measurement, once per stage.
            function: makes it; what it returns or publishes has to be JSON.
            estimate_s: seconds that it needs; it is skipped if fewer are left.

        Returns:
            The result; None if it was skipped or failed.
        """
        if estimate_s > self.seconds_left():
            self.skip(name, f"needs about {estimate_s:.0f} s, {self.seconds_left():.0f} s are left")
            return None
        started = self.seconds()
        entry = {"status": RUNNING, "started_s": round(started, 1), "seconds": None, "result": None}
        self._record(name, entry)
        result, outcome = None, {"status": DONE}
        try:
            result = function(lambda partial: self._record(name, entry | {"result": partial}, quiet=True))
            outcome |= {"result": result}
        except Exception as error:
            with self._lock:
                published = self._document["measurements"][name]["result"]
            outcome = {"status": FAILED, "error": f"{type(error).__name__}: {error}"[:2000], "result": published}
        self._record(name, entry | {"seconds": round(self.seconds() - started, 1)} | outcome)
        return result

    def skip(self, name: str, reason: str) -> None:
        """Record that a measurement is not made, and why."""
        self._record(name, {"status": SKIPPED, "reason": reason})

    def duration(self, name: str) -> float | None:
        """Return the seconds of a measurement that was made; None for any other."""
        with self._lock:
            entry = self._document["measurements"].get(name, {})
            return entry.get("seconds") if entry.get("status") == DONE else None

    def end(self) -> None:
        """Record that the stage has come to its end."""
        self._watchdog.cancel()
        with self._lock:
            self._document["ended"] = "complete"
            self._write()

    def _record(self, name: str, entry: dict[str, Any], quiet: bool = False) -> None:
        with self._lock:
            self._document["measurements"][name] = entry
            self._write()
        if not quiet:
            why = entry.get("error") or entry.get("reason")
            print(f"[{self.seconds():6.1f} s] {name}: {entry['status']}{f' ({why})' if why else ''}", flush=True)

    def _write(self) -> None:
        self._document["seconds"] = round(self.seconds(), 1)
        atomic_write_text(self._path, json.dumps(self._document, indent=1) + "\n")

    def _stop(self) -> None:
        """End the process at the limit."""
        with self._lock:
            for name, entry in self._document["measurements"].items():
                if entry["status"] == RUNNING:
                    seconds = round(self.seconds() - entry["started_s"], 1)
                    self._record(name, entry | {"status": STOPPED, "seconds": seconds})
            self._document["ended"] = "at the limit"
            self._write()
            os._exit(0)
