"""What the readers of Arrow and Parquet files share."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cdred.data.formats.common import corrupt_as_user_error, import_optional, names
from cdred.data.formats.safety import check_expanded_size
from cdred.errors import UserError

BATCH_ROWS = 2048


@contextmanager
def parquet(path: Path) -> Iterator[Any]:
    """The Parquet file at `path`, a `pyarrow.parquet.ParquetFile`.

    Raises:
        UserError: PyArrow is not installed, or the file is damaged where the body reads it.
    """
    module = import_optional("pyarrow.parquet", f"reading {path}")
    with corrupt_as_user_error(path, "Parquet"), module.ParquetFile(path) as file:
        stored, rows = path.stat().st_size, file.metadata.num_rows
        check_expanded_size(row_bytes(file.schema_arrow) * rows, stored, str(path))
        yield file


def row_bytes(fields: Any) -> int:
    """Least number of bytes that a row takes in memory; of an Arrow schema, or a struct's type."""
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


def rows_of(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """A small table as one dict a row.

    Raises:
        UserError: a damaged file, or a missing column.
    """
    with parquet(path) as file:
        _check_columns(file, columns or (), path)
        return file.read(columns=None if columns is None else list(columns)).to_pylist()


def numbers(array: Any, where: str) -> np.ndarray:
    """An Arrow array of numbers, or of lists of them however nested, as `[rows]` or `[rows, size]`.

    Raises:
        UserError: it holds something else, or lists of different lengths.
    """
    rows, nested = len(array), False
    while str(array.type).startswith(("fixed_size_list", "list", "large_list", "extension")):
        array, nested = getattr(array, "storage", array).flatten(), True
    values = array.to_numpy(zero_copy_only=False)
    if values.dtype.kind not in "fiub":
        raise UserError(f"{where} holds {array.type}, expected numbers.")
    if nested and values.size % max(rows, 1):
        raise UserError(f"{where} holds lists of different lengths, expected one length.")
    return values.reshape(rows, -1) if nested and rows else values


def fill(path: Path, places: Sequence[slice], targets: Sequence[dict[str, np.ndarray]]) -> None:
    """Read columns of a Parquet file into arrays, a few thousand rows at a time, so that they are in memory once.

    Args:
        path: the file.
        places: pieces of its rows, in their order and none in another.
        targets: for each piece, the arrays to fill, `[rows, ...]`, by column; the same columns for all.

    Raises:
        UserError: a damaged file, a missing column, or values of other shapes than the arrays'.
    """
    if not places or not targets[0]:
        return
    starts, stops = [place.start for place in places], [place.stop for place in places]
    with parquet(path) as file:
        _check_columns(file, targets[0], path)
        for done, batch in _batches(file, list(targets[0])):
            touched = range(bisect_right(stops, done), bisect_left(starts, done + batch.num_rows))
            for name in targets[0]:
                values = numbers(batch.column(name), f"{path}: '{name}'")
                for index in touched:
                    _copy(values, done, places[index], targets[index][name], f"{path}: '{name}'")


def _batches(file: Any, columns: list[str]) -> Iterator[tuple[int, Any]]:
    """Pieces of the columns, each with the number of rows before it.

    Row group by row group, because Arrow keeps every group that one iterator has passed.
    """
    done = 0
    for group in range(file.num_row_groups):
        for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False):
            yield done, batch
            done += batch.num_rows


def _copy(values: np.ndarray, first: int, place: slice, target: np.ndarray, where: str) -> None:
    """What of rows `first`, `first + 1`, ... is in `place`."""
    start, stop = max(first, place.start), min(first + len(values), place.stop)
    if start >= stop:
        return
    piece, into = values[start - first : stop - first], target[start - place.start : stop - place.start]
    if piece.size != into.size:
        raise UserError(f"{where} has {piece[0].size} numbers a row, expected shape {target.shape[1:]}.")
    with np.errstate(over="ignore"):
        into[...] = piece.reshape(into.shape)


def _check_columns(file: Any, columns: Sequence[str] | dict[str, Any], path: Path) -> None:
    there = set(file.schema_arrow.names)
    missing = [name for name in columns if name not in there]
    if missing:
        raise UserError(f"{path}: no column '{missing[0]}' in it (there are: {names(there)}).")
