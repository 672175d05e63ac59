"""Observations that a file keeps in several named parts, joined to one vector a time step.

Which parts: those that the user names, in that order; else all that hold one number or one vector a time step, in the
order in which the file's reader lists them (sorted by name). Pictures are only ever taken when named, and alone.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from cdred.data.formats.common import one_line
from cdred.errors import UserError


class ArrayInfo(Protocol):
    """Shape and type of what a file holds: an `h5py.Dataset`, an array."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...


def selected(parts: Mapping[str, ArrayInfo], obs_keys: Sequence[str] | None, where: str) -> tuple[str, ...]:
    """The names of the parts that make an observation.

    Args:
        parts: by name, each `[time, ...]`.
        obs_keys: as the user asked; None for all vectors of numbers.
        where: the place, for the messages.

    Raises:
        UserError: a name that is not there, nothing to take, or something that cannot be joined.
    """
    if obs_keys is None:
        return _default(parts, where)
    missing = [key for key in obs_keys if key not in parts]
    if missing or not obs_keys:
        raise UserError(f"{where}: no observation '{', '.join(missing)}' in it (there are: {listed(parts)}).")
    if len(obs_keys) > 1:
        for key in obs_keys:
            if not is_vector(parts[key]):
                raise UserError(
                    f"{where}: '{key}' has shape {parts[key].shape[1:]} ({parts[key].dtype}) a time step; only vectors "
                    "of numbers can be joined: leave it out, or name it alone."
                )
    return tuple(obs_keys)


def _default(parts: Mapping[str, ArrayInfo], where: str) -> tuple[str, ...]:
    vectors = tuple(key for key, part in parts.items() if is_vector(part))
    if vectors or len(parts) == 1:
        return vectors or tuple(parts)
    if not parts:
        raise UserError(f"{where}: no observations in it.")
    raise UserError(
        f"{where}: no observation in it is a vector; name one with --obs-keys (there are: {listed(parts)})."
    )


def is_vector(part: ArrayInfo) -> bool:
    """Whether `part` is one number or one vector of numbers a time step."""
    return len(part.shape) in (1, 2) and np.dtype(part.dtype).kind in "fiub"


def listed(parts: Mapping[str, ArrayInfo]) -> str:
    """Names and shapes of the parts, for a message."""
    return one_line(", ".join(f"{key} {tuple(part.shape[1:])}" for key, part in parts.items()) or "none")


def joined(
    parts: Mapping[str, ArrayInfo], keys: Sequence[str], read: Callable[[str], np.ndarray], where: str
) -> np.ndarray:
    """`[time, sum of sizes]` from several parts, or one part in its own shape.

    Args:
        parts: what there is, for the sizes.
        keys: what to take, in that order.
        read: gives one part as float32, `[time, ...]`.
        where: the place, for the messages.

    Raises:
        UserError: the parts differ in their number of time steps.
    """
    if len(keys) == 1:
        found = read(keys[0])
        return found[:, None] if found.ndim == 1 else found
    widths = [int(np.prod(parts[key].shape[1:], dtype=int)) for key in keys]
    ends = np.cumsum(widths).tolist()
    out, lengths = np.empty((0, ends[-1]), np.float32), {}
    for key, width, end in zip(keys, widths, ends, strict=True):
        piece = read(key)
        lengths[key] = len(piece)
        if key == keys[0]:
            out = np.empty((len(piece), ends[-1]), np.float32)
        if len(piece) != len(out):
            raise UserError(f"{where}: its observations differ in length: {lengths}.")
        out[:, end - width : end] = piece.reshape(len(piece), width)
    return out


def account(parts: Mapping[str, ArrayInfo], keys: Sequence[str]) -> dict[str, object]:
    """What a dataset's provenance says of the choice: nothing where there was none to make."""
    if len(parts) < 2:
        return {}
    left_out = [key for key in parts if key not in keys]
    return {"obs_keys": list(keys), **({"obs_left_out": left_out} if left_out else {})}
