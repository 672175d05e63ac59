"""Helpers that the readers share: from arrays as files store them to a `Trajectory`."""

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

from cdred.errors import UserError
from cdred.text import printable
from cdred.types import DemoDataset, Trajectory

# Called as `on_progress(done, total)`.
OnProgress = Callable[[int, int], None]

MAX_TEXT_LENGTH = 500

NO_FINAL_OBSERVATION = "the last action of each episode, because the file has no observation after it"


class CorruptFileError(UserError):
    """A file with other content than its name or its first bytes indicate."""


@contextmanager
def corrupt_as_user_error(path: Path, kind: str) -> Iterator[None]:
    """Turn any error that the body raises while reading `path` as `kind` into a `CorruptFileError`.

    Every exception type is caught, because libraries raise almost any of them on damaged files.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        message = f"{path} cannot be read as {kind}: {summarize_exception(error)}; fetch or record it again."
        raise CorruptFileError(message) from error


def summarize_exception(error: Exception) -> str:
    """Return the first line of an exception's message, with its type unless it is an `OSError`."""
    text = (str(error).splitlines() or [""])[0].rstrip(". ")
    return sanitize_text(
        text if isinstance(error, OSError) and text else f"{type(error).__name__}: {text}".removesuffix(": ")
    )


def get_required(arrays: Mapping[str, object], key: str, location: str) -> Any:
    """Return `arrays[key]`.

    Raises:
        UserError: there is no such key.
    """
    if key not in arrays:
        raise UserError(f"{location}: no '{key}' in it (available: {format_keys(arrays)}).")
    return arrays[key]


def format_keys(keys: Iterable[str]) -> str:
    """Format the keys of a file for a message, sorted."""
    return sanitize_text(", ".join(sorted(keys)))


def sanitize_text(text: object) -> str:
    """Make text from a file safe for a message: one printable line of limited length, whatever bytes it is made of."""
    line = printable(str(text)).replace("\n", "\\n")
    return line if len(line) <= MAX_TEXT_LENGTH else f"{line[:MAX_TEXT_LENGTH]} ..."


def as_float32(values: object, key: str, location: str) -> np.ndarray:
    """Convert `values` to float32, without a copy where they are float32 already.

    Raises:
        UserError: they are not numeric.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise UserError(f"{location}: '{key}' holds {array.dtype}, expected numbers in a plain array.")
    with np.errstate(over="ignore"):
        # Values beyond the range of float32 become infinite here, which the validation reports.
        return array.astype(np.float32, copy=False)


def as_bool(values: object, key: str, location: str) -> np.ndarray:
    """Convert booleans or numbers to booleans.

    Raises:
        UserError: they are neither booleans nor numbers.
    """
    return as_float32(values, key, location) != 0


def final_flag(flags: np.ndarray, key: str, steps: int, location: str) -> bool:
    """Return the flag of the episode's last step.

    Raises:
        UserError: there is not one flag per step, or an earlier step is flagged.
    """
    if flags.shape != (steps,) or flags[:-1].any():
        raise UserError(f"{location}: '{key}' must be one flag per action ({steps}), set at the last one at most.")
    return bool(flags[-1:].any())


def check_components(shape: tuple[int, ...], axes: str, key: str, location: str) -> None:
    """Check that an array with one row per time step has an axis for the components of an observation or action.

    Args:
        shape: shape of the array.
        axes: the expected shape, for messages.
        key: name of the array, for messages.
        location: file, for messages.

    Raises:
        UserError: it has no axis after the first.
    """
    if len(shape) < 2:
        raise UserError(
            f"{location}: '{key}' has shape {shape}, expected {axes}: it lacks the axis of components; if one is a "
            f"single continuous number, store {key}[:, None]."
        )


def check_step_counts(steps: Iterable[int], location: str, hint: str) -> None:
    """Check that not every episode has a single step, which is what a misread layout looks like.

    Args:
        steps: number of steps of each episode.
        location: file, for messages.
        hint: the cause to look for, which ends the message.

    Raises:
        UserError: there are several episodes, and none has more than one step.
    """
    counts = list(steps)
    if len(counts) > 1 and max(counts) <= 1:
        raise UserError(
            f"{location}: none of its {len(counts)} episodes has more than one step, as if every row were an episode: "
            f"{hint}."
        )


def check_declared_steps(declared: object, steps: int, key: str, location: str) -> None:
    """Check that a number of steps in a file's metadata is the number of its rows.

    Args:
        declared: the number in the metadata; None if there is none.
        steps: number of rows.
        key: name of the metadata, for messages.
        location: file or episode, for messages.

    Raises:
        UserError: they differ.
    """
    if declared is not None and not np.array_equal(declared, steps):  # pyright: ignore[reportArgumentType]
        raise UserError(
            f"{location}: {key} is {sanitize_text(declared)}, but the file holds {steps} rows of actions: fetch or "
            "record it again, or correct the metadata."
        )


def empty_actions(steps: int) -> np.ndarray:
    """Return actions of size zero, for an episode of `steps` steps that was recorded without actions."""
    return np.zeros((steps, 0), np.float32)


def check_all_or_none(dataset: DemoDataset, key: Literal["reward", "success", "image"], path: Path) -> None:
    """Check that all episodes have an array of this name, or none has, for a format with one column for all of them.

    Raises:
        UserError: only some have it.
    """
    num = sum(getattr(trajectory, key) is not None for trajectory in dataset)
    if num not in (0, len(dataset)):
        raise UserError(
            f"{path}: {num} of {len(dataset)} episodes have '{key}', which this format stores for all or none: save as "
            "Minari."
        )


def drop_last_action(trajectory: Trajectory) -> Trajectory:
    """Return a trajectory of T - 1 steps from T observations and T actions.

    The outcome of the last action is not observed, so the result counts as truncated, not terminated. A success that
    the last action achieved is moved to the step before it.
    """
    success = trajectory.success
    if success is not None:
        success = np.append(success[:-2], success[-2:].any()) if len(success) > 1 else success[:0]
    return replace(
        trajectory,
        action=trajectory.action[:-1],
        reward=None if trajectory.reward is None else trajectory.reward[:-1],
        success=success,
        terminated=False,
        truncated=True,
    )


def with_progress(items: Iterable[Any], on_progress: OnProgress | None) -> Iterator[Any]:
    """Yield `items`, calling `on_progress` after each."""
    items = items if isinstance(items, Sized) else list(items)
    for index, item in enumerate(items):  # pyright: ignore[reportArgumentType]
        yield item
        if on_progress:
            on_progress(index + 1, len(items))


def import_optional(name: str, purpose: str, extra: str = "formats") -> ModuleType:
    """Import the module `name` of an optional dependency.

    Args:
        name: dotted name of the module.
        purpose: what it is needed for, to begin the message with.
        extra: the extra of this package that installs it.

    Raises:
        UserError: its package is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise UserError(f"{purpose} needs {package}, which is not installed: pip install 'cdred[{extra}]'.") from error
