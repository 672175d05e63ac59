"""Handling of simulators that raise, hang, die or return non-finite values.

On a failure the simulator is recreated and its episode replayed, which is exact because an episode is determined by
its seed and its actions. If it fails again at the same step, the episode is aborted: that step yields no transition,
and the environment continues with its next episode.
"""

import re
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Bool, Int32

from cdred.errors import UserError
from cdred.text import printable

PACKAGE = str(Path(__file__).parents[1])

# Consecutive aborted episodes of one environment that end a run: without a completed step in between, and without a
# completed episode in between.
MAX_FAILURES_PER_STEP, MAX_FAILURES_PER_EPISODE = 3, 10


class SimulatorError(UserError):
    """A simulator failed and the run cannot continue."""

    def __init__(self, message: str):
        super().__init__(f"{message}\nFix the simulator, then run the same command again.")


class FailureCounts(NamedTuple):
    """Numbers of aborted episodes per environment, as arrays on the host or on the device.

    Attributes:
        total: since the start.
        since_step: since the last valid step.
        since_episode: since the last completed episode.
    """

    total: Int32[Any, "S E"]
    since_step: Int32[Any, "S E"]
    since_episode: Int32[Any, "S E"]

    @classmethod
    def zeros(cls, shape: tuple[int, int]) -> Self:
        """Return counts of 0, on the host."""
        return cls(*(np.zeros(shape, np.int32) for _ in cls._fields))

    def update(self, invalid: Bool[Any, "S E"], done: Bool[Any, "S E"]) -> Self:
        """Return the counts after one step of every environment.

        Args:
            invalid: episodes aborted in this step.
            done: episodes completed in this step.
        """
        failed = invalid.astype(np.int32)
        since_episode = (self.since_episode + failed) * (~done).astype(np.int32)
        return type(self)(self.total + failed, (self.since_step + failed) * failed, since_episode)


def check_failure_limits(counts: FailureCounts, label: Callable[[int, int], str], last: str) -> None:
    """Raise SimulatorError if an environment has too many consecutive failures.

    Args:
        counts: on the host.
        label: name of environment (s, e) in messages.
        last: description of the last failure.
    """
    for count, limit, unit in (
        (counts.since_step, MAX_FAILURES_PER_STEP, "step"),
        (counts.since_episode, MAX_FAILURES_PER_EPISODE, "episode"),
    ):
        if (count >= limit).any():
            s, e = np.argwhere(count >= limit)[0]
            failed = f"{count[s, e]} consecutive episodes failed without a completed {unit} in between"
            raise SimulatorError(f"{label(int(s), int(e))}: {failed}; last failure: {last}.")


def format_exception(error: BaseException) -> str:
    """Format an exception as one line: type, message, and file and line if it was raised outside of this package."""
    lines = str(error).splitlines() or [""]
    # The error of a dead process ends with the last line of its output.
    message = f"{lines[0]} {lines[-1]}" if lines[0].endswith(":") and lines[1:] else lines[0]
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    # Exceptions raised in another process carry their frames in a note.
    frames += re.findall(r'File "(.+)", line (\d+)', "\n".join(getattr(error, "__notes__", ())))
    external = frames and not frames[-1][0].startswith(PACKAGE)
    where = f" ({Path(frames[-1][0]).name}:{frames[-1][1]})" if external else ""
    return f"{type(error).__name__}{': ' * bool(message)}{message}{where}"


def warn(text: str) -> None:
    """Log `text` with `warnings.warn`: the default `LogFn`."""
    warnings.warn(printable(text), RuntimeWarning, stacklevel=2)
