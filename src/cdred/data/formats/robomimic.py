"""Demonstrations in robomimic's HDF5 layout, which robosuite, MimicGen, LIBERO and Isaac Lab write too.

    data                      attribute env_args: JSON with env_name, env_type, env_kwargs
    data/demo_<i>/actions     [T, A]
    data/demo_<i>/obs/<key>   [T, ...]   a dataset each, pictures [T, H, W, C]; may be nested
    data/demo_<i>/next_obs/<key>         optional, the same keys
    data/demo_<i>/rewards     [T]        optional; zeros where missing
    data/demo_<i>/dones       [T]        not used, see below

(https://robomimic.github.io/docs/datasets/overview.html, "Dataset Structure")

The final observation is the last of `next_obs`; without it, each episode's last action has none and is left out.
`dones` says nothing about a world that ended: robomimic's own writers set it in every success state, at the end of
every demonstration, or both, as they were asked. So every episode reads as truncated, and success is unknown.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cdred.data.formats.common import NO_FINAL_OBSERVATION, OnProgress, drop_last_action, empty_actions, names, tracked
from cdred.data.formats.hdf5 import holds, leaves, numbered, opened, read, read_array
from cdred.data.formats.obs_keys import account, joined, selected
from cdred.errors import UserError
from cdred.types import DemoDataset, Trajectory


def is_robomimic(path: Path) -> bool:
    """Whether `path` is an HDF5 file with a group `data` of `demo_<i>`."""
    return holds(path, lambda file: isinstance(file.get("data"), h5py.Group) and bool(numbered(file["data"], "demo_")))


def read_robomimic(
    path: Path, obs_keys: Sequence[str] | None = None, on_progress: OnProgress | None = None
) -> DemoDataset:
    """The trajectories in `path`, not yet validated.

    Args:
        path: the HDF5 file.
        obs_keys: keys of `obs` to join, in that order; None for all vectors, sorted by name, no pictures.
        on_progress: told after each episode.

    Raises:
        UserError: a damaged file, a missing key, no such observation.
    """
    with opened(path) as file:
        demos = numbered(file["data"], "demo_")
        read_one = [_trajectory(group, obs_keys, f"{path}, {name}") for name, group in tracked(demos, on_progress)]
        provenance = {"format": "robomimic HDF5"} | _env(file["data"], str(path)) | _choice(demos, obs_keys, str(path))
    if any(dropped for _, dropped in read_one):
        provenance["dropped"] = NO_FINAL_OBSERVATION
    return DemoDataset("", tuple(one for one, _ in read_one), provenance)


def _choice(demos: list[tuple[str, Any]], obs_keys: Sequence[str] | None, where: str) -> dict[str, object]:
    parts = _parts(demos[0][1], "obs", where)
    return account(parts, selected(parts, obs_keys, where))


def _env(data: Any, where: str) -> dict[str, object]:
    try:
        args = json.loads(data.attrs.get("env_args", "{}"))
        return {"env_name": args["env_name"]} if "env_name" in args else {}
    except (ValueError, TypeError) as error:
        raise UserError(f"{where}: the attribute env_args of 'data' is not JSON: {error}") from error


def _parts(group: Any, key: str, where: str) -> dict[str, h5py.Dataset]:
    if key not in group:
        raise UserError(
            f"{where}: no '{key}' in it (there are: {names(group)}); a file with states only needs its "
            "observations extracted by robomimic's dataset_states_to_obs.py first."
        )
    return leaves(group[key], key)


def _trajectory(group: Any, obs_keys: Sequence[str] | None, where: str) -> tuple[Trajectory, bool]:
    """One demonstration, and whether its last action had to be left out."""
    obs, has_final = _observations(group, obs_keys, where)
    steps = len(obs) - has_final
    one = Trajectory(
        obs=obs,
        action=read_array(group, "actions", where) if "actions" in group else empty_actions(steps),
        reward=read_array(group, "rewards", where) if "rewards" in group else np.zeros(steps, np.float32),
        terminated=False,
        truncated=True,
    )
    return (one, False) if has_final else (drop_last_action(one), True)


def _observations(group: Any, obs_keys: Sequence[str] | None, where: str) -> tuple[np.ndarray, bool]:
    parts = _parts(group, "obs", where)
    keys = selected(parts, obs_keys, where)
    obs = joined(parts, keys, lambda key: read(parts[key], f"obs/{key}", where), where)
    after = leaves(group["next_obs"], "next_obs") if "next_obs" in group else {}
    if not all(key in after for key in keys):
        return obs, False
    last = joined(
        after, keys, lambda key: read(after[key], f"next_obs/{key}", where, slice(len(obs) - 1, len(obs))), where
    )
    return np.concatenate([obs, last]), True
