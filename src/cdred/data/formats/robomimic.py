"""Demonstrations in robomimic's HDF5 layout, which robosuite, MimicGen, LIBERO and Isaac Lab write too.

    data                      attributes env_args: JSON with env_name, env_type, env_kwargs; total: sum of num_samples
    data/demo_<i>             attribute num_samples: T
    data/demo_<i>/actions     [T, A]
    data/demo_<i>/obs/<key>   [T, ...]   one dataset per key, images [T, H, W, C]; may be nested
    data/demo_<i>/next_obs/<key>         optional, the same keys
    data/demo_<i>/rewards     [T]        optional
    data/demo_<i>/dones       [T]        not used, see below

(https://robomimic.github.io/docs/datasets/overview.html, "Dataset Structure")

The final observation is the last of `next_obs`; without it, each episode's last action has none and is dropped. Images
are `[T, H, W, 3]`, uint8; `[T, 3, H, W]`, as robomimic gives them to its networks, is accepted, and floats are not.
`dones` does not indicate termination: depending on its options, robomimic sets it in every success state, at the end of
every demonstration, or both. So every episode counts as truncated, and success is unknown.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cdred.data.formats.cameras import ImageRequest
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
from cdred.data.formats.obs_keys import check_same_parts
from cdred.data.formats.obs_selection import Selection, select_obs
from cdred.errors import UserError
from cdred.types import DemoDataset, Trajectory


def is_robomimic(path: Path) -> bool:
    """Return True if `path` is an HDF5 file with a group `data` of groups `demo_<i>`."""
    return matches(
        path,
        lambda file: isinstance(file.get("data"), h5py.Group) and bool(numbered_groups(file["data"], "demo_")),
    )


def read_robomimic(
    path: Path,
    obs_keys: Sequence[str] | None = None,
    on_progress: OnProgress | None = None,
    images: ImageRequest | None = None,
) -> DemoDataset:
    """Read the trajectories in `path`, without validating them.

    Args:
        path: the HDF5 file.
        obs_keys: keys of `obs` to concatenate, in that order; None for all vectors, sorted by name, without images.
        on_progress: called after each episode.
        images: camera images to read as well.

    Raises:
        UserError: a damaged file, a missing key, or an unknown observation or camera.
    """
    location = str(path)
    with open_hdf5(path) as file:
        demos = numbered_groups(file["data"], "demo_")
        name, group = demos[0]
        arrays = _obs_arrays(group, "obs", f"{location}, {name}")
        first = select_obs(arrays, obs_keys, images, f"{location}, {name}")
        episodes = [
            _read_episode(group, obs_keys, images, first, f"{path}, {name}")
            for name, group in with_progress(demos, on_progress)
        ]
        total = sum(len(trajectory) + dropped for trajectory, dropped in episodes)
        check_declared_steps(file["data"].attrs.get("total"), total, "the attribute 'total' of 'data'", location)
        provenance = {
            "format": "robomimic HDF5",
            **_env_provenance(file["data"], location),
            **first.provenance(obs_keys),
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


def _read_episode(
    group: Any, obs_keys: Sequence[str] | None, images: ImageRequest | None, first: Selection, location: str
) -> tuple[Trajectory, bool]:
    """Read one demonstration; the second result is True if its last action had to be dropped."""
    arrays = _obs_arrays(group, "obs", location)
    selection = select_obs(arrays, obs_keys, images, location)
    check_same_parts(selection.parts, first.parts, location)
    steps = _count_rows(arrays, selection, location)
    _check_rows(group, steps, location)
    check_declared_steps(group.attrs.get("num_samples"), steps, "the attribute 'num_samples'", location)
    final = _final_arrays(group, selection, steps, location)
    trajectory = Trajectory(
        obs=_read_vectors(arrays, final, selection, steps, location),
        action=read_array(group, "actions", location) if "actions" in group else empty_actions(steps),
        reward=read_array(group, "rewards", location) if "rewards" in group else None,
        terminated=False,
        truncated=True,
        image=_read_images(selection, final, steps, location),
    )
    return (drop_last_action(trajectory), True) if final is None else (trajectory, False)


def _count_rows(arrays: Mapping[str, h5py.Dataset], selection: Selection, location: str) -> int:
    """Return the number of time steps, which vectors and images must have in common."""
    names = (*selection.keys, *([selection.camera] if selection.camera else []))
    rows = {name: len(arrays[name]) for name in names}
    if len(set(rows.values())) > 1:
        raise UserError(f"{location}: its observations differ in length: {rows}.")
    return max(rows.values())


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


def _final_arrays(group: Any, selection: Selection, steps: int, location: str) -> Mapping[str, h5py.Dataset] | None:
    """Return the arrays of `next_obs`, with the final observation in their last rows; None if it lacks some."""
    arrays = datasets_by_path(group["next_obs"], "next_obs") if "next_obs" in group else {}
    names = (*selection.keys, *([selection.camera] if selection.camera else []))
    if not all(name in arrays for name in names):
        return None
    rows = {name: len(arrays[name]) for name in names}
    if set(rows.values()) != {steps}:
        raise UserError(f"{location}: 'next_obs' has {rows} rows, expected {steps}, as in 'obs'.")
    for name in names:
        if arrays[name].shape[1:] != selection.arrays[name].shape[1:]:
            raise UserError(
                f"{location}: 'next_obs/{name}' has shape {arrays[name].shape[1:]} per time step, expected "
                f"{selection.arrays[name].shape[1:]}, as in 'obs'."
            )
    return arrays


def _read_vectors(
    arrays: Mapping[str, h5py.Dataset],
    final: Mapping[str, h5py.Dataset] | None,
    selection: Selection,
    steps: int,
    location: str,
) -> np.ndarray:
    """Read the vectors `[T + 1, ...]`, or `[T, ...]` if the final observation is missing."""

    def read(key: str) -> np.ndarray:
        return read_float32(arrays[key], f"obs/{key}", location)

    obs = selection.read_vectors(read, steps, location)
    if final is None:
        return obs

    def read_last(key: str) -> np.ndarray:
        return read_float32(final[key], f"next_obs/{key}", location, slice(steps - 1, steps))

    return np.concatenate([obs, selection.read_vectors(read_last, 1, location)])


def _read_images(
    selection: Selection, final: Mapping[str, h5py.Dataset] | None, steps: int, location: str
) -> np.ndarray | None:
    """Read the images as `_read_vectors` reads the vectors; None without a camera."""
    image = selection.read_images(location)
    if image is None or final is None:
        return image
    last = selection._replace(arrays=final).read_images(f"{location}, next_obs", slice(steps - 1, steps))
    return image if last is None else np.concatenate([image, last])
