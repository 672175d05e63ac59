"""What a run takes: its seconds, its pace, its saves."""

import time

from cdred.files import format_mib


class Clock:
    """Seconds spent, also before a resume, and the pace of the last stretch."""

    def __init__(self):
        self.before, self._began, self._marked = 0.0, time.perf_counter(), (0, time.perf_counter())
        self._saves, self._saving, self._size = 0, 0.0, 0

    def seconds(self) -> float:
        """Wall seconds of the whole run."""
        return self.before + time.perf_counter() - self._began

    def mark(self, steps: int) -> None:
        """Begin a stretch."""
        self._marked = (steps, time.perf_counter())

    def rates(self, steps: int, total: int) -> dict[str, float]:
        """Steps per second and seed since the last mark, and the seconds left at that pace."""
        then, at = self._marked
        pace = (steps - then) / max(time.perf_counter() - at, 1e-9)
        self.mark(steps)
        return {"steps_per_second": pace, "eta_seconds": (total - steps) / max(pace, 1e-9)}

    def saved(self, seconds: float, size: int) -> None:
        """A save has taken `seconds`, and its checkpoint `size` bytes."""
        self._saves, self._saving, self._size = self._saves + 1, self._saving + seconds, size

    def savings(self) -> str:
        """What the saves have taken, in words."""
        return f"saved {self._saves} times in {self._saving:.1f} s; the last checkpoint has {format_mib(self._size)}"
