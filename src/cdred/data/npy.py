"""Arrays out of an `.npz` archive, numbers converted to float32 piece by piece, so that they are in memory once."""

import math
import zipfile
from typing import IO

import numpy as np

CHUNK_BYTES = 1 << 22
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_member(archive: zipfile.ZipFile, key: str, *, as_float32: bool) -> np.ndarray:
    """The array `key`, as float32 if that is asked for and it holds numbers.

    Raises:
        ValueError: it is pickled, cut short or no array.
    """
    name = f"{key}.npy"
    if as_float32:
        with archive.open(name) as stream:
            found = _numbers(stream, name)
        if found is not None:
            return found
    with archive.open(name) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _numbers(stream: IO[bytes], name: str) -> np.ndarray | None:
    """None where the array is not of a kind that can be read piece by piece."""
    version = np.lib.format.read_magic(stream)
    if version not in HEADERS:
        return None
    shape, fortran_order, dtype = HEADERS[version](stream)
    if fortran_order or dtype.kind not in "fiub":
        return None
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
