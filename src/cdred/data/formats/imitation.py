"""Demonstrations in the flat `.npz` layout of the `imitation` library (HumanCompatibleAI), for N trajectories.

    obs       [sum(T_i + 1), *obs]   observations, the final one of each trajectory included
    acts      [sum(T_i), A]          actions in the environment's own units
    indices   [N - 1]                rows of `acts` at which the second and later trajectories begin
    terminal  [N]                    the trajectory's last step ended its episode
    rews      [sum(T_i)]             optional
    infos     [sum(T_i)]             pickled Python objects, never read

(`imitation.data.types.save` up to 0.3; later versions write datasets of Hugging Face.)

A trajectory that is not `terminal` counts as truncated, the others as terminated. The library also sets `terminal`
where a time limit ended the episode, which cannot be distinguished; the provenance says so.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cdred.data.formats.common import (
    OnProgress,
    as_bool,
    as_float32,
    check_components,
    check_step_counts,
    with_progress,
)
from cdred.data.formats.npz_archive import array_names, read_archive
from cdred.data.formats.obs_keys import select_obs_keys
from cdred.errors import UserError
from cdred.types import DemoDataset, Trajectory

REQUIRED = ("obs", "acts", "indices", "terminal")
INDICES_HINT = "'indices' holds the rows of 'acts' at which the second and later trajectories begin"
INFOS_LEFT_OUT = "infos, because they are Python objects, which are never unpickled"
TERMINAL_NOTE = "read as terminated; imitation sets it at time limits, too"


def is_imitation(path: Path) -> bool:
    """Return True if `path` is an archive with the arrays of this layout."""
    return path.is_file() and array_names(path).issuperset(REQUIRED)


def read_imitation(
    path: Path, obs_keys: Sequence[str] | None = None, on_progress: OnProgress | None = None
) -> DemoDataset:
    """Read the trajectories in `path`, without validating them.

    Args:
        path: the file.
        obs_keys: None or `obs`, the only observation array of this format.
        on_progress: called after each trajectory.

    Raises:
        UserError: not an npz file, pickled arrays other than `infos`, or arrays of inconsistent shapes.
    """
    location = str(path)
    arrays, others = read_archive(path, ("obs", "acts", "rews"), ("indices", "terminal"), REQUIRED)
    select_obs_keys({"obs": arrays["obs"]}, obs_keys, location)
    for key in ("obs", "acts"):
        check_components(arrays[key].shape, "[rows, ...]", key, location)
    starts = _trajectory_starts(arrays, location)
    _check_rows(arrays, len(starts), location)
    pieces = [
        np.split(as_float32(arrays[key], key, location), starts[1:] + offset * np.arange(1, len(starts)))
        for key, offset in (("obs", 1), ("acts", 0), ("rews", 0))
        if key in arrays
    ]
    terminal = as_bool(arrays["terminal"], "terminal", location).tolist()
    trajectories = tuple(
        _to_trajectory(arrays, is_terminal)
        for *arrays, is_terminal in with_progress(list(zip(*pieces, terminal, strict=True)), on_progress)
    )
    check_step_counts(map(len, trajectories), location, INDICES_HINT)
    return DemoDataset("", trajectories, {"format": "imitation npz"} | _notes(others, any(terminal)))


def _trajectory_starts(arrays: dict[str, np.ndarray], location: str) -> np.ndarray:
    """Return the first row of each trajectory in `acts`, `[N]`."""
    indices, terminal, rows = arrays["indices"], arrays["terminal"], len(arrays["acts"])
    if terminal.ndim != 1 or indices.shape != (len(terminal) - 1,):
        raise UserError(
            f"{location}: 'indices' has shape {indices.shape} and 'terminal' {terminal.shape}, expected one flag per "
            f"trajectory and one index less: {INDICES_HINT}."
        )
    # An empty list is saved as float64.
    if indices.size and indices.dtype.kind not in "iu":
        raise UserError(f"{location}: 'indices' holds {indices.dtype}, expected integers: {INDICES_HINT}.")
    starts = np.concatenate([[0], indices.astype(np.int64)])
    if (np.diff(starts, append=rows) < 1).any():
        raise UserError(
            f"{location}: 'indices' must increase from 1 to {rows - 1}, the last row of 'acts', got "
            f"{indices.tolist()[:8]}: {INDICES_HINT}."
        )
    return starts


def _check_rows(arrays: dict[str, np.ndarray], trajectories: int, location: str) -> None:
    steps = len(arrays["acts"])
    if len(arrays["obs"]) != steps + trajectories:
        raise UserError(
            f"{location}: 'obs' has {len(arrays['obs'])} rows for {steps} rows of 'acts' in {trajectories} "
            f"trajectories, expected {steps + trajectories}: one observation before each action and the final one of "
            "each trajectory."
        )
    if "rews" in arrays and arrays["rews"].shape != (steps,):
        raise UserError(f"{location}: 'rews' has shape {arrays['rews'].shape}, expected ({steps},), as 'acts'.")


def _to_trajectory(arrays: Sequence[np.ndarray], is_terminal: bool) -> Trajectory:
    obs, action, *reward = arrays
    return Trajectory(
        obs=obs,
        action=action,
        reward=reward[0] if reward else None,
        terminated=is_terminal,
        truncated=not is_terminal,
    )


def _notes(others: Sequence[str], any_terminal: bool) -> dict[str, object]:
    """Return what the provenance says about arrays that were not read, and about `terminal`."""
    notes = {
        "dropped": INFOS_LEFT_OUT if "infos" in others else None,
        "arrays_left_out": [name for name in others if name != "infos"],
        "terminal": TERMINAL_NOTE if any_terminal else None,
    }
    return {key: value for key, value in notes.items() if value}
