"""Helpers that the readers of HDF5 files share.

An HDF5 file may refer to other files: by external links, external storage, or virtual datasets. None of these is
followed: only the named file is opened. Nor are arrays read if their declared size is far beyond what
the file can hold.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5g, h5l, h5o  # pyright: ignore[reportAttributeAccessIssue]  (compiled, without stubs)

from cdred.data.formats.common import CorruptFileError, as_float32, corrupt_as_user_error, format_keys, sanitize_text
from cdred.data.formats.safety import check_expanded_size
from cdred.errors import UserError

# A lower bound on the size of a directory entry in any file: a name, an address, and the object it refers to.
MIN_BYTES_PER_ENTRY = 16


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Open the file at `path` for reading (typed Any: h5py's own types do not resolve what a key refers to).

    Raises:
        UserError: it is not an HDF5 file, refers to other files, declares more than it can hold, or is damaged where
            the body reads it.
    """
    with corrupt_as_user_error(path, "HDF5"), h5py.File(path, "r") as file:
        _check_links(file, path)
        _check_arrays(file, path)
        yield file


def matches(path: Path, predicate: Callable[[Any], bool]) -> bool:
    """Return True if `path` is an HDF5 file for which `predicate` holds.

    Raises:
        UserError: it links to other files.
    """
    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    try:
        with corrupt_as_user_error(path, "HDF5"), h5py.File(path, "r") as file:
            # Before any lookup, because a lookup follows links.
            _check_links(file, path)
            return predicate(file)
    except CorruptFileError:
        return False


def _check_links(file: Any, path: Path) -> None:
    def is_external(name: bytes, link: Any) -> bytes | None:
        return None if link.type in (h5l.TYPE_HARD, h5l.TYPE_SOFT) else name

    name = file.id.links.visit(is_external, info=True)
    if name is not None:
        raise UserError(
            f"{path}: '{_decode_name(name)}' is a link to another file, which is not followed: "
            "copy the linked content into this file."
        )


def _decode_name(name: bytes) -> str:
    return sanitize_text(name.decode(errors="replace"))


def _check_arrays(file: Any, path: Path) -> None:
    """Reject arrays that are stored in other files, and declared sizes that this file cannot hold.

    An array with several names is counted once per name, because it may be read by each.
    """
    stored, declared = path.stat().st_size, 0
    for count, (name, array) in enumerate(_walk(file.id, ())):
        if array is not None:
            _check_storage(array, f"{path}: '{_decode_name(name)}'")
            declared += array.get_type().get_size() * int(np.prod(array.shape or (0,), dtype=object))
        check_expanded_size(declared, stored, str(path))
        if count * MIN_BYTES_PER_ENTRY > stored:
            raise UserError(
                f"{path}: it has more names than {stored:,} bytes can hold; expected one name for each object."
            )


def _walk(group: Any, ancestors: tuple[int, ...]) -> Iterator[tuple[bytes, Any]]:
    """Yield every name below a group, with its array or None for a group; soft links are followed."""
    address = h5o.get_info(group).addr
    if address in ancestors:
        raise ValueError("a group contains itself")
    for name in group:
        # A dangling soft link is harmless: nothing can be read through it.
        if not h5o.exists_by_name(group, name):
            continue
        node = h5o.open(group, name)
        yield name, node if isinstance(node, h5d.DatasetID) else None
        if isinstance(node, h5g.GroupID):
            yield from ((name + b"/" + below, array) for below, array in _walk(node, (*ancestors, address)))


def _check_storage(array: Any, location: str) -> None:
    properties = array.get_create_plist()
    virtual = properties.get_layout() == h5d.VIRTUAL
    count = properties.get_virtual_count() if virtual else 0
    sources = [properties.get_virtual_filename(index) for index in range(count)]
    if properties.get_external_count() or any(source != "." for source in sources):
        raise UserError(
            f"{location} stores its numbers in another file, which is not opened: copy them into this file."
        )


def numbered_groups(group: Any, prefix: str) -> list[tuple[str, Any]]:
    """Return the groups in `group` named `prefix` and a number, sorted by that number."""
    names = [name for name in group if re.fullmatch(rf"{prefix}\d+", name)]
    ordered = sorted(names, key=lambda name: int(name.removeprefix(prefix)))
    return [(name, node) for name in ordered if isinstance(node := group[name], h5py.Group)]


def datasets_by_path(node: Any, name: str) -> dict[str, h5py.Dataset]:
    """Return the arrays in `node` by their paths below it, sorted level by level; a single array is named `name`."""
    if isinstance(node, h5py.Dataset):
        return {name: node}
    datasets = {}
    for key in sorted(node):
        child = node[key]
        if isinstance(child, h5py.Dataset):
            datasets[key] = child
        elif isinstance(child, h5py.Group):
            datasets |= {f"{key}/{below}": leaf for below, leaf in datasets_by_path(child, "").items()}
    return datasets


def read_float32(array: h5py.Dataset, key: str, location: str, rows: slice = slice(None)) -> np.ndarray:
    """Read rows of `array` as float32, converted while reading, so that no second copy is in memory.

    Raises:
        UserError: they are not numeric.
    """
    if array.dtype.kind not in "fiub":
        # Raises for this dtype without reading the content.
        return as_float32(np.empty(0, array.dtype), key, location)
    if array.ndim == 0:
        return as_float32(array[()], key, location)
    if array.dtype.kind == "b":
        return as_float32(array[rows], key, location)
    start, stop, _ = rows.indices(len(array))
    values = np.empty((max(stop - start, 0), *array.shape[1:]), np.float32)
    if values.size:
        array.read_direct(values, slice(start, stop))
    return values


def read_array(group: Any, key: str, location: str) -> np.ndarray:
    """Read the whole array `key` as float32.

    Raises:
        UserError: it is missing, a group, or not numeric.
    """
    if key not in group:
        raise UserError(f"{location}: no '{key}' in it (available: {format_keys(group)}).")
    array = group[key]
    if not isinstance(array, h5py.Dataset):
        raise UserError(f"{location}: '{key}' is a group of arrays, expected one array: flatten it first.")
    return read_float32(array, key, location)
