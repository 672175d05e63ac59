"""Wall-clock timing of a run."""

import time

from cdred.files import format_mib


class RunTimer:
    """Seconds, steps per second and checkpoint times of a run.

    Attributes:
        previous_seconds: wall-clock seconds that the run took before it was resumed.
    """

    def __init__(self):
        self.previous_seconds, self._start = 0.0, time.perf_counter()
        self._interval_start = (0, self._start)
        self._num_saves, self._save_seconds, self._last_size = 0, 0.0, 0

    def seconds(self) -> float:
        """Return the wall-clock seconds of the whole run."""
        return self.previous_seconds + time.perf_counter() - self._start

    def start_interval(self, steps: int) -> None:
        """Start the interval over which `rates` are measured."""
        self._interval_start = (steps, time.perf_counter())

    def rates(self, steps: int, total: int) -> dict[str, float]:
        """Return steps per second and seed in the current interval and the estimated seconds left; start the next."""
        start_steps, start_time = self._interval_start
        rate = (steps - start_steps) / max(time.perf_counter() - start_time, 1e-9)
        self.start_interval(steps)
        return {"steps_per_second": rate, "eta_seconds": (total - steps) / max(rate, 1e-9)}

    def record_save(self, seconds: float, size: int) -> None:
        """Record a checkpoint of `size` bytes that took `seconds` to save."""
        self._num_saves, self._save_seconds, self._last_size = self._num_saves + 1, self._save_seconds + seconds, size

    def save_summary(self) -> str:
        """Summarise the checkpoints in words."""
        size = format_mib(self._last_size)
        return f"saved {self._num_saves} checkpoints in {self._save_seconds:.1f} s; the last one has {size}"
