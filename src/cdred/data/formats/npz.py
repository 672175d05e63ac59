"""Demonstrations in one `.npz` file: NumPy arrays, no pickle.

Keys, for N episodes (`T` steps each; `*obs` is the shape of one observation):

    obs         [N, T+1, *obs]   observations, the final one included
    action      [N, T, A]        in [-1, 1]; missing where only observations were recorded
    reward      [N, T]           optional; zeros where missing
    success     [N, T]           optional; goal reached, per step
    terminated  [N]              optional, default false: the world ended the episode
    truncated   [N]              optional, default "not terminated": the clock ended it
    seed        [N]              optional; episode seed, -1 where unknown
    task        scalar string    optional, e.g. metaworld/drawer-close
    provenance  scalar string    optional; a JSON object

With one more key, `lengths [N]` (steps of each episode), episodes may differ in length and the first four are
concatenated instead of stacked: `obs [sum(T_i + 1), *obs]`, the others `[sum(T_i), ...]`. This is what `save_npz`
writes.
"""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cdred.data.formats.common import OnProgress, as_bool, as_float32, brief, empty_actions, required, tracked
from cdred.data.formats.npy import read_member
from cdred.data.formats.obs_keys import selected
from cdred.data.formats.safety import check_expanded_size
from cdred.errors import UserError
from cdred.files import new_file
from cdred.types import DemoDataset, Trajectory

PER_DECISION = ("action", "reward", "success")
NUMBERS = ("obs", "action", "reward")
OTHERS = ("success", "lengths", "terminated", "truncated", "seed", "task", "provenance")


def is_npz(path: Path) -> bool:
    """Whether `path` is a zip archive, or a file that is called `.npz`."""
    return path.is_file() and (path.suffix == ".npz" or zipfile.is_zipfile(path))


def read_npz(path: Path, obs_keys: Sequence[str] | None = None, on_progress: OnProgress | None = None) -> DemoDataset:
    """The trajectories in `path`, not yet validated.

    Args:
        path: the file.
        obs_keys: may only be `obs`, the one array there is.
        on_progress: told after each episode.

    Raises:
        UserError: not an npz file, pickled content, a missing key, or arrays that do not fit each other.
    """
    arrays = _load(path)
    where = str(path)
    selected({"obs": arrays["obs"]}, obs_keys, where)
    episodes = _split(arrays, where) if "lengths" in arrays else _stacked(arrays, where)
    numbered = tracked(list(enumerate(episodes)), on_progress)
    trajectories = tuple(_trajectory(arrays, index, episode, where) for index, episode in numbered)
    return DemoDataset(_text(arrays, "task"), trajectories, _provenance(arrays, where))


def _load(path: Path) -> dict[str, np.ndarray]:
    """The arrays that this format knows of; others stay in the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            _refuse_bomb(archive, path)
            names = {name.removesuffix(".npy") for name in archive.namelist()}
            required(dict.fromkeys(names), "obs", str(path))
            known = (key for key in (*NUMBERS, *OTHERS) if key in names)
            return {key: read_member(archive, key, as_float32=key in NUMBERS) for key in known}
    except UserError:
        raise
    except Exception as error:  # of which the zip, the compression and the header have many
        raise UserError(
            f"{path} cannot be read as npz without pickle ({brief(error)}): "
            "save plain numeric arrays with np.savez, none of dtype object."
        ) from error


def _refuse_bomb(archive: zipfile.ZipFile, path: Path) -> None:
    """By the sizes in the archive's directory, beyond which nothing is unpacked."""
    check_expanded_size(sum(member.file_size for member in archive.infolist()), path.stat().st_size, str(path))


def _stacked(arrays: dict[str, np.ndarray], where: str) -> list[dict[str, np.ndarray]]:
    keys = [key for key in ("obs", *PER_DECISION) if key in arrays]
    counts = {key: arrays[key].shape[0] if arrays[key].ndim >= 2 else None for key in keys}
    if None in counts.values() or len(set(counts.values())) != 1:
        shapes = {key: arrays[key].shape for key in keys}
        raise UserError(f"{where}: {shapes}: expected [N, T, ...] with one N for all, or concatenated with 'lengths'.")
    return [{key: arrays[key][index] for key in keys} for index in range(len(arrays["obs"]))]


def _split(arrays: dict[str, np.ndarray], where: str) -> list[dict[str, np.ndarray]]:
    lengths = arrays["lengths"]
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or (lengths < 1).any():
        raise UserError(f"{where}: 'lengths' must be a vector of positive integers, got {lengths.dtype}: {lengths}.")
    pieces = {}
    for key in ("obs", *PER_DECISION):
        if key in arrays:
            ends = np.cumsum(lengths + (key == "obs"))
            rows = arrays[key].shape[0] if arrays[key].ndim else 0
            if rows != (ends[-1] if len(ends) else 0):
                raise UserError(f"{where}: '{key}' has {rows} rows, but 'lengths' asks for {ends[-1:]}.")
            pieces[key] = np.split(arrays[key], ends[:-1])
    return [{key: pieces[key][index] for key in pieces} for index in range(len(lengths))]


def _trajectory(arrays: dict[str, np.ndarray], index: int, episode: dict[str, np.ndarray], where: str) -> Trajectory:
    where = f"{where}, episode {index}"
    steps = len(episode["obs"]) - 1
    action = as_float32(episode["action"], "action", where) if "action" in episode else empty_actions(steps)
    reward = episode.get("reward", np.zeros(len(action)))
    terminated = bool(_of_episode(arrays, "terminated", index, False, where))
    seed = int(_of_episode(arrays, "seed", index, -1, where))
    return Trajectory(
        obs=as_float32(episode["obs"], "obs", where),
        action=action,
        reward=as_float32(reward, "reward", where),
        terminated=terminated,
        truncated=bool(_of_episode(arrays, "truncated", index, not terminated, where)),
        success=as_bool(episode["success"], "success", where) if "success" in episode else None,
        seed=seed if seed >= 0 else None,
    )


def _of_episode(arrays: dict[str, np.ndarray], key: str, index: int, default: int, where: str) -> int:
    values = arrays.get(key)
    if values is None:
        return default
    if values.ndim != 1 or index >= len(values) or values.dtype.kind not in "biuf":
        raise UserError(f"{where}: '{key}' has shape {values.shape} ({values.dtype}), expected one number an episode.")
    return int(values[index])


def _text(arrays: dict[str, np.ndarray], key: str) -> str:
    return str(arrays[key][()]) if key in arrays else ""


def _provenance(arrays: dict[str, np.ndarray], where: str) -> dict[str, object]:
    try:
        provenance = json.loads(_text(arrays, "provenance") or "{}")
        return provenance if isinstance(provenance, dict) else {"note": provenance}
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: 'provenance' is not JSON ({error}).") from error


def save_npz(dataset: DemoDataset, path: str | Path, on_progress: OnProgress | None = None) -> None:
    """Write `dataset` to a new file `path`, in one piece or not at all.

    Raises:
        UserError: there is a file already, or only some episodes say whether they reached the goal.
    """
    path = Path(path)
    arrays = _concatenated(dataset, path)
    with new_file(path) as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]
    if on_progress:
        on_progress(len(dataset), len(dataset))


def _concatenated(dataset: DemoDataset, path: Path) -> dict[str, np.ndarray]:
    known = [one.success for one in dataset if one.success is not None]
    if len(known) not in (0, len(dataset)):
        raise UserError(f"{path}: {len(known)} of {len(dataset)} episodes have 'success'; give it for all or none.")
    return {
        "obs": np.concatenate([one.obs for one in dataset]),
        **({"action": np.concatenate([one.action for one in dataset])} if dataset.has_actions else {}),
        "reward": np.concatenate([one.reward for one in dataset]),
        **({"success": np.concatenate(known)} if known else {}),
        "lengths": np.array([len(one) for one in dataset]),
        "terminated": np.array([one.terminated for one in dataset]),
        "truncated": np.array([one.truncated for one in dataset]),
        "seed": np.array([-1 if one.seed is None else one.seed for one in dataset]),
        "task": np.array(dataset.task),
        "provenance": np.array(json.dumps(dataset.provenance)),
    }
