"""Helpers that the readers of Arrow and Parquet files share."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cdred.data.formats.common import corrupt_as_user_error, format_keys, import_optional
from cdred.data.formats.safety import check_expanded_size
from cdred.errors import UserError

BATCH_ROWS = 2048


@contextmanager
def open_parquet(path: Path) -> Iterator[Any]:
    """Open the Parquet file at `path` as a `pyarrow.parquet.ParquetFile`.

    Raises:
        UserError: PyArrow is not installed, or the file is damaged where the body reads it.
    """
    module = import_optional("pyarrow.parquet", f"reading {path}")
    with corrupt_as_user_error(path, "Parquet"), module.ParquetFile(path) as file:
        stored, rows = path.stat().st_size, file.metadata.num_rows
        check_expanded_size(row_bytes(file.schema_arrow) * rows, stored, str(path))
        yield file


def row_bytes(fields: Any) -> int:
    """Return a lower bound on the bytes per row in memory, for an Arrow schema or struct type."""
    return sum(_value_bytes(field.type) for field in fields)


def _value_bytes(kind: Any) -> int:
    if str(kind).startswith("struct"):
        return row_bytes(kind)
    if str(kind).startswith("fixed_size_list"):
        return kind.list_size * _value_bytes(kind.value_type)
    try:
        return max(kind.bit_width // 8, 1)
    except ValueError:
        return 1


def read_rows(path: Path, columns: Sequence[str] | None = None, optional: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Read a small table as one dict per row.

    Args:
        path: the file.
        columns: columns to read; None for all.
        optional: columns to read as well, as far as they exist.

    Raises:
        UserError: a damaged file, or a missing column.
    """
    with open_parquet(path) as file:
        check_columns(file, columns or (), path)
        if columns is not None:
            columns = [*columns, *(name for name in optional if name in file.schema_arrow.names)]
        return file.read(columns=columns).to_pylist()


def to_numpy(array: Any, location: str) -> np.ndarray:
    """Convert an Arrow array of numbers, or of nested lists of numbers, to `[rows]` or `[rows, size]`.

    Raises:
        UserError: it is not numeric, or its lists differ in length.
    """
    rows, nested = len(array), False
    while str(array.type).startswith(("fixed_size_list", "list", "large_list", "extension")):
        array, nested = getattr(array, "storage", array).flatten(), True
    values = array.to_numpy(zero_copy_only=False)
    if values.dtype.kind not in "fiub":
        raise UserError(f"{location} holds {array.type}, expected numbers.")
    if nested and values.size % max(rows, 1):
        raise UserError(f"{location} holds lists of different lengths, expected one length.")
    return values.reshape(rows, -1) if nested and rows else values


def read_columns_into(path: Path, positions: np.ndarray, targets: dict[str, np.ndarray]) -> None:
    """Read columns of a Parquet file into arrays, a few thousand rows at a time, so that no second copy is in memory.

    Args:
        path: the file.
        positions: for each of its rows, the row of the arrays to write it to, `[rows]`.
        targets: the arrays by column, each `[any, ...]`.

    Raises:
        UserError: a damaged file, a missing column, or values of other shapes than the arrays'.
    """
    with open_parquet(path) as file:
        check_columns(file, targets, path)
        for offset, batch in iter_batches(file, list(targets)):
            rows = positions[offset : offset + batch.num_rows]
            for name, target in targets.items():
                _copy_rows(to_numpy(batch.column(name), f"{path}: '{name}'"), target, rows, f"{path}: '{name}'")


def iter_batches(file: Any, columns: list[str], max_rows: int = BATCH_ROWS) -> Iterator[tuple[int, Any]]:
    """Yield batches of the columns of an open Parquet file, of `max_rows` rows at most, each with its first row.

    One iterator per row group, because Arrow keeps every row group that an iterator has passed in memory.
    """
    offset = 0
    for group in range(file.num_row_groups):
        for batch in file.iter_batches(max_rows, row_groups=[group], columns=columns, use_threads=False):
            yield offset, batch
            offset += batch.num_rows


def _copy_rows(values: np.ndarray, target: np.ndarray, rows: np.ndarray, location: str) -> None:
    """Copy `values` to the rows `rows` of `target`."""
    shape = target.shape[1:]
    if values.size != len(rows) * math.prod(shape):
        raise UserError(f"{location} has {values[0].size} numbers per row, expected shape {shape}.")
    with np.errstate(over="ignore"):
        target[rows] = values.reshape(len(rows), *shape)


def check_columns(file: Any, columns: Iterable[str], path: Path) -> None:
    """Check that an open Parquet file has these columns.

    Raises:
        UserError: one is missing.
    """
    available = set(file.schema_arrow.names)
    missing = [name for name in columns if name not in available]
    if missing:
        raise UserError(f"{path}: no column '{missing[0]}' in it (available: {format_keys(available)}).")
