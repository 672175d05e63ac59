"""Demonstrations recorded by ManiSkill 3: `<name>.h5`, and `<name>.json` beside it.

    traj_<i>/obs         [T+1, D], or a group of such arrays (`agent/qpos`, `extra/...`), by observation mode
    traj_<i>/actions     [T, A]   in the control mode's own units
    traj_<i>/terminated, truncated  [T]
    traj_<i>/success     [T]      where the task defines it
    traj_<i>/rewards     [T]      optional
    traj_<i>/env_states  groups of [T+1, ...]: the simulator's states of actors and articulations

    env_info: env_id, max_episode_steps, env_kwargs; episodes: episode_id, episode_seed, elapsed_steps, ...

(https://maniskill.readthedocs.io, "Demonstrations", and `RecordEpisode` of mani_skill 3.)

A recording continues after a step that reached the task's goal, and `terminated` is set at each such step, so only the
last step's flags count. The demonstrations that ManiSkill publishes hold no observations; its replay tool adds them in
any observation mode, or `obs_keys` may name `env_states/...` instead.
"""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import h5py

from cdred.data.formats.common import (
    OnProgress,
    check_components,
    check_declared_steps,
    check_step_counts,
    empty_actions,
    sanitize_text,
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

REPLAY_HINT = "replay it with `python -m mani_skill.trajectory.replay_trajectory --traj-path FILE -o state --save-traj`"


def is_maniskill(path: Path) -> bool:
    """Return True if `path` is an HDF5 file of groups `traj_<i>`."""
    return matches(path, lambda file: bool(numbered_groups(file, "traj_")))


def read_maniskill(
    path: Path, obs_keys: Sequence[str] | None = None, on_progress: OnProgress | None = None
) -> DemoDataset:
    """Read the trajectories in `path`, without validating them; the provenance is taken from the JSON file.

    Args:
        path: the HDF5 file.
        obs_keys: arrays in `obs` to concatenate, in that order (`agent/qpos`), or in `env_states`
            (`env_states/actors/cube`); None for all vectors in `obs`, sorted by name, without images.
        on_progress: called after each episode.

    Raises:
        UserError: damaged files, a missing key, no observations, or an unknown one.
    """
    metadata = _read_metadata(path.with_suffix(".json"))
    entries = {f"traj_{episode.get('episode_id')}": episode for episode in metadata["episodes"]}
    with open_hdf5(path) as file:
        groups = numbered_groups(file, "traj_")
        _check_names(entries, [name for name, _ in groups], path)
        arrays = _selectable_arrays(groups[0][1], obs_keys, str(path))
        keys = select_obs_keys(arrays, obs_keys, str(path))
        first, selection = joined_parts(arrays, keys), obs_provenance(arrays, keys, obs_keys)
        trajectories = tuple(
            _read_episode(group, obs_keys, first, entries.get(name, {}), f"{path}, {name}")
            for name, group in with_progress(groups, on_progress)
        )
    check_step_counts(map(len, trajectories), str(path), "a group 'traj_<i>' holds all steps of an episode")
    return DemoDataset("", trajectories, {"format": "ManiSkill HDF5"} | _metadata_provenance(metadata) | selection)


def _read_metadata(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {"episodes": []}
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        return {"env_info": metadata.get("env_info") or {}, "episodes": list(metadata["episodes"])} | metadata
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not JSON as ManiSkill writes it ({error!r}).") from error


def _check_names(entries: Collection[str], names: Sequence[str], path: Path) -> None:
    """Check that the JSON file, if there is one, lists the trajectories of the HDF5 file."""
    unpaired = set(entries).symmetric_difference(names) if entries else ()
    if unpaired:
        first = min(unpaired)
        present, missing = (path, path.with_suffix(".json")) if first in names else (path.with_suffix(".json"), path)
        raise UserError(
            f"{path}: {first} is in {present.name}, but not in {missing.name} ({len(names)} trajectories in "
            f"{path.name}, {len(entries)} in the JSON file): use the files of one recording, or remove the JSON file."
        )


def _metadata_provenance(metadata: dict[str, Any]) -> dict[str, object]:
    modes = sorted({str(episode["control_mode"]) for episode in metadata["episodes"] if "control_mode" in episode})
    provenance = {
        "env_id": (metadata.get("env_info") or {}).get("env_id"),
        "source_type": metadata.get("source_type"),
        "control_mode": ", ".join(modes),
    }
    return {key: value for key, value in provenance.items() if value}


def _selectable_arrays(group: Any, obs_keys: Sequence[str] | None, location: str) -> dict[str, h5py.Dataset]:
    """Return the arrays to select observations from; simulator states are included only if keys are given."""
    obs = datasets_by_path(group["obs"], "obs") if "obs" in group else {}
    states = datasets_by_path(group["env_states"], "") if "env_states" in group else {}
    obs = {key: array for key, array in obs.items() if array.size}
    states = {f"env_states/{key}": array for key, array in states.items()}
    if obs_keys is not None:
        return obs | states
    if not obs:
        available = sanitize_text(", ".join(states) or "none")
        raise UserError(
            f"{location}: no observations in it: {REPLAY_HINT}, or name states with --obs-keys (available: "
            f"{available})."
        )
    return obs


def _read_episode(
    group: Any, obs_keys: Sequence[str] | None, first: Parts, entry: dict[str, Any], location: str
) -> Trajectory:
    """Read one trajectory.

    Args:
        group: its HDF5 group.
        obs_keys: as in `read_maniskill`.
        first: names and widths of the observation arrays of the first trajectory.
        entry: its entry in the JSON file; empty if there is none.
        location: file and trajectory, for messages.
    """
    arrays = _selectable_arrays(group, obs_keys, location)
    keys = select_obs_keys(arrays, obs_keys, location)
    check_same_parts(joined_parts(arrays, keys), first, location)
    obs = concat_obs(arrays, keys, lambda key: read_float32(arrays[key], key, location), location)
    action = read_array(group, "actions", location) if "actions" in group else empty_actions(len(obs) - 1)
    check_components(action.shape, "[T, A]", "actions", location)
    steps, seed = len(action), entry.get("episode_seed")
    check_declared_steps(entry.get("elapsed_steps"), steps, "elapsed_steps in the JSON file", location)
    return Trajectory(
        obs=obs,
        action=action,
        reward=read_array(group, "rewards", location) if "rewards" in group else None,
        terminated=_last_flag(group, "terminated", steps, location),
        truncated=_last_flag(group, "truncated", steps, location),
        success=read_array(group, "success", location) != 0 if "success" in group else None,
        seed=seed if isinstance(seed, int) else None,
    )


def _last_flag(group: Any, key: str, steps: int, location: str) -> bool:
    flags = read_array(group, key, location)
    if flags.shape != (steps,):
        raise UserError(f"{location}: '{key}' has shape {flags.shape}, expected ({steps},), one flag per action.")
    return bool(flags[-1:].any())
