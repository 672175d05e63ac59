"""A replay on the disk: its rows in files of their own, of which a save writes only those that have changed.

A file holds a stretch of rows of all lanes and seeds. Where a lane was written to since an earlier checkpoint follows
from its head then and now (`data.replay.rows_written_since`), so the replay itself is neither compared nor fetched.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from cdred.data.replay_buffer import EMPTY_TIME, ReplayBuffer, rows_written_since

FIELDS = ("obs", "action", "reward", "absorbing", "time")
# Small enough that a save of few steps writes little; large enough that a large replay is not a crowd of files.
FILE_BYTES, MOST_ROWS = 4 * 2**20, 4096
SUFFIX = ".safetensors"


class ReplayShards:
    """A replay, cut into files along the ring.

    Args:
        path: where it is in the state.
        replay: with any leading axes (seeds) before that of lanes.
    """

    def __init__(self, path: str, replay: ReplayBuffer):
        self.path, self.replay = path, replay
        self.axis, self.capacity = replay.head.ndim, replay.time.shape[-1]
        self._fields = {f"{path}/{name}": getattr(replay, name) for name in FIELDS}
        self.row_bytes = sum(x.size * x.dtype.itemsize for x in self._fields.values()) // self.capacity
        fitting = int(np.clip(FILE_BYTES // self.row_bytes, 1, MOST_ROWS))
        self.size = min(self.capacity, 2 ** (fitting.bit_length() - 1))
        firsts = range(0, self.capacity, self.size)
        self.parts = {file_name(path, first): range(first, min(first + self.size, self.capacity)) for first in firsts}

    def about(self) -> dict[str, Any]:
        """What a later save, and whoever reads, must know: JSON."""
        return {"axis": self.axis, "rows_per_file": self.size, "head": np.asarray(self.replay.head).tolist()}

    def occupied(self) -> set[str]:
        """The files whose rows were ever written to. Costs one pass over the replay on its device."""
        return self._files(np.asarray(_written(self.replay)))

    def touched(self, about: dict[str, Any], steps: int) -> set[str]:
        """The files whose rows may have been written to by the last `steps` of each lane.

        Args:
            about: what `about` said before these steps.
            steps: at least as many as have been made.
        """
        before, now = np.array(about["head"]), np.asarray(self.replay.head)
        starts, counts = rows_written_since(before, now, steps, self.capacity, self.replay.tail)
        rows = np.zeros(self.capacity, bool)
        # Lanes mostly write in step, so few stretches differ.
        for start, count in {*zip(starts.reshape(-1).tolist(), counts.reshape(-1).tolist(), strict=True)}:
            rows[(start + np.arange(count)) % self.capacity] = True
        return self._files(rows)

    def fetch(self, name: str) -> dict[str, np.ndarray]:
        """The arrays of one file; nothing else leaves the device."""
        part = self.parts[name]
        # The last one may be short: cut as long as the others, so that one program serves all, and trimmed here.
        first = min(part.start, self.capacity - self.size)
        cut = jax.device_get(_cut(self._fields, np.int32(first), self.size, self.axis))
        trim = (slice(None),) * self.axis + (slice(part.start - first, None),)
        return {field: np.ascontiguousarray(x[trim]) for field, x in cut.items()}

    def _files(self, rows: Bool[np.ndarray, " L"]) -> set[str]:
        return {name for name, part in self.parts.items() if rows[part.start : part.stop].any()}


def file_name(path: str, first: int) -> str:
    """Of the file whose rows begin with `first`."""
    return f"{path.replace('/', '.')}-{first:09d}{SUFFIX}"


def first_row(path: str, name: str) -> int | None:
    """The opposite of `file_name`; None for another file's name."""
    stem, _, first = name.removesuffix(SUFFIX).rpartition("-")
    return int(first) if stem == path.replace("/", ".") else None


def join(entries: dict[str, dict], axis: int, parts: Iterable[tuple[int, dict[str, np.ndarray]]]) -> dict:
    """Arrays of the shapes and dtypes in `entries` from files' first rows and contents; other rows as when new."""
    fill = {name: EMPTY_TIME if name.endswith("/time") else 0 for name in entries}
    whole = {name: np.full(entry["shape"], fill[name], entry["dtype"]) for name, entry in entries.items()}
    for first, part in parts:
        for name, target in whole.items():
            target[(slice(None),) * axis + (slice(first, first + part[name].shape[axis]),)] = part[name]
    return whole


@partial(jax.jit, static_argnums=(2, 3))
def _cut(fields: dict[str, Array], first: Array, size: int, axis: int) -> dict[str, Array]:
    return {name: jax.lax.dynamic_slice_in_dim(x, first, size, axis) for name, x in fields.items()}


@jax.jit
def _written(replay: ReplayBuffer) -> Array:
    """For every row, whether anything in any lane differs from a new replay's."""
    axis = replay.head.ndim

    def differs(x: Array, new: int) -> Array:
        content = x != jnp.full((1,) * x.ndim, new, x.dtype)
        return jnp.any(content, [other for other in range(x.ndim) if other != axis])

    fields = {name: getattr(replay, name) for name in FIELDS}
    return jnp.any(jnp.stack([differs(x, EMPTY_TIME if n == "time" else 0) for n, x in fields.items()]), 0)
