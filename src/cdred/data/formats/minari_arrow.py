"""How Minari keeps episodes in Arrow or Parquet: one folder `data/<i>` each, with `part-0.arrow` and `metadata.json`.

One table of T + 1 rows: `observations` (fixed-size lists, flattened; structs of them for a Dict space, JPEG bytes for
pictures), `actions`, `rewards`, `terminations` and `truncations` with a row of padding at the end, and `infos`, a
struct. The shapes are those of `observation_space` in `data/metadata.json`. From Minari 0.5's `ArrowStorage`.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cdred.data.formats.arrow import row_bytes
from cdred.data.formats.common import as_float32, corrupt_as_user_error, import_optional
from cdred.data.formats.minari_hdf5 import Stored
from cdred.data.formats.safety import check_expanded_size
from cdred.errors import UserError

Shapes = dict[str, tuple[int, ...]]


def arrow_episodes(folder: Path, kind: str, space: str) -> list[Callable[[], Stored]]:
    """The episodes in the data folder `folder`, each to be read when its turn comes.

    Args:
        folder: where the numbered folders are.
        kind: `arrow` or `parquet`.
        space: `observation_space` as the metadata has it, JSON.

    Raises:
        UserError: PyArrow is not installed, or the space is not JSON.
    """
    import_optional("pyarrow.dataset", f"{folder} is a Minari dataset in {kind}, and reading it")
    shapes = _shapes(space, f"{folder}, observation_space")
    found = sorted((entry for entry in folder.iterdir() if entry.name.isdecimal()), key=lambda entry: int(entry.name))
    return [lambda entry=entry: _stored(entry, kind, shapes) for entry in found]


def _shapes(space: str, where: str) -> Shapes:
    try:
        return dict(_boxes(json.loads(space), ""))
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{where} is not a space that Minari writes: {error}") from error


def _boxes(space: dict[str, Any], name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    subspaces = space.get("subspaces")
    if subspaces is None:
        yield name or "observations", tuple(space.get("shape") or ())
        return
    named = subspaces.items() if isinstance(subspaces, dict) else enumerate(subspaces)
    for key, below in named:
        yield from _boxes(below, f"{name}/{key}" if name else str(key))


def _stored(folder: Path, kind: str, shapes: Shapes) -> Stored:
    table, where = _table(folder, kind), str(folder)
    columns = {name: table.column(name).combine_chunks() for name in table.column_names}
    parts = {key: _values(array, shapes.get(key)) for key, array in _fields(columns, "observations").items()}
    infos = {f"infos/{key}": array for key, array in _fields(columns, "infos").items()}
    steps = table.num_rows - 1

    def column(name: str) -> np.ndarray | None:
        array = (columns | infos).get(name)
        if array is None:
            return None
        values = np.array(as_float32(_values(array), name, where))
        return values if name in infos else values[:steps]

    # A copy, lest one vector keep the whole table, pictures and all, in memory.
    return Stored(where, parts, lambda key: np.array(as_float32(parts[key], key, where)), column, _seed(folder))


def _table(folder: Path, kind: str) -> Any:
    pyarrow_dataset = import_optional("pyarrow.dataset", f"reading {folder}")
    with corrupt_as_user_error(folder, kind):
        ignored = ["_", ".", "metadata.json"]
        dataset = pyarrow_dataset.dataset(str(folder), format=kind, ignore_prefixes=ignored)
        stored = sum(file.stat().st_size for file in folder.iterdir())
        check_expanded_size(row_bytes(dataset.schema) * dataset.count_rows(), stored, str(folder))
        table = dataset.to_table()
        # Arrow takes offsets and lengths at their word, and reads wherever they say.
        table.validate(full=True)
        return table


def _fields(columns: dict[str, Any], name: str) -> dict[str, Any]:
    """The arrays in a column, by path below it, sorted level by level; a plain column by its own name."""
    if name not in columns:
        return {}
    found = dict(_below(columns[name], ""))
    return {name: found[""]} if "" in found else found


def _below(array: Any, name: str) -> Iterator[tuple[str, Any]]:
    if not hasattr(array, "field"):
        yield name, array
        return
    for key in sorted(field.name for field in array.type):
        yield from _below(array.field(key), f"{name}/{key}" if name else key)


def _values(array: Any, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """`[rows, *shape]`; objects where the array holds no numbers, such as a picture's bytes."""
    if not str(array.type).startswith("fixed_size_list"):
        return array.to_numpy(zero_copy_only=False)
    values = array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), array.type.list_size)
    fits = shape is not None and int(np.prod(shape, dtype=int)) == array.type.list_size
    return values.reshape(len(array), *shape) if fits and shape is not None else values


def _seed(folder: Path) -> int | None:
    path = folder / "metadata.json"
    try:
        seed = json.loads(path.read_text(encoding="utf-8")).get("seed") if path.exists() else None
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path} is not JSON as Minari writes it: {error}") from error
    return seed if isinstance(seed, int) else None
