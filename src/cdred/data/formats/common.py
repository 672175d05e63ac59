"""From arrays as files hold them to a trajectory, shared by the readers."""

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from cdred.errors import UserError
from cdred.types import Trajectory

# Called with how many are done and how many there are.
OnProgress = Callable[[int, int], None]

LONGEST = 500

NO_FINAL_OBSERVATION = "the last action of each episode, because the file has no observation after it"


class CorruptFileError(UserError):
    """A file that is not what its beginning or its name says."""


@contextmanager
def corrupt_as_user_error(path: Path, kind: str) -> Iterator[None]:
    """Whatever goes wrong while the body reads `path` as `kind`, as `CorruptFileError`.

    What libraries raise on damaged files has no end: there is hardly a type of exception that they do not.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise CorruptFileError(f"{path} cannot be read as {kind}: {brief(error)}; fetch or record it again.") from error


def brief(error: Exception) -> str:
    """The first line of what an exception says, and its type where that belongs to it."""
    text = (str(error).splitlines() or [""])[0].rstrip(". ")
    return one_line(
        text if isinstance(error, OSError) and text else f"{type(error).__name__}: {text}".removesuffix(": ")
    )


def required(arrays: Mapping[str, object], key: str, where: str) -> Any:
    """`arrays[key]`.

    Raises:
        UserError: there is no such key.
    """
    if key not in arrays:
        raise UserError(f"{where}: no '{key}' in it (there are: {names(arrays)}).")
    return arrays[key]


def names(keys: Iterable[str]) -> str:
    """What a file calls its parts, sorted, for a message."""
    return one_line(", ".join(sorted(keys)))


def one_line(text: object) -> str:
    """A text out of a file, for a message: of one line and some length, whatever bytes it is made of."""
    plain = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in str(text))
    return plain if len(plain) <= LONGEST else f"{plain[:LONGEST]} ..."


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


def final_flag(flags: np.ndarray, key: str, steps: int, where: str) -> bool:
    """Whether the episode's last step is flagged.

    Raises:
        UserError: `flags` are not one a step, or an earlier step is flagged.
    """
    if flags.shape != (steps,) or flags[:-1].any():
        raise UserError(f"{where}: '{key}' must be one flag an action ({steps}), set at the last one at most.")
    return bool(flags[-1:].any())


def empty_actions(steps: int) -> np.ndarray:
    """What stands for the actions of an episode of `steps` steps that only observations were kept of."""
    return np.zeros((steps, 0), np.float32)


def drop_last_action(one: Trajectory) -> Trajectory:
    """A trajectory of T - 1 steps from T observations and T actions.

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


def import_optional(name: str, why: str, extra: str = "formats") -> ModuleType:
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
