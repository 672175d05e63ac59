"""Replay buffer on disk: its rows in shard files, of which a save writes only those that have changed.

A shard holds a range of rows of all environments and seeds. The rows written since an earlier checkpoint follow from
the insert indices then and now (`replay_buffer.rows_written_since`), so the buffer is neither compared nor fetched.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from cdred.checkpoint.arrays import named_arrays
from cdred.data.replay_buffer import EMPTY, ReplayBuffer, rows_written_since
from cdred.data.replay_images import host_images, without_images

# Bounds on a shard: small enough that a save after few steps writes little, large enough to keep the files few.
SHARD_BYTES, MAX_SHARD_ROWS = 4 * 2**20, 4096
SUFFIX = ".safetensors"
# The only array of a buffer that has no rows.
INSERT_INDEX = "insert_index"


class ReplayShards:
    """Shards of a replay buffer along its ring of rows.

    Args:
        path: path of the buffer in the state.
        replay: the buffer, with any leading axes (seeds) before that of environments.

    Attributes:
        shard_rows: rows per shard; the last shard may be shorter.
        row_bytes: bytes of one row of all environments and seeds.
        row_ranges: range of rows of every shard, by file name.
    """

    def __init__(self, path: str, replay: ReplayBuffer):
        self.path, self.replay = path, replay
        self.axis, self.capacity = replay.insert_index.ndim, replay.episode_step.shape[-1]
        self._fields = {name: x for name, x in named_arrays(replay, path).items() if has_rows(name, path)}
        self.row_bytes = sum(x.size * x.dtype.itemsize for x in self._fields.values()) // self.capacity
        max_rows = int(np.clip(SHARD_BYTES // self.row_bytes, 1, MAX_SHARD_ROWS))
        self.shard_rows = rows = min(self.capacity, 2 ** (max_rows.bit_length() - 1))
        starts = range(0, self.capacity, rows)
        self.row_ranges = {file_name(path, start): range(start, min(start + rows, self.capacity)) for start in starts}

    def metadata(self) -> dict[str, Any]:
        """Return what readers and later saves need, as JSON."""
        index = np.asarray(self.replay.insert_index).tolist()
        return {"axis": self.axis, "rows_per_file": self.shard_rows, "insert_index": index}

    def nonempty(self) -> set[str]:
        """Find the shards with a row that was ever written. Costs one pass over the buffer, where it is."""
        names = self._shards_of(np.asarray(_nonempty_rows(without_images(self.replay))))
        image = host_images(self.replay)
        if image is None:
            return names
        others = self.row_ranges.keys() - names
        return names | {name for name in others if image[self._index(self.row_ranges[name])].any()}

    def dirty(self, metadata: dict[str, Any], steps: int) -> set[str]:
        """Find the shards that the last `steps` steps of each environment may have written to.

        Args:
            metadata: result of `metadata` before these steps.
            steps: upper bound on the number of steps since.
        """
        before, now = np.array(metadata["insert_index"]), np.asarray(self.replay.insert_index)
        starts, counts = rows_written_since(before, now, steps, self.capacity, self.replay.num_absorbing)
        rows = np.zeros(self.capacity, bool)
        # A set, because most environments write to the same rows.
        for start, count in {*zip(starts.reshape(-1).tolist(), counts.reshape(-1).tolist(), strict=True)}:
            rows[(start + np.arange(count)) % self.capacity] = True
        return self._shards_of(rows)

    def read(self, name: str) -> dict[str, np.ndarray]:
        """Return the arrays of one shard, fetched from the device, or copied if they are in host memory."""
        rows = self.row_ranges[name]
        on_host = {field: x for field, x in self._fields.items() if isinstance(x, np.ndarray)}
        on_device = {field: x for field, x in self._fields.items() if field not in on_host}
        # The last shard may be shorter: it is sliced at full size, so that one compiled function serves all, then cut.
        start = min(rows.start, self.capacity - self.shard_rows)
        arrays = jax.device_get(_slice_rows(on_device, np.int32(start), self.shard_rows, self.axis))
        cut = self._index(range(rows.start - start, self.shard_rows))
        arrays = {field: x[cut] for field, x in arrays.items()}
        arrays |= {field: x[self._index(rows)] for field, x in on_host.items()}
        return {field: np.ascontiguousarray(arrays[field]) for field in self._fields}

    def _index(self, rows: range) -> tuple[slice, ...]:
        """Return the index of a range of rows in an array of the buffer."""
        return (*(slice(None),) * self.axis, slice(rows.start, rows.stop))

    def _shards_of(self, rows: Bool[np.ndarray, " L"]) -> set[str]:
        return {name for name, shard in self.row_ranges.items() if rows[shard.start : shard.stop].any()}


def has_rows(name: str, path: str) -> bool:
    """Check if the array `name` of the state belongs to the buffer at `path` and has an axis of rows."""
    return name.startswith(f"{path}/") and name != f"{path}/{INSERT_INDEX}"


def file_name(path: str, first_row: int) -> str:
    """Return the file name of the shard that starts at `first_row`."""
    return f"{path.replace('/', '.')}-{first_row:09d}{SUFFIX}"


def first_row(path: str, name: str) -> int | None:
    """Return the first row of the shard in file `name`; None if it is not a shard of the buffer at `path`."""
    stem, _, first = name.removesuffix(SUFFIX).rpartition("-")
    return int(first) if stem == path.replace("/", ".") else None


def merge(entries: dict[str, dict], axis: int, shards: Iterable[tuple[int, dict[str, np.ndarray]]]) -> dict:
    """Merge shards into whole arrays.

    Args:
        entries: shape and dtype of every array.
        axis: axis of rows.
        shards: first row and arrays of every shard; rows in no shard are filled as in an empty buffer.
    """
    fill = {name: EMPTY if name.endswith("/episode_step") else 0 for name in entries}
    merged = {name: np.full(entry["shape"], fill[name], entry["dtype"]) for name, entry in entries.items()}
    for first, arrays in shards:
        for name, target in merged.items():
            target[(slice(None),) * axis + (slice(first, first + arrays[name].shape[axis]),)] = arrays[name]
    return merged


@partial(jax.jit, static_argnums=(2, 3))
def _slice_rows(fields: dict[str, Array], start: Array, num_rows: int, axis: int) -> dict[str, Array]:
    return {name: jax.lax.dynamic_slice_in_dim(x, start, num_rows, axis) for name, x in fields.items()}


@jax.jit
def _nonempty_rows(replay: ReplayBuffer) -> Array:
    """Find the rows that differ from those of an empty buffer in any environment."""
    axis = replay.insert_index.ndim

    def differs(x: Array, empty: int) -> Array:
        mask = x != jnp.full((1,) * x.ndim, empty, x.dtype)
        return jnp.any(mask, [other for other in range(x.ndim) if other != axis])

    # An array without components has no value that could differ.
    fields = {name: x for name, x in named_arrays(replay).items() if x.size and name != INSERT_INDEX}
    return jnp.any(jnp.stack([differs(x, EMPTY if n == "episode_step" else 0) for n, x in fields.items()]), 0)
