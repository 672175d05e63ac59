"""Wall-clock timing of a run."""

import math
import time
from collections.abc import Callable

import numpy as np

from cdred.files import format_mib

# Number of first blocks with updates that are left out of the speed: acting and learning are compiled in them.
COMPILING_BLOCKS = 2


class RunTimer:
    """Seconds, steps per second, time left and checkpoint times of a run.

    Args:
        clock: returns seconds.

    Attributes:
        previous_seconds: wall-clock seconds that the run took before it was resumed.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self._clock = clock
        self.previous_seconds, self._start = 0.0, clock()
        self._interval_start = (0, self._start)
        self._compiling_blocks, self._episode_seconds = COMPILING_BLOCKS, float("nan")
        self._num_saves, self._save_seconds, self._last_size = 0, 0.0, 0

    def seconds(self) -> float:
        """Return the wall-clock seconds of the whole run."""
        return self.previous_seconds + self._clock() - self._start

    def start_interval(self, steps: int) -> None:
        """Start the interval over which `rates` are measured."""
        self._interval_start = (steps, self._clock())

    def end_block(self, steps: int) -> None:
        """Record the end of a block with updates; the first `COMPILING_BLOCKS` are left out of the speed."""
        if self._compiling_blocks:
            self._compiling_blocks -= 1
            self.start_interval(steps)

    def record_evaluation(self, seconds: float, episodes: int) -> None:
        """Record an evaluation that has just ended, and leave its time out of the interval."""
        # The first one is the slowest, because functions are compiled in it.
        self._episode_seconds = float(np.fmin(self._episode_seconds, seconds / episodes))
        steps, start = self._interval_start
        self._interval_start = (steps, start + seconds)

    def rates(self, steps: int, total: int, episodes_left: int) -> dict[str, float | None]:
        """Return the speed in the current interval and the estimated time left; start the next interval.

        Args:
            steps: steps so far.
            total: steps at which the run ends.
            episodes_left: evaluation episodes until then.

        Returns:
            `steps_per_second`, per seed; `eta_seconds`, with evaluations, None before the first of them was measured;
            `min_eta_seconds`, without evaluations. All are None in an interval that only compiled.
        """
        start_steps, start_time = self._interval_start
        self.start_interval(steps)
        if steps <= start_steps:
            return {"steps_per_second": None, "eta_seconds": None, "min_eta_seconds": None}
        rate = (steps - start_steps) / max(self._interval_start[1] - start_time, 1e-9)
        minimum = (total - steps) / rate
        eta = minimum + episodes_left * self._episode_seconds
        return {
            "steps_per_second": rate,
            "eta_seconds": None if math.isnan(eta) else eta,
            "min_eta_seconds": minimum,
        }

    def record_save(self, seconds: float, size: int) -> None:
        """Record a checkpoint of `size` bytes that took `seconds` to save."""
        self._num_saves, self._save_seconds, self._last_size = self._num_saves + 1, self._save_seconds + seconds, size

    def save_summary(self) -> str:
        """Summarise the checkpoints in words."""
        size = format_mib(self._last_size)
        return f"saved {self._num_saves} checkpoints in {self._save_seconds:.1f} s; the last one has {size}"
