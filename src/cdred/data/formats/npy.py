"""Arrays out of an `.npz` archive, numbers converted to float32 piece by piece, so that they are in memory once."""

import math
import zipfile
from typing import IO, NamedTuple

import numpy as np

CHUNK_BYTES = 1 << 22
# Version 3.0 is for records with names in other scripts, of which nothing here is made.
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class Header(NamedTuple):
    """What an array in an archive says of itself."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype

    @property
    def size(self) -> int:
        """Bytes of its content."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_member(archive: zipfile.ZipFile, key: str, *, as_float32: bool) -> np.ndarray:
    """The array `key`, as float32 if that is asked for and it holds numbers.

    Raises:
        ValueError: it is pickled, cut short or no array.
    """
    name = f"{key}.npy"
    with archive.open(name) as stream:
        header = _header(stream, name)
        if header.dtype.hasobject:
            raise ValueError(f"{name} holds Python objects")
        # Before it is allocated: a short file may say anything.
        if header.size > archive.getinfo(name).file_size:
            raise ValueError(f"{name} is cut short: it says to hold {math.prod(header.shape)} numbers")
        if as_float32 and not header.fortran_order and header.dtype.kind in "fiub":
            return _numbers(stream, header, name)
    with archive.open(name) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _header(stream: IO[bytes], name: str) -> Header:
    version = np.lib.format.read_magic(stream)
    if version not in HEADERS:
        raise ValueError(f"{name} is in version {version} of NumPy's format, expected 1.0 or 2.0")
    return Header(*HEADERS[version](stream))


def _numbers(stream: IO[bytes], header: Header, name: str) -> np.ndarray:
    shape, _, dtype = header
    found = np.empty(shape, np.float32)
    flat, step = found.reshape(-1), max(CHUNK_BYTES // dtype.itemsize, 1)
    for start in range(0, flat.size, step):
        count = min(step, flat.size - start)
        values = np.frombuffer(_exactly(stream, count * dtype.itemsize, name, shape), dtype)
        with np.errstate(over="ignore"):
            flat[start : start + count] = values
    return found


def _exactly(stream: IO[bytes], size: int, name: str, shape: tuple[int, ...]) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise ValueError(f"{name} is cut short: it says to hold {math.prod(shape)} numbers")
    return data
