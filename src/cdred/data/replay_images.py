"""Camera images of a replay buffer in host memory: a NumPy array `[S, E, L, H, W, 3]` that is written in place.

Compiled functions get such a buffer without its images. Where they need them, every image is replaced by the number of
its row, so that the rows that are sampled and written are those of a buffer on the device by construction. The host
gathers the images of a window of successive rows, from which compiled functions stack those of each observation.
"""

from dataclasses import replace
from math import prod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8

from cdred.data.replay_buffer import ReplayBuffer, Transition
from cdred.types import STACKED_IMAGES, EnvSpec, ImageObs

# Rows of a window before those of its observations: the first observations have their images, too.
EARLIER = STACKED_IMAGES - 1


def host_images(replay: ReplayBuffer) -> np.ndarray | None:
    """Return the images of a buffer if they are in host memory, else None."""
    image = replay.obs.image if isinstance(replay.obs, ImageObs) else None
    return image if isinstance(image, np.ndarray) else None


def without_pixels(spec: EnvSpec) -> EnvSpec:
    """Return a task of which a replay buffer keeps no images."""
    return replace(spec, image_size=0)


def image_bytes(spec: EnvSpec, num_envs: int, capacity: int) -> int:
    """Return the bytes of the images of `num_envs` x `capacity` rows; 0 for a task without."""
    return 0 if spec.image_size is None else num_envs * capacity * prod(spec.image_shape)


def with_images(replay: ReplayBuffer, image: Array | np.ndarray | jax.ShapeDtypeStruct) -> ReplayBuffer:
    """Return a buffer with other images."""
    return eqx.tree_at(lambda r: r.obs.image, replay, image)


def without_images(replay: ReplayBuffer) -> ReplayBuffer:
    """Return a buffer as compiled functions get it: with images of no pixels in place of those in host memory."""
    if host_images(replay) is None:
        return replay
    return with_images(replay, np.zeros((*replay.episode_step.shape, 0, 0, 3), np.uint8))


def number_rows(replay: ReplayBuffer) -> ReplayBuffer:
    """Return a buffer of one seed with the numbers of the rows of all environments `[E, L]` in place of its images."""
    shape = replay.episode_step.shape
    return with_images(replay, jnp.arange(prod(shape), dtype=jnp.int32).reshape(shape))


def add_rows(
    replay: ReplayBuffer, block: Transition
) -> tuple[ReplayBuffer, Int[Array, "E rows"], Int[Array, "E rows"]]:
    """Add a block of steps `[time, E, ...]` to a buffer of one seed, both without images.

    Returns:
        The new buffer; rows of each environment, with all that were written among them; and which of the images of
        `write_images` each one holds now, -1 if it was not written.
    """
    assert isinstance(block.obs, ImageObs)
    assert isinstance(block.next_obs, ImageObs)
    (steps, num_envs), capacity = block.reward.shape, replay.episode_step.shape[1]
    number = jnp.broadcast_to(2 * jnp.arange(steps)[:, None, None], (steps, num_envs, STACKED_IMAGES))
    numbered = block._replace(obs=block.obs._replace(image=number), next_obs=block.next_obs._replace(image=number + 1))
    added = with_images(replay, jnp.full((num_envs, capacity), -1, jnp.int32)).add(numbered)
    # A step moves the insert index by two rows and the absorbing ones at most; the row at the index is written, too.
    num_rows = min(steps * (2 + replay.num_absorbing) + 1, capacity)
    rows = (added.insert_index[:, None] - jnp.arange(num_rows)[None]) % capacity
    assert isinstance(added.obs, ImageObs)
    sources = jnp.take_along_axis(jnp.asarray(added.obs.image), rows, axis=1)
    assert isinstance(replay.obs, ImageObs)
    return with_images(added, replay.obs.image), rows, sources


def write_images(
    image: UInt8[np.ndarray, "S E L H W 3"],
    block: Transition,
    rows: Int[np.ndarray, "S E rows"],
    sources: Int[np.ndarray, "S E rows"],
) -> None:
    """Write the images of a block of steps `[S, time, E, ...]` into their rows, as found by `add_rows`.

    Image 2 t is the newest one of the observation before step t, image 2 t + 1 that of the one after it.
    """
    assert isinstance(block.obs, ImageObs)
    assert isinstance(block.next_obs, ImageObs)
    newest = np.stack([block.obs.image[:, :, :, -1], block.next_obs.image[:, :, :, -1]], axis=2)
    seed, env, index = np.nonzero(sources >= 0)
    step, after = np.divmod(sources[seed, env, index], 2)
    image[seed, env, rows[seed, env, index]] = newest[seed, step, after, env]


def gather_windows(
    image: UInt8[np.ndarray, "S E L H W 3"], first: Int[np.ndarray, "S N"], num_rows: int
) -> UInt8[np.ndarray, "S N window H W 3"]:
    """Gather the images of `num_rows` successive rows and of the `EARLIER` ones before them, modulo the capacity.

    Args:
        image: all images.
        first: numbers of the rows (`number_rows`) that come first among the `num_rows`.
        num_rows: number of rows.
    """
    capacity, seed_rows = image.shape[2], image.shape[1] * image.shape[2]
    start = np.asarray(first, np.int64)[..., None]
    rows = start - start % capacity + (start % capacity + np.arange(-EARLIER, num_rows)) % capacity
    rows += seed_rows * np.arange(len(image))[:, None, None]
    return np.take(image.reshape(-1, *image.shape[3:]), rows, axis=0)


def stack_window(
    window: UInt8[Array, "window H W 3"], numbers: Int[Array, "rows K"], capacity: int
) -> UInt8[Array, "rows K H W 3"]:
    """Stack the images of the observations in successive rows.

    Args:
        window: images of these rows and the `EARLIER` ones before, from `gather_windows`.
        numbers: numbers of the rows of the images of each observation, that of its own row last.
        capacity: rows per environment.
    """
    return window[(numbers - numbers[0, -1] + EARLIER) % capacity]
