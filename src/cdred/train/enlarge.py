"""A longer run needs a larger replay buffer: the rows of a checkpoint are moved into it."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from cdred.checkpoint.arrays import path_name
from cdred.checkpoint.replay_shards import INSERT_INDEX
from cdred.data.replay_buffer import EMPTY, ReplayBuffer


def enlarge(replay: ReplayBuffer, capacity: int) -> ReplayBuffer:
    """Return a buffer with more rows that holds the same episodes.

    Rows keep their places, so that it equals a buffer that had this capacity from the start. Where the ring has wrapped
    around, the oldest row comes first instead, and what was overwritten before stays lost.

    Args:
        replay: the buffer, with any leading axes (seeds) before that of environments.
        capacity: rows per environment, more than now.
    """
    axis, rows = replay.insert_index.ndim, replay.episode_step.shape[-1]
    insert_index = np.asarray(replay.insert_index)
    # In a ring that has not wrapped around, the rows after the insert index were never written.
    ahead = np.arange(rows) > insert_index[..., None]
    wrapped = ((np.asarray(replay.episode_step) != EMPTY) & ahead).any(axis=-1)
    shift = np.where(wrapped, insert_index + 1, 0)
    order = (np.arange(rows) + shift[..., None]) % rows

    def moved(path: tuple, array: Shaped[Array | np.ndarray, "..."]) -> Shaped[Array | np.ndarray, "..."]:
        name, old = path_name(path), np.asarray(array)
        if name == INSERT_INDEX:
            return jnp.asarray(((old - shift) % rows).astype(old.dtype))
        new = np.zeros((*old.shape[:axis], capacity, *old.shape[axis + 1 :]), old.dtype)
        if name == "episode_step":
            new[:] = EMPTY
        # One ring at a time, because those of images in host memory may be as large as half of it.
        for ring in np.ndindex(insert_index.shape):
            new[ring][:rows] = old[ring][order[ring]]
        return new if isinstance(array, np.ndarray) else jnp.asarray(new)

    return jax.tree_util.tree_map_with_path(moved, replay)
