"""What the readers of HDF5 files share."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cdred.data.arrays import as_float32
from cdred.errors import UserError


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The `h5py.File` at `path`, to read. (h5py's own types leave open what a key leads to.)

    Raises:
        UserError: it is no HDF5 file, or damaged where the body reads it.
    """
    try:
        with h5py.File(path, "r") as file:
            yield file
    except OSError as error:
        raise UserError(f"{path} cannot be read as HDF5: {error}") from error


def holds(path: Path, what: Callable[[Any], bool]) -> bool:
    """Whether `path` is an HDF5 file of which `what` is true."""
    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    try:
        with h5py.File(path, "r") as file:
            return what(file)
    except OSError:
        return False


def numbered(group: Any, prefix: str) -> list[tuple[str, Any]]:
    """The groups in `group` whose names are `prefix` and a number, in the order of the numbers."""
    named = [name for name in group if re.fullmatch(rf"{prefix}\d+", name)]
    ordered = sorted(named, key=lambda name: int(name.removeprefix(prefix)))
    return [(name, node) for name in ordered if isinstance(node := group[name], h5py.Group)]


def leaves(node: Any, name: str) -> dict[str, h5py.Dataset]:
    """The arrays in `node`, keys sorted level by level; that of a single array is `name`, others are paths below it."""
    if isinstance(node, h5py.Dataset):
        return {name: node}
    found = {}
    for key in sorted(node):
        child = node[key]
        if isinstance(child, h5py.Dataset):
            found[key] = child
        elif isinstance(child, h5py.Group):
            found |= {f"{key}/{below}": leaf for below, leaf in leaves(child, "").items()}
    return found


def read(array: h5py.Dataset, key: str, where: str, rows: slice = slice(None)) -> np.ndarray:
    """Rows of `array` as float32, converted on their way from the file, so that they are in memory once.

    Raises:
        UserError: they are not numbers.
    """
    if array.dtype.kind not in "fiu" or array.ndim == 0:
        return as_float32(array[rows] if array.ndim else array[()], key, where)
    start, stop, _ = rows.indices(len(array))
    found = np.empty((max(stop - start, 0), *array.shape[1:]), np.float32)
    if found.size:
        array.read_direct(found, slice(start, stop))
    return found


def read_array(group: Any, key: str, where: str) -> np.ndarray:
    """All of the array `key` as float32.

    Raises:
        UserError: there is none, it is a group, or it does not hold numbers.
    """
    if key not in group:
        raise UserError(f"{where}: no '{key}' in it (there are: {', '.join(sorted(group))}).")
    found = group[key]
    if not isinstance(found, h5py.Dataset):
        raise UserError(f"{where}: '{key}' is in several parts; only one array can be used: flatten it first.")
    return read(found, key, where)
