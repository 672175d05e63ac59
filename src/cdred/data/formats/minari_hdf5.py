"""How Minari keeps episodes in HDF5: one group `episode_<i>` each, its attributes being `id`, `seed`, `total_steps`.

In a group: `observations [T+1, ...]` (a group of such arrays for a Dict space), `actions [T, ...]`, `rewards`,
`terminations` and `truncations [T]`, and `infos`, a group of what `step` told, with the reset's entry in front
(https://minari.farama.org/content/dataset_standards/).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from cdred.data.formats.hdf5 import leaves, numbered, read, read_array
from cdred.data.formats.obs_keys import ArrayInfo


class Stored(NamedTuple):
    """One episode as a Minari dataset keeps it, whatever the kind of file.

    Attributes:
        where: the place, for the messages.
        parts: the observations' arrays, `[T+1, ...]`, by name; `observations` where there is only one.
        read: one of them, as float32.
        column: the array of that name (`actions`, `rewards`, ..., `infos/success`) as float32; None if there is none.
        seed: the episode's, if known.
    """

    where: str
    parts: Mapping[str, ArrayInfo]
    read: Callable[[str], np.ndarray]
    column: Callable[[str], np.ndarray | None]
    seed: int | None


def hdf5_episodes(file: Any, where: str) -> list[Callable[[], Stored]]:
    """The episodes of an open file, each to be looked into when its turn comes."""
    return [
        lambda name=name, group=group: _stored(group, f"{where}, {name}") for name, group in numbered(file, "episode_")
    ]


def _stored(group: Any, where: str) -> Stored:
    parts = leaves(group["observations"], "observations") if "observations" in group else {}

    def column(name: str) -> np.ndarray | None:
        return read_array(group, name, where) if name in group else None

    seed = group.attrs.get("seed")
    return Stored(where, parts, lambda key: read(parts[key], key, where), column, None if seed is None else int(seed))
