"""Selection and concatenation of observations that a file stores as several named arrays.

The arrays are those that the user names, in that order; by default all that hold one number or one vector per time
step, in the order in which the file's reader lists them (sorted by name). Images are used only if named, and only
without other arrays. Names and widths are recorded in the provenance, so that the columns can be put into the order of
a task that has such names, too (`cdred.data.obs_names`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from cdred.data.formats.common import sanitize_text
from cdred.errors import UserError

# Keys of the provenance: names and widths of the arrays that observations are concatenated from, in that order;
# what determined the order unless it was the user or the environment; and arrays that were left out.
KEYS_KEY, WIDTHS_KEY, ORDER_KEY, LEFT_OUT_KEY = "obs_keys", "obs_widths", "obs_order", "obs_left_out"
DEFAULT_ORDER = "default of the file's reader"

# Names and widths, in the order of the columns.
Parts = tuple[tuple[str, int], ...]


class ArrayInfo(Protocol):
    """Shape and type of a stored array, such as an `h5py.Dataset`."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...


def select_obs_keys(
    arrays: Mapping[str, ArrayInfo], obs_keys: Sequence[str] | None, location: str, *, beside_images: bool = False
) -> tuple[str, ...]:
    """Return the names of the arrays that make up an observation.

    Args:
        arrays: by name, each `[time, ...]`.
        obs_keys: names given by the user; None for all numeric vectors.
        location: file or episode, for messages.
        beside_images: camera images are read, too, so that there may be no vector.

    Raises:
        UserError: an unknown name, no usable array, or arrays that cannot be concatenated.
    """
    if obs_keys is None and beside_images:
        return tuple(key for key, array in arrays.items() if is_vector(array))
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
    """Concatenate arrays, of which there is at least one, to `[time, sum of sizes]`; a single one keeps its shape.

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
    widths = [_width(arrays[key]) for key in keys]
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


def _width(array: ArrayInfo) -> int:
    return int(np.prod(array.shape[1:], dtype=int))


def obs_provenance(
    arrays: Mapping[str, ArrayInfo], keys: Sequence[str], obs_keys: Sequence[str] | None
) -> dict[str, object]:
    """Return the selection for a dataset's provenance; empty if there was only one array.

    Args:
        arrays: the available arrays.
        keys: names of those that were used.
        obs_keys: names given by the user; None if the order of `keys` is the reader's.
    """
    if len(arrays) < 2:
        return {}
    left_out = [key for key in arrays if key not in keys]
    return {
        **parts_provenance(joined_parts(arrays, keys)),
        **({ORDER_KEY: DEFAULT_ORDER} if obs_keys is None and len(keys) > 1 else {}),
        **({LEFT_OUT_KEY: left_out} if left_out else {}),
    }


def joined_parts(arrays: Mapping[str, ArrayInfo], keys: Sequence[str]) -> Parts:
    """Return names and widths of the arrays that an observation is concatenated from."""
    return tuple((key, _width(arrays[key])) for key in keys)


def check_same_parts(parts: Parts, first: Parts, location: str) -> None:
    """Raise UserError if an episode's observations are concatenated from other arrays than the first one's."""
    if parts != first:
        raise UserError(
            f"{location}: its observations are {format_parts(parts)}, those of the first episode "
            f"{format_parts(first)}: leave the episode out, or name common ones with --obs-keys."
        )


def parts_provenance(parts: Parts) -> dict[str, object]:
    """Return names and widths for a dataset's provenance; empty if there are none."""
    return {KEYS_KEY: [name for name, _ in parts], WIDTHS_KEY: [width for _, width in parts]} if parts else {}


def recorded_parts(provenance: Mapping[str, object], location: str) -> Parts:
    """Return the names and widths in a dataset's provenance; empty if it has none.

    Raises:
        UserError: they are not one width for each of several different names.
    """
    if KEYS_KEY not in provenance:
        return ()
    keys, widths = provenance[KEYS_KEY], provenance.get(WIDTHS_KEY)
    parts: Parts = ()
    if isinstance(keys, list) and isinstance(widths, list) and len(keys) == len(widths):
        parts = tuple(zip(keys, widths, strict=True))
    valid = all(isinstance(name, str) and type(width) is int and width >= 0 for name, width in parts)
    if not parts or not valid or len(dict(parts)) < len(parts):
        raise UserError(
            f"{location}: its provenance has {KEYS_KEY} {sanitize_text(keys)} and {WIDTHS_KEY} "
            f"{sanitize_text(widths)}, expected a list of different names and a list of as many widths: "
            "convert the original file again."
        )
    return parts


def format_parts(parts: Parts) -> str:
    """Format names and widths for a message."""
    return sanitize_text(", ".join(f"{name} ({width})" for name, width in parts))


def by_name(path: str) -> list[tuple[int, int, str]]:
    """Return a sorting key for names `a/b`: level by level, indices of tuples by number."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in path.split("/")]
