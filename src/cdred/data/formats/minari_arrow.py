"""Minari episodes in Arrow or Parquet: one folder `data/<i>` each, with `part-0.arrow` and `metadata.json`.

Each is one table of T + 1 rows: `observations` (flattened fixed-size lists; structs of them for a Dict space, JPEG
bytes for images), `actions`, `rewards`, `terminations` and `truncations` with one row of padding at the end, and
`infos`, a struct. The shapes are those of `observation_space` in `data/metadata.json`. See Minari 0.5's `ArrowStorage`.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cdred.data.formats.arrow import row_bytes
from cdred.data.formats.cameras import EncodedImages, ImageArray
from cdred.data.formats.common import as_float32, corrupt_as_user_error, import_optional
from cdred.data.formats.minari_hdf5 import RawEpisode, Shapes, stack_images
from cdred.data.formats.obs_keys import by_name
from cdred.data.formats.safety import check_expanded_size
from cdred.errors import UserError


def arrow_episodes(folder: Path, kind: str, shapes: Shapes) -> list[Callable[[], RawEpisode]]:
    """Return the episodes in the data folder `folder`, each as a function that opens it.

    Args:
        folder: parent of the numbered folders.
        kind: `arrow` or `parquet`.
        shapes: shapes of the observations' spaces by name.

    Raises:
        UserError: PyArrow is not installed.
    """
    import_optional("pyarrow.dataset", f"{folder} is a Minari dataset in {kind}, and reading it")
    episodes = [entry for entry in folder.iterdir() if entry.name.isdecimal()]
    ordered = sorted(episodes, key=lambda entry: int(entry.name))
    return [lambda entry=entry: _open_episode(entry, kind, shapes) for entry in ordered]


def _open_episode(folder: Path, kind: str, shapes: Shapes) -> RawEpisode:
    table, location = _read_table(folder, kind), str(folder)
    columns = {name: table.column(name).combine_chunks() for name in table.column_names}
    arrays = {
        key: _to_shape(_to_values(array), shapes.get(key), f"{location}: '{key}'")
        for key, array in _arrays_by_path(columns, "observations").items()
    }
    infos = {f"infos/{key}": array for key, array in _arrays_by_path(columns, "infos").items()}
    steps = table.num_rows - 1

    def column(name: str) -> np.ndarray | None:
        array = (columns | infos).get(name)
        if array is None:
            return None
        values = np.array(as_float32(_to_values(array), name, location))
        return values if name in infos else values[:steps]

    def read_obs(key: str) -> np.ndarray:
        array = arrays[key]
        # Copied, because a view of one vector would keep the whole table, images included, in memory.
        return stack_images(array) if isinstance(array, EncodedImages) else np.array(as_float32(array, key, location))

    return RawEpisode(location, arrays, read_obs, column, _read_seed(folder))


def _read_table(folder: Path, kind: str) -> Any:
    pyarrow_dataset = import_optional("pyarrow.dataset", f"reading {folder}")
    with corrupt_as_user_error(folder, kind):
        ignored = ["_", ".", "metadata.json"]
        dataset = pyarrow_dataset.dataset(str(folder), format=kind, ignore_prefixes=ignored)
        stored = sum(file.stat().st_size for file in folder.iterdir())
        check_expanded_size(row_bytes(dataset.schema) * dataset.count_rows(), stored, str(folder))
        table = dataset.to_table()
        # Arrow does not check offsets and lengths otherwise, and would read out of bounds.
        table.validate(full=True)
        return table


def _arrays_by_path(columns: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the arrays in a column by their paths below it, sorted level by level; a plain column by its own name."""
    if name not in columns:
        return {}
    arrays = dict(_flatten(columns[name], ""))
    return {name: arrays[""]} if "" in arrays else arrays


def _flatten(array: Any, name: str) -> Iterator[tuple[str, Any]]:
    if not hasattr(array, "field"):
        yield name, array
        return
    for key in sorted((field.name for field in array.type), key=by_name):
        yield from _flatten(array.field(key), f"{name}/{key}" if name else key)


def _to_values(array: Any) -> np.ndarray:
    """Convert to `[rows, size]` or `[rows]`; to objects where the array is not numeric, such as bytes of an image."""
    if not str(array.type).startswith("fixed_size_list"):
        return array.to_numpy(zero_copy_only=False)
    return array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), array.type.list_size)


def _to_shape(values: np.ndarray, shape: tuple[int, ...] | None, location: str) -> ImageArray:
    """Return flattened rows in the shape of their space; as they are if it has none; encoded images to be decoded.

    Raises:
        UserError: their size is another one.
    """
    if shape is None:
        return values
    if values.dtype == object:
        return EncodedImages(values, shape, location) if len(shape) >= 2 else values
    if int(np.prod(shape, dtype=int)) != int(np.prod(values.shape[1:], dtype=int)):
        raise UserError(
            f"{location} has {values.shape[1:]} numbers per step, but its space in metadata.json has shape {shape}: "
            "fetch the dataset again."
        )
    return values.reshape(len(values), *shape)


def _read_seed(folder: Path) -> int | None:
    path = folder / "metadata.json"
    try:
        seed = json.loads(path.read_text(encoding="utf-8")).get("seed") if path.exists() else None
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path} is not JSON as Minari writes it: {error}") from error
    return seed if isinstance(seed, int) else None
