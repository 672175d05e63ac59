"""NumPy archives (`.npz`): zip files of arrays, read without pickle and within the size that the archive declares.

Numbers are converted to float32 chunk by chunk while reading, so that no second copy of them is in memory.
"""

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from cdred.data.formats.common import get_required, summarize_exception
from cdred.data.formats.safety import check_expanded_size
from cdred.errors import UserError

CHUNK_BYTES = 1 << 22
# Version 3.0 is for record types with non-Latin field names, which no format here uses.
HEADER_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class Archive(NamedTuple):
    """Arrays of an archive that a reader asked for, and the names of the others, which were not read."""

    arrays: dict[str, np.ndarray]
    others: tuple[str, ...]


class Header(NamedTuple):
    """Header of an array in an archive."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype

    @property
    def size(self) -> int:
        """Declared size of the content in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def array_names(path: Path) -> set[str]:
    """Return the names of the arrays in the archive `path`; empty if it is no archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return set()


def read_archive(
    path: Path, float_keys: Sequence[str], other_keys: Sequence[str], required: Sequence[str] = ("obs",)
) -> Archive:
    """Read arrays of the archive `path`.

    Args:
        path: the file.
        float_keys: names of arrays to convert to float32 if they are numeric.
        other_keys: names of arrays to read as they are.
        required: names that must exist.

    Raises:
        UserError: not an npz file, a required array is missing, or an array to read is pickled or larger than the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # The sizes in the archive's directory bound what is unpacked.
            declared = sum(member.file_size for member in archive.infolist())
            check_expanded_size(declared, path.stat().st_size, str(path))
            names = {name.removesuffix(".npy") for name in archive.namelist()}
            for key in required:
                get_required(dict.fromkeys(names), key, str(path))
            known = [key for key in (*float_keys, *other_keys) if key in names]
            arrays = {key: _read_member(archive, key, as_float32=key in float_keys) for key in known}
            return Archive(arrays, tuple(sorted(names.difference(known))))
    except UserError:
        raise
    except Exception as error:  # zip, decompression and header parsing raise many types
        raise UserError(
            f"{path} cannot be read as npz without pickle ({summarize_exception(error)}): "
            "save plain numeric arrays with np.savez, none of dtype object."
        ) from error


def _read_member(archive: zipfile.ZipFile, key: str, *, as_float32: bool) -> np.ndarray:
    """Read the array `key`, as float32 if `as_float32` and it is numeric.

    Raises:
        ValueError: it is pickled, truncated or not an array.
    """
    name = f"{key}.npy"
    with archive.open(name) as stream:
        header = _read_header(stream, name)
        if header.dtype.hasobject:
            raise ValueError(f"{name} holds Python objects")
        # Checked before it is allocated: the header of a short file may declare any shape.
        if header.size > archive.getinfo(name).file_size:
            raise ValueError(f"{name} is truncated: it declares {math.prod(header.shape)} numbers")
        if as_float32 and not header.fortran_order and header.dtype.kind in "fiub":
            return _read_float32(stream, header, name)
    with archive.open(name) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _read_header(stream: IO[bytes], name: str) -> Header:
    version = np.lib.format.read_magic(stream)
    if version not in HEADER_READERS:
        raise ValueError(f"{name} is in version {version} of NumPy's format, expected 1.0 or 2.0")
    return Header(*HEADER_READERS[version](stream))


def _read_float32(stream: IO[bytes], header: Header, name: str) -> np.ndarray:
    shape, _, dtype = header
    values = np.empty(shape, np.float32)
    flat, step = values.reshape(-1), max(CHUNK_BYTES // dtype.itemsize, 1)
    for start in range(0, flat.size, step):
        count = min(step, flat.size - start)
        chunk = np.frombuffer(_read_exactly(stream, count * dtype.itemsize, name, shape), dtype)
        with np.errstate(over="ignore"):
            flat[start : start + count] = chunk
    return values


def _read_exactly(stream: IO[bytes], size: int, name: str, shape: tuple[int, ...]) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise ValueError(f"{name} is truncated: it declares {math.prod(shape)} numbers")
    return data
