"""From arrays as files hold them to a trajectory, shared by the readers."""

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np

from cdred.errors import UserError
from cdred.types import Trajectory

# Called with how many are done and how many there are.
OnProgress = Callable[[int, int], None]

NO_FINAL_OBSERVATION = "the last action of each episode, because the file has no observation after it"


def required(arrays: Mapping[str, object], key: str, where: str) -> Any:
    """`arrays[key]`.

    Raises:
        UserError: there is no such key.
    """
    if key not in arrays:
        raise UserError(f"{where}: no '{key}' in it (there are: {', '.join(sorted(arrays))}).")
    return arrays[key]


def as_float32(values: object, key: str, where: str) -> np.ndarray:
    """`values` as float32; themselves if they are that already.

    Raises:
        UserError: they are not numbers.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise UserError(f"{where}: '{key}' holds {array.dtype}, expected numbers in a plain array.")
    with np.errstate(over="ignore"):
        # What float32 cannot hold becomes infinite here and is reported as such by the validation.
        return array.astype(np.float32, copy=False)


def as_bool(values: object, key: str, where: str) -> np.ndarray:
    """`values` as truth values.

    Raises:
        UserError: they are neither truth values nor numbers.
    """
    return as_float32(values, key, where) != 0


def last_flag(flags: np.ndarray, key: str, steps: int, where: str) -> bool:
    """Whether the episode's last decision is flagged.

    Raises:
        UserError: `flags` are not one a decision, or an earlier decision is flagged.
    """
    if flags.shape != (steps,) or flags[:-1].any():
        raise UserError(f"{where}: '{key}' must be one flag an action ({steps}), set at the last one at most.")
    return bool(flags[-1:].any())


def no_actions(steps: int) -> np.ndarray:
    """What stands for the actions of an episode of `steps` decisions that only observations were kept of."""
    return np.zeros((steps, 0), np.float32)


def without_last_action(one: Trajectory) -> Trajectory:
    """A trajectory of T - 1 decisions from T observations and T actions.

    The end that came of the last action is not seen, so the rest is neither ended by the world nor without a value
    beyond; a success that the last action brought counts for the one before it.
    """
    success = one.success
    if success is not None:
        success = np.append(success[:-2], success[-2:].any()) if len(success) > 1 else success[:0]
    return replace(
        one, action=one.action[:-1], reward=one.reward[:-1], success=success, terminated=False, truncated=True
    )


def tracked(items: Iterable[Any], on_progress: OnProgress | None) -> Iterator[Any]:
    """`items` one by one, `on_progress` being told after each."""
    items = items if isinstance(items, Sized) else list(items)
    for index, item in enumerate(items):  # pyright: ignore[reportArgumentType]
        yield item
        if on_progress:
            on_progress(index + 1, len(items))


def optional_module(name: str, why: str, extra: str = "formats") -> ModuleType:
    """The module `name`, imported now.

    Raises:
        UserError: its package is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise UserError(f"{why} needs {package}, which is not installed: pip install 'cdred[{extra}]'.") from error
