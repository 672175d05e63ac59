"""What the readers of HDF5 files share.

A file may name others: by external links, by arrays whose bytes lie elsewhere, by virtual arrays. None of them is
followed: what is opened is what was named. Nor is an array read that claims far more than the file can hold.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5g, h5l, h5o  # pyright: ignore[reportAttributeAccessIssue]  (compiled, without stubs)

from cdred.data.formats.common import CorruptFileError, as_float32, corrupt_as_user_error, names, one_line
from cdred.data.formats.safety import check_expanded_size
from cdred.errors import UserError

# An entry takes more than that in any file: a name, an address, and what it leads to.
LEAST_BYTES_AN_ENTRY = 16


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The `h5py.File` at `path`, to read. (h5py's own types leave open what a key leads to.)

    Raises:
        UserError: it is no HDF5 file, it leads to other files, it claims more than it can hold, or it is damaged where
            the body reads it.
    """
    with corrupt_as_user_error(path, "HDF5"), h5py.File(path, "r") as file:
        _refuse_links(file, path)
        _refuse_arrays(file, path)
        yield file


def holds(path: Path, what: Callable[[Any], bool]) -> bool:
    """Whether `path` is an HDF5 file of which `what` is true.

    Raises:
        UserError: it leads to other files.
    """
    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    try:
        with corrupt_as_user_error(path, "HDF5"), h5py.File(path, "r") as file:
            # Before anything is looked up: a link is followed by looking.
            _refuse_links(file, path)
            return what(file)
    except CorruptFileError:
        return False


def _refuse_links(file: Any, path: Path) -> None:
    def leads_out(name: bytes, link: Any) -> bytes | None:
        return None if link.type in (h5l.TYPE_HARD, h5l.TYPE_SOFT) else name

    name = file.id.links.visit(leads_out, info=True)
    if name is not None:
        raise UserError(
            f"{path}: '{_shown(name)}' is a link to another file, which is not followed: "
            "put what it leads to into this one."
        )


def _shown(name: bytes) -> str:
    return one_line(name.decode(errors="replace"))


def _refuse_arrays(file: Any, path: Path) -> None:
    """Refuse arrays whose bytes are in other files, and claims that this one cannot keep.

    Every name counts for itself, also where several lead to one array, because each of them may be read.
    """
    stored, declared = path.stat().st_size, 0
    for before, (name, array) in enumerate(_entries(file.id, ())):
        if array is not None:
            _refuse_elsewhere(array, f"{path}: '{_shown(name)}'")
            declared += array.get_type().get_size() * int(np.prod(array.shape or (0,), dtype=object))
        check_expanded_size(declared, stored, str(path))
        if before * LEAST_BYTES_AN_ENTRY > stored:
            raise UserError(f"{path}: it has more names than {stored:,} bytes can hold; expected each thing once.")


def _entries(group: Any, above: tuple[int, ...]) -> Iterator[tuple[bytes, Any]]:
    """Every name below a group, with its array if it is one; soft links lead to what another name leads to."""
    here = h5o.get_info(group).addr
    if here in above:
        raise ValueError("a group is part of itself")
    for name in group:
        # A soft link may lead nowhere, and then nothing can be read through it.
        if not h5o.exists_by_name(group, name):
            continue
        found = h5o.open(group, name)
        yield name, found if isinstance(found, h5d.DatasetID) else None
        if isinstance(found, h5g.GroupID):
            yield from ((name + b"/" + below, one) for below, one in _entries(found, (*above, here)))


def _refuse_elsewhere(array: Any, where: str) -> None:
    plan = array.get_create_plist()
    virtual = plan.get_layout() == h5d.VIRTUAL
    sources = [plan.get_virtual_filename(index) for index in range(plan.get_virtual_count())] if virtual else []
    if plan.get_external_count() or any(source != "." for source in sources):
        raise UserError(f"{where} has its numbers in another file, which is not opened: put them into this one.")


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
    if array.dtype.kind not in "fiub":
        # Of nothing: texts and the like are not read to be refused.
        return as_float32(np.empty(0, array.dtype), key, where)
    if array.ndim == 0:
        return as_float32(array[()], key, where)
    if array.dtype.kind == "b":
        return as_float32(array[rows], key, where)
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
        raise UserError(f"{where}: no '{key}' in it (there are: {names(group)}).")
    found = group[key]
    if not isinstance(found, h5py.Dataset):
        raise UserError(f"{where}: '{key}' is in several parts; only one array can be used: flatten it first.")
    return read(found, key, where)
