"""Selection and concatenation of observations that a file stores as several named arrays.

The arrays are those that the user names, in that order; by default all that hold one number or one vector per time
step, in the order in which the file's reader lists them (sorted by name). Images are used only if named, and only
without other arrays.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from cdred.data.formats.common import sanitize_text
from cdred.errors import UserError


class ArrayInfo(Protocol):
    """Shape and type of a stored array, such as an `h5py.Dataset`."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...


def select_obs_keys(arrays: Mapping[str, ArrayInfo], obs_keys: Sequence[str] | None, location: str) -> tuple[str, ...]:
    """Return the names of the arrays that make up an observation.

    Args:
        arrays: by name, each `[time, ...]`.
        obs_keys: names given by the user; None for all numeric vectors.
        location: file or episode, for messages.

    Raises:
        UserError: an unknown name, no usable array, or arrays that cannot be concatenated.
    """
    if obs_keys is None:
        return _default_keys(arrays, location)
    missing = [key for key in obs_keys if key not in arrays]
    if missing or not obs_keys:
        raise UserError(
            f"{location}: no observation '{', '.join(missing)}' in it (available: {format_shapes(arrays)})."
        )
    if len(obs_keys) > 1:
        for key in obs_keys:
            if not is_vector(arrays[key]):
                raise UserError(
                    f"{location}: '{key}' has shape {arrays[key].shape[1:]} ({arrays[key].dtype}) per time step; only "
                    "numeric vectors can be concatenated: omit it, or name nothing else."
                )
    return tuple(obs_keys)


def _default_keys(arrays: Mapping[str, ArrayInfo], location: str) -> tuple[str, ...]:
    vectors = tuple(key for key, array in arrays.items() if is_vector(array))
    if vectors or len(arrays) == 1:
        return vectors or tuple(arrays)
    if not arrays:
        raise UserError(f"{location}: no observations in it.")
    raise UserError(
        f"{location}: no observation in it is a vector; name one with --obs-keys (available: {format_shapes(arrays)})."
    )


def is_vector(array: ArrayInfo) -> bool:
    """Return True if `array` holds one number or one numeric vector per time step."""
    return len(array.shape) in (1, 2) and np.dtype(array.dtype).kind in "fiub"


def format_shapes(arrays: Mapping[str, ArrayInfo]) -> str:
    """Format names and shapes of the arrays for a message."""
    return sanitize_text(", ".join(f"{key} {tuple(array.shape[1:])}" for key, array in arrays.items()) or "none")


def concat_obs(
    arrays: Mapping[str, ArrayInfo], keys: Sequence[str], read: Callable[[str], np.ndarray], location: str
) -> np.ndarray:
    """Concatenate several arrays to `[time, sum of sizes]`, or return a single array in its own shape.

    Args:
        arrays: the available arrays, for their sizes.
        keys: names of the arrays to use, in that order.
        read: returns the array of a name as float32, `[time, ...]`.
        location: file or episode, for messages.

    Raises:
        UserError: the arrays differ in their number of time steps.
    """
    if len(keys) == 1:
        obs = read(keys[0])
        return obs[:, None] if obs.ndim == 1 else obs
    widths = [int(np.prod(arrays[key].shape[1:], dtype=int)) for key in keys]
    ends = np.cumsum(widths).tolist()
    obs, lengths = np.empty((0, ends[-1]), np.float32), {}
    for key, width, end in zip(keys, widths, ends, strict=True):
        values = read(key)
        lengths[key] = len(values)
        if key == keys[0]:
            obs = np.empty((len(values), ends[-1]), np.float32)
        if len(values) != len(obs):
            raise UserError(f"{location}: its observations differ in length: {lengths}.")
        obs[:, end - width : end] = values.reshape(len(values), width)
    return obs


def obs_provenance(arrays: Mapping[str, ArrayInfo], keys: Sequence[str]) -> dict[str, object]:
    """Return the selection for a dataset's provenance; empty if there was only one array."""
    if len(arrays) < 2:
        return {}
    left_out = [key for key in arrays if key not in keys]
    return {"obs_keys": list(keys), **({"obs_left_out": left_out} if left_out else {})}
