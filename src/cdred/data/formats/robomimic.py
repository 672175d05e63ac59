"""Demonstrations in robomimic's HDF5 layout, which robosuite, MimicGen, LIBERO and Isaac Lab write too.

    data                      attributes env_args: JSON with env_name, env_type, env_kwargs; total: sum of num_samples
    data/demo_<i>             attribute num_samples: T
    data/demo_<i>/actions     [T, A]
    data/demo_<i>/obs/<key>   [T, ...]   one dataset per key, images [T, H, W, C]; may be nested
    data/demo_<i>/next_obs/<key>         optional, the same keys
    data/demo_<i>/rewards     [T]        optional
    data/demo_<i>/dones       [T]        not used, see below

(https://robomimic.github.io/docs/datasets/overview.html, "Dataset Structure")

The final observation is the last of `next_obs`; without it, each episode's last action has none and is dropped.
`dones` does not indicate termination: depending on its options, robomimic sets it in every success state, at the end of
every demonstration, or both. So every episode counts as truncated, and success is unknown.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cdred.data.formats.common import (
    NO_FINAL_OBSERVATION,
    OnProgress,
    check_components,
    check_declared_steps,
    check_step_counts,
    drop_last_action,
    empty_actions,
    format_keys,
    with_progress,
)
from cdred.data.formats.hdf5 import datasets_by_path, matches, numbered_groups, open_hdf5, read_array, read_float32
from cdred.data.formats.obs_keys import (
    Parts,
    check_same_parts,
    concat_obs,
    joined_parts,
    obs_provenance,
    select_obs_keys,
)
from cdred.errors import UserError
from cdred.types import DemoDataset, Trajectory


def is_robomimic(path: Path) -> bool:
    """Return True if `path` is an HDF5 file with a group `data` of groups `demo_<i>`."""
    return matches(
        path,
        lambda file: isinstance(file.get("data"), h5py.Group) and bool(numbered_groups(file["data"], "demo_")),
    )


def read_robomimic(
    path: Path, obs_keys: Sequence[str] | None = None, on_progress: OnProgress | None = None
) -> DemoDataset:
    """Read the trajectories in `path`, without validating them.

    Args:
        path: the HDF5 file.
        obs_keys: keys of `obs` to concatenate, in that order; None for all vectors, sorted by name, without images.
        on_progress: called after each episode.

    Raises:
        UserError: a damaged file, a missing key, or an unknown observation.
    """
    location = str(path)
    with open_hdf5(path) as file:
        demos = numbered_groups(file["data"], "demo_")
        name, group = demos[0]
        arrays = _obs_arrays(group, "obs", f"{location}, {name}")
        keys = select_obs_keys(arrays, obs_keys, f"{location}, {name}")
        first = joined_parts(arrays, keys)
        episodes = [
            _read_episode(group, obs_keys, first, f"{path}, {name}")
            for name, group in with_progress(demos, on_progress)
        ]
        total = sum(len(trajectory) + dropped for trajectory, dropped in episodes)
        check_declared_steps(file["data"].attrs.get("total"), total, "the attribute 'total' of 'data'", location)
        provenance = {
            "format": "robomimic HDF5",
            **_env_provenance(file["data"], location),
            **obs_provenance(arrays, keys, obs_keys),
        }
    check_step_counts(
        (len(trajectory) for trajectory, _ in episodes), location, "a group 'demo_<i>' holds all steps of an episode"
    )
    if any(dropped for _, dropped in episodes):
        provenance["dropped"] = NO_FINAL_OBSERVATION
    return DemoDataset("", tuple(trajectory for trajectory, _ in episodes), provenance)


def _env_provenance(data: Any, location: str) -> dict[str, object]:
    try:
        args = json.loads(data.attrs.get("env_args", "{}"))
        return {"env_name": args["env_name"]} if "env_name" in args else {}
    except (ValueError, TypeError) as error:
        raise UserError(f"{location}: the attribute env_args of 'data' is not JSON: {error}") from error


def _obs_arrays(group: Any, key: str, location: str) -> dict[str, h5py.Dataset]:
    if key not in group:
        raise UserError(
            f"{location}: no '{key}' in it (available: {format_keys(group)}); in a file with states only, extract the "
            "observations with robomimic's dataset_states_to_obs.py first."
        )
    return datasets_by_path(group[key], key)


def _read_episode(group: Any, obs_keys: Sequence[str] | None, first: Parts, location: str) -> tuple[Trajectory, bool]:
    """Read one demonstration; the second result is True if its last action had to be dropped."""
    obs, has_final = _read_obs(group, obs_keys, first, location)
    steps = len(obs) - has_final
    _check_rows(group, steps, location)
    check_declared_steps(group.attrs.get("num_samples"), steps, "the attribute 'num_samples'", location)
    trajectory = Trajectory(
        obs=obs,
        action=read_array(group, "actions", location) if "actions" in group else empty_actions(steps),
        reward=read_array(group, "rewards", location) if "rewards" in group else None,
        terminated=False,
        truncated=True,
    )
    return (trajectory, False) if has_final else (drop_last_action(trajectory), True)


def _check_rows(group: Any, steps: int, location: str) -> None:
    """Check actions and rewards before any row is dropped: one row per observation, and actions are vectors."""
    arrays = [key for key in ("actions", "rewards") if isinstance(group.get(key), h5py.Dataset)]
    rows = {"obs": (steps,)} | {key: group[key].shape[:1] for key in arrays}
    if len(set(rows.values())) > 1:
        counts = ", ".join(f"'{key}' {shape[0] if shape else 'none'}" for key, shape in rows.items())
        raise UserError(
            f"{location}: its arrays differ in their number of rows, expected one number: {counts}; the final "
            "observation belongs to 'next_obs'."
        )
    if "actions" in rows:
        check_components(group["actions"].shape, "[T, A]", "actions", location)


def _read_obs(group: Any, obs_keys: Sequence[str] | None, first: Parts, location: str) -> tuple[np.ndarray, bool]:
    """Read the observations; the second result is True if they include the final one."""
    arrays = _obs_arrays(group, "obs", location)
    keys = select_obs_keys(arrays, obs_keys, location)
    check_same_parts(joined_parts(arrays, keys), first, location)
    obs = concat_obs(arrays, keys, lambda key: read_float32(arrays[key], f"obs/{key}", location), location)
    next_arrays = datasets_by_path(group["next_obs"], "next_obs") if "next_obs" in group else {}
    if not all(key in next_arrays for key in keys):
        return obs, False
    rows = {key: len(next_arrays[key]) for key in keys}
    if set(rows.values()) != {len(obs)}:
        raise UserError(f"{location}: 'next_obs' has {rows} rows, expected {len(obs)}, as in 'obs'.")
    last_row = slice(len(obs) - 1, len(obs))
    final = concat_obs(
        next_arrays,
        keys,
        lambda key: read_float32(next_arrays[key], f"next_obs/{key}", location, last_row),
        location,
    )
    return np.concatenate([obs, final]), True
