"""Demonstrations in D4RL's HDF5 layout: episodes one after the other in flat arrays.

    observations  [N, D]      actions  [N, A]      rewards  [N]
    terminals     [N]         the episode terminated in this row
    timeouts      [N]         the time limit ended the episode; missing in the oldest files
    next_observations [N, D]  optional: observation after each action
    infos/..., metadata/...   not used

(https://github.com/Farama-Foundation/D4RL, "Using d4rl".) `rewards`, `terminals` and `timeouts` may be [N, 1].

Episodes end where `terminals` or `timeouts` is set; rows after the last end belong to an incomplete episode and are
dropped, as in D4RL's own `sequence_dataset`. Without `next_observations`, each episode's last action has no observation
after it and is dropped as well, so the episode counts as truncated.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cdred.data.formats.common import (
    NO_FINAL_OBSERVATION,
    OnProgress,
    check_components,
    check_step_counts,
    drop_last_action,
    empty_actions,
    with_progress,
)
from cdred.data.formats.hdf5 import matches, open_hdf5, read_array, read_float32
from cdred.data.formats.obs_keys import select_obs_keys
from cdred.errors import UserError
from cdred.types import DemoDataset, Trajectory

ROW_KEYS = ("actions", "rewards", "terminals", "timeouts", "next_observations")

ENDS_HINT = "'terminals' and 'timeouts' are set in the last row of an episode only"


def is_d4rl(path: Path) -> bool:
    """Return True if `path` is an HDF5 file with an array `observations` and at least one other array of the layout."""
    return matches(
        path, lambda file: isinstance(file.get("observations"), h5py.Dataset) and any(key in file for key in ROW_KEYS)
    )


def read_d4rl(path: Path, obs_keys: Sequence[str] | None = None, on_progress: OnProgress | None = None) -> DemoDataset:
    """Read the trajectories in `path`, without validating them; episodes without any complete step are skipped.

    Args:
        path: the HDF5 file.
        obs_keys: None or `observations`, the only observation array of this format.
        on_progress: called after each episode.

    Raises:
        UserError: a damaged file, a missing key, arrays of different lengths, or no episode's end.
    """
    location = str(path)
    with open_hdf5(path) as file:
        select_obs_keys({"observations": file["observations"]}, obs_keys, location)
        _check_rows(file, location)
        for key in ("observations", "actions"):
            if isinstance(file.get(key), h5py.Dataset):
                check_components(file[key].shape, "[N, ...]", key, location)
        terminals, ends = _episode_ends(file, location)
        starts = np.concatenate([[0], ends[:-1]])
        row_ranges = with_progress(list(zip(starts.tolist(), ends.tolist(), strict=True)), on_progress)
        trajectories = [
            _read_episode(file, slice(start, end), bool(terminals[end - 1]), location) for start, end in row_ranges
        ]
        check_step_counts(map(len, trajectories), location, ENDS_HINT)
        empty = sum(not len(trajectory) for trajectory in trajectories)
        provenance = _dropped_provenance(file, len(terminals) - int(ends[-1]), empty)
    kept = tuple(trajectory for trajectory in trajectories if len(trajectory))
    return DemoDataset("", kept, {"format": "D4RL HDF5"} | provenance)


def _dropped_provenance(file: Any, incomplete_rows: int, empty_episodes: int) -> dict[str, object]:
    dropped = {
        "dropped": NO_FINAL_OBSERVATION if "next_observations" not in file else None,
        "rows_after_the_last_end": incomplete_rows,
        "episodes_skipped_as_empty": empty_episodes,
    }
    return {key: value for key, value in dropped.items() if value}


def _check_rows(file: Any, location: str) -> None:
    rows = {key: file[key].shape[:1] for key in ("observations", *ROW_KEYS) if isinstance(file.get(key), h5py.Dataset)}
    if len(set(rows.values())) > 1:
        counts = ", ".join(f"'{key}' {shape[0] if shape else 'none'}" for key, shape in rows.items())
        raise UserError(f"{location}: its arrays differ in their number of rows, expected one number: {counts}.")
    for key in ("rewards", "terminals", "timeouts"):
        shape = file[key].shape if key in rows else ()
        if shape[1:] not in ((), (1,)):
            raise UserError(f"{location}: '{key}' has shape {shape}, expected one number per row, [N] or [N, 1].")


def _episode_ends(file: Any, location: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the termination flag of each row, and the row after each episode's last."""
    terminals = read_array(file, "terminals", location).reshape(-1) != 0
    timeouts = (
        read_array(file, "timeouts", location).reshape(-1) != 0 if "timeouts" in file else np.zeros_like(terminals)
    )
    ends = np.flatnonzero(terminals | timeouts) + 1
    if not len(ends):
        raise UserError(f"{location}: neither 'terminals' nor 'timeouts' is ever set, so episode ends are unknown.")
    return terminals, ends


def _read_episode(file: Any, rows: slice, terminated: bool, location: str) -> Trajectory:
    """Read the episode in these rows; it is empty if dropping the last action leaves no step."""
    has_next, steps = "next_observations" in file, rows.stop - rows.start
    obs = file["observations"]
    trajectory = Trajectory(
        obs=_read_obs(file, rows, location) if has_next else read_float32(obs, "observations", location, rows),
        action=read_float32(file["actions"], "actions", location, rows) if "actions" in file else empty_actions(steps),
        reward=_read_rewards(file, rows, location),
        terminated=terminated,
        truncated=not terminated,
    )
    return trajectory if has_next else drop_last_action(trajectory)


def _read_obs(file: Any, rows: slice, location: str) -> np.ndarray:
    """Read `[T+1, D]` without a second copy of any row in memory."""
    source = file["observations"]
    obs = np.empty((rows.stop - rows.start + 1, *source.shape[1:]), np.float32)
    obs[:-1] = read_float32(source, "observations", location, rows)
    last_row = slice(rows.stop - 1, rows.stop)
    obs[-1:] = read_float32(file["next_observations"], "next_observations", location, last_row)
    return obs


def _read_rewards(file: Any, rows: slice, location: str) -> np.ndarray | None:
    if "rewards" not in file:
        return None
    return read_float32(file["rewards"], "rewards", location, rows).reshape(-1)
