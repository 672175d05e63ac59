"""What is made of simulators that raise, hang, die or return what is no number: an episode given up, or the end.

A fault is first mended: the simulator is made anew and lives through its episode again, which is exact, for an episode
is determined by its seed and its actions. What breaks again at the same step is given up: that step never
happened, and the environment goes on with its next episode.
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

PACKAGE = str(Path(__file__).parents[1])

# Episodes of one environment given up in a row after which there is no going on: without a single step between
# them, and without a single one that came to its end.
MOST_STUCK, MOST_UNFINISHED = 3, 10


class SimulatorError(UserError):
    """A simulator with which nothing can go on: says in what way, and what to do."""

    def __init__(self, what: str):
        super().__init__(f"{what}\nMend the simulator, then give the same command again.")


class FailureCounts(NamedTuple):
    """Episodes given up, per environment, as arrays of the host or of the device.

    Attributes:
        broken: since the beginning.
        stuck: since the last step.
        unfinished: since the last episode that came to its end.
    """

    broken: Int32[Any, "S E"]
    stuck: Int32[Any, "S E"]
    unfinished: Int32[Any, "S E"]

    @classmethod
    def none(cls, shape: tuple[int, int]) -> Self:
        """Nothing has broken yet."""
        return cls(*(np.zeros(shape, np.int32) for _ in cls._fields))

    def after(self, void: Bool[Any, "S E"], finished: Bool[Any, "S E"]) -> Self:
        """One step of every environment later: `void` where an episode broke, `finished` where one ended."""
        one = void.astype(np.int32)
        unfinished = (self.unfinished + one) * (~finished).astype(np.int32)
        return type(self)(self.broken + one, (self.stuck + one) * one, unfinished)


def check_failure_limits(strikes: FailureCounts, name: Callable[[int, int], str], last: str) -> None:
    """Raises SimulatorError where too many episodes broke in a row.

    Args:
        strikes: on the host.
        name: what to call an environment.
        last: what was wrong with the last of them.
    """
    for count, most, missing in (
        (strikes.stuck, MOST_STUCK, "step"),
        (strikes.unfinished, MOST_UNFINISHED, "finished episode"),
    ):
        if (count >= most).any():
            s, e = np.argwhere(count >= most)[0]
            row = f"{count[s, e]} episodes in a row broke without one {missing} between them"
            raise SimulatorError(f"{name(int(s), int(e))}: {row}; the last by {last}.")


def one_line(error: BaseException) -> str:
    """What was raised, and where, if that was not here."""
    lines = str(error).splitlines() or [""]
    # A process that died repeats its last words.
    message = f"{lines[0]} {lines[-1]}" if lines[0].endswith(":") and lines[1:] else lines[0]
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    # What was raised in another process has its frames in a note.
    frames += re.findall(r'File "(.+)", line (\d+)', "\n".join(getattr(error, "__notes__", ())))
    foreign = frames and not frames[-1][0].startswith(PACKAGE)
    where = f" ({Path(frames[-1][0]).name}:{frames[-1][1]})" if foreign else ""
    return f"{type(error).__name__}{': ' * bool(message)}{message}{where}"


def warned(text: str) -> None:
    """Tell whoever did not say how to be told."""
    warnings.warn(text, RuntimeWarning, stacklevel=2)
