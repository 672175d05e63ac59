"""Minari episodes in HDF5: one group `episode_<i>` each, with attributes `id`, `seed`, `total_steps`.

Each group holds `observations [T+1, ...]` (a group of such arrays for a Dict space, and for a Tuple space, whose
members are named `_index_0`, ...), `actions [T, ...]`, `rewards`,
`terminations` and `truncations [T]`, and `infos`, a group of the step infos that begins with the info of the reset
(https://minari.farama.org/content/dataset_standards/).
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from cdred.data.formats.hdf5 import datasets_by_path, numbered_groups, read_array, read_float32
from cdred.data.formats.obs_keys import ArrayInfo, by_name


class RawEpisode(NamedTuple):
    """One episode of a Minari dataset, whatever its storage.

    Attributes:
        location: file or folder and episode, for messages.
        obs_arrays: the observations' arrays, `[T+1, ...]`, by name; `observations` if there is only one.
        read_obs: returns one of them as float32.
        column: returns the array of a name (`actions`, `rewards`, ..., `infos/success`) as float32; None if missing.
        seed: seed of the episode; None if unknown.
    """

    location: str
    obs_arrays: Mapping[str, ArrayInfo]
    read_obs: Callable[[str], np.ndarray]
    column: Callable[[str], np.ndarray | None]
    seed: int | None


def hdf5_episodes(file: Any, location: str) -> list[Callable[[], RawEpisode]]:
    """Return the episodes of an open file, each as a function that opens it."""
    return [
        lambda name=name, group=group: _open_episode(group, f"{location}, {name}")
        for name, group in numbered_groups(file, "episode_")
    ]


def _open_episode(group: Any, location: str) -> RawEpisode:
    datasets = datasets_by_path(group["observations"], "observations") if "observations" in group else {}
    named = {re.sub(r"(^|/)_index_(?=\d+(/|$))", r"\1", path): array for path, array in datasets.items()}
    arrays = {name: named[name] for name in sorted(named, key=by_name)}

    def column(name: str) -> np.ndarray | None:
        return read_array(group, name, location) if name in group else None

    seed = group.attrs.get("seed")
    return RawEpisode(
        location,
        arrays,
        lambda key: read_float32(arrays[key], key, location),
        column,
        None if seed is None else int(seed),
    )
