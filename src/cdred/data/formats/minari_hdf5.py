"""Minari episodes in HDF5: one group `episode_<i>` each, with attributes `id`, `seed`, `total_steps`.

Each group holds `observations [T+1, ...]` (a group of such arrays for a Dict space, and for a Tuple space, whose
members are named `_index_0`, ...), `actions [T, ...]`, `rewards`,
`terminations` and `truncations [T]`, and `infos`, a group of the step infos that begins with the info of the reset
(https://minari.farama.org/content/dataset_standards/).

Images of 32 x 32 pixels or more are stored as JPEG unless the dataset was created with `jpeg_encoding=False`: as an
array of bytes `[T+1, length]` if all are equally long, else as arrays of their own lengths. Such an array holds images,
and no vectors, if its space has more than one axis.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import h5py
import numpy as np

from cdred.data.formats.cameras import EncodedImages, ImageArray
from cdred.data.formats.hdf5 import datasets_by_path, numbered_groups, read_array, read_float32
from cdred.data.formats.obs_keys import by_name

Shapes = Mapping[str, tuple[int, ...]]


class RawEpisode(NamedTuple):
    """One episode of a Minari dataset, whatever its storage.

    Attributes:
        location: file or folder and episode, for messages.
        obs_arrays: the observations' arrays, `[T+1, ...]`, by name; `observations` if there is only one. Images are
            decoded when rows are taken.
        read_obs: returns one of them as float32.
        column: returns the array of a name (`actions`, `rewards`, ..., `infos/success`) as float32; None if missing.
        seed: seed of the episode; None if unknown.
    """

    location: str
    obs_arrays: Mapping[str, ImageArray]
    read_obs: Callable[[str], np.ndarray]
    column: Callable[[str], np.ndarray | None]
    seed: int | None


def hdf5_episodes(file: Any, location: str, shapes: Shapes) -> list[Callable[[], RawEpisode]]:
    """Return the episodes of an open file, each as a function that opens it.

    Args:
        file: the open file.
        location: its path, for messages.
        shapes: shapes of the observations' spaces by name.
    """
    return [
        lambda name=name, group=group: _open_episode(group, f"{location}, {name}", shapes)
        for name, group in numbered_groups(file, "episode_")
    ]


def _open_episode(group: Any, location: str, shapes: Shapes) -> RawEpisode:
    datasets = datasets_by_path(group["observations"], "observations") if "observations" in group else {}
    named = {re.sub(r"(^|/)_index_(?=\d+(/|$))", r"\1", path): array for path, array in datasets.items()}
    arrays = {name: _decoded(named[name], shapes.get(name, ()), location, name) for name in sorted(named, key=by_name)}

    def column(name: str) -> np.ndarray | None:
        return read_array(group, name, location) if name in group else None

    def read_obs(key: str) -> np.ndarray:
        array = arrays[key]
        return read_float32(array, key, location) if isinstance(array, h5py.Dataset) else stack_images(array)

    seed = group.attrs.get("seed")
    return RawEpisode(location, arrays, read_obs, column, None if seed is None else int(seed))


def _decoded(array: h5py.Dataset, shape: tuple[int, ...], location: str, name: str) -> ImageArray:
    """Return an array as it is, or one that decodes its images."""
    holds_bytes = np.uint8 in (array.dtype, h5py.check_vlen_dtype(array.dtype))
    if len(shape) > 1 and array.ndim < 3 and holds_bytes:
        return EncodedImages(array, shape, f"{location}: '{name}'")
    return array


def stack_images(array: ImageArray) -> np.ndarray:
    """Return all of an array of images as float32, for observations that the user names."""
    return np.stack([image.astype(np.float32) for image in array[:]])
