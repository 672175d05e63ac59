"""Functions of a caller that are called after every evaluation of a run, and may stop it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cdred.errors import UserError


@dataclass(frozen=True)
class EvaluationRecord:
    """An evaluation of a run, for callbacks.

    Attributes:
        step: environment steps per seed so far; 0 for the evaluation of the pretrained policy.
        total_steps: steps per seed at which the run ends; the evaluation at this step is the final one.
        seeds: in the order of the values.
        episode_return: mean return of each seed.
        success: fraction of successful episodes of each seed; None if the task does not report success.
        folder: the run folder.
    """

    step: int
    total_steps: int
    seeds: tuple[int, ...]
    episode_return: tuple[float, ...]
    success: tuple[float, ...] | None
    folder: Path


Callback = Callable[[EvaluationRecord], bool | None]
"""Function that is called after an evaluation, and returns True to stop the run."""


class Callbacks:
    """Callbacks of a run.

    Args:
        functions: called in their order.

    Attributes:
        stop_requested: one of them has returned True.

    Raises:
        UserError: one is not a function.
    """

    def __init__(self, functions: Sequence[Callback] = ()):
        if callable(functions) or not all(map(callable, functions)):
            raise UserError("callbacks should be a list of functions that take an EvaluationRecord.")
        self._functions, self.stop_requested = tuple(functions), False

    def __call__(self, record: EvaluationRecord) -> None:
        """Call all functions with an evaluation.

        Raises:
            UserError: one returns something else than a truth value or None.
        """
        for function in self._functions:
            answer = function(record)
            if not isinstance(answer, (bool, np.bool_, type(None))):
                raise UserError(f"a callback should return True to stop the run, or None, got {answer!r:.80}.")
            self.stop_requested |= bool(answer)
