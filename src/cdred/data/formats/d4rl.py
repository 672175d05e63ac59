"""Demonstrations in D4RL's HDF5 layout: episodes one after the other in flat arrays.

    observations  [N, D]      actions  [N, A]      rewards  [N]
    terminals     [N]         the world ended the episode with this row
    timeouts      [N]         the clock did; missing in the oldest files
    next_observations [N, D]  optional: what came of each action
    infos/..., metadata/...   not used

(https://github.com/Farama-Foundation/D4RL, "Using d4rl".) `rewards`, `terminals` and `timeouts` may be [N, 1].

Episodes end where `terminals` or `timeouts` is set; rows after the last end belong to an episode that is not whole and
are left out, as D4RL's own `sequence_dataset` does. Without `next_observations`, each episode's last action has no
observation after it and is left out as well, and with it the knowledge that the world ended.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cdred.data.formats.common import NO_FINAL_OBSERVATION, OnProgress, drop_last_action, empty_actions, tracked
from cdred.data.formats.hdf5 import holds, opened, read, read_array
from cdred.data.formats.obs_keys import selected
from cdred.errors import UserError
from cdred.types import DemoDataset, Trajectory

PER_ROW = ("actions", "rewards", "terminals", "timeouts", "next_observations")


def is_d4rl(path: Path) -> bool:
    """Whether `path` is an HDF5 file with an array `observations` beside one of the others."""
    return holds(
        path, lambda file: isinstance(file.get("observations"), h5py.Dataset) and any(key in file for key in PER_ROW)
    )


def read_d4rl(path: Path, obs_keys: Sequence[str] | None = None, on_progress: OnProgress | None = None) -> DemoDataset:
    """The trajectories in `path`, not yet validated; episodes of which no step is left are skipped.

    Args:
        path: the HDF5 file.
        obs_keys: may only be `observations`, the one array there is.
        on_progress: told after each episode.

    Raises:
        UserError: a damaged file, a missing key, arrays of different lengths, or no episode's end.
    """
    where = str(path)
    with opened(path) as file:
        selected({"observations": file["observations"]}, obs_keys, where)
        _check_rows(file, where)
        terminals, ends = _ends(file, where)
        starts = np.concatenate([[0], ends[:-1]])
        pieces = tracked(list(zip(starts.tolist(), ends.tolist(), strict=True)), on_progress)
        found = [_trajectory(file, slice(*rows), bool(terminals[rows[1] - 1]), where) for rows in pieces]
        notes = _notes(file, len(terminals) - int(ends[-1]), sum(not len(one) for one in found))
    return DemoDataset("", tuple(one for one in found if len(one)), {"format": "D4RL HDF5"} | notes)


def _notes(file: Any, unfinished: int, empty: int) -> dict[str, object]:
    notes = {
        "dropped": NO_FINAL_OBSERVATION if "next_observations" not in file else None,
        "rows_after_the_last_end": unfinished,
        "episodes_skipped_as_empty": empty,
    }
    return {key: value for key, value in notes.items() if value}


def _check_rows(file: Any, where: str) -> None:
    rows = {key: file[key].shape[:1] for key in ("observations", *PER_ROW) if isinstance(file.get(key), h5py.Dataset)}
    if len(set(rows.values())) > 1:
        counts = ", ".join(f"'{key}' {shape[0] if shape else 'none'}" for key, shape in rows.items())
        raise UserError(f"{where}: its arrays differ in their number of rows, expected one number: {counts}.")


def _ends(file: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Which rows the world ended with, and the row after each episode's last."""
    terminals = read_array(file, "terminals", where).reshape(-1) != 0
    timeouts = read_array(file, "timeouts", where).reshape(-1) != 0 if "timeouts" in file else np.zeros_like(terminals)
    ends = np.flatnonzero(terminals | timeouts) + 1
    if not len(ends):
        raise UserError(
            f"{where}: neither 'terminals' nor 'timeouts' is ever set, so its episodes cannot be told apart."
        )
    return terminals, ends


def _trajectory(file: Any, rows: slice, terminated: bool, where: str) -> Trajectory:
    """The episode in these rows; of no step where dropping the last action leaves none."""
    has_next, steps = "next_observations" in file, rows.stop - rows.start
    one = Trajectory(
        obs=_observations(file, rows, where) if has_next else read(file["observations"], "observations", where, rows),
        action=read(file["actions"], "actions", where, rows) if "actions" in file else empty_actions(steps),
        reward=_rewards(file, rows, where),
        terminated=terminated,
        truncated=not terminated,
    )
    return one if has_next else drop_last_action(one)


def _observations(file: Any, rows: slice, where: str) -> np.ndarray:
    """`[T+1, D]`, each row in memory once."""
    source = file["observations"]
    obs = np.empty((rows.stop - rows.start + 1, *source.shape[1:]), np.float32)
    obs[:-1] = read(source, "observations", where, rows)
    obs[-1:] = read(file["next_observations"], "next_observations", where, slice(rows.stop - 1, rows.stop))
    return obs


def _rewards(file: Any, rows: slice, where: str) -> np.ndarray:
    if "rewards" not in file:
        return np.zeros(rows.stop - rows.start, np.float32)
    return read(file["rewards"], "rewards", where, rows).reshape(-1)
