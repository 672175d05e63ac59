"""Demonstrations in one `.npz` file: NumPy arrays, no pickle.

Keys, for N episodes (`T` steps each; `*obs` is the shape of one observation):

    obs         [N, T+1, *obs]   observations, the final one included
    action      [N, T, A]        in [-1, 1]; missing where only observations were recorded
    reward      [N, T]           optional; zeros where missing
    success     [N, T]           optional; goal reached, per step
    terminated  [N]              optional, default false: the episode reached a terminal state
    truncated   [N]              optional, default "not terminated": a time limit ended the episode
    seed        [N]              optional; episode seed, -1 where unknown
    task        scalar string    optional, e.g. metaworld/drawer-close
    provenance  scalar string    optional; a JSON object

With the additional key `lengths [N]` (steps of each episode), episodes may differ in length and the first four are
concatenated instead of stacked: `obs [sum(T_i + 1), *obs]`, the others `[sum(T_i), ...]`. `save_npz` writes this form.

Numbers are converted to float32 chunk by chunk while reading, so that no second copy of them is in memory.
"""

import json
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from cdred.data.formats.common import (
    OnProgress,
    as_bool,
    as_float32,
    empty_actions,
    get_required,
    summarize_exception,
    with_progress,
)
from cdred.data.formats.obs_keys import select_obs_keys
from cdred.data.formats.safety import check_expanded_size
from cdred.errors import UserError
from cdred.files import new_file
from cdred.types import DemoDataset, Trajectory

STEP_KEYS = ("action", "reward", "success")
FLOAT_KEYS = ("obs", "action", "reward")
OTHER_KEYS = ("success", "lengths", "terminated", "truncated", "seed", "task", "provenance")
CHUNK_BYTES = 1 << 22
# Version 3.0 is for record types with non-Latin field names, which this format does not use.
HEADER_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class Header(NamedTuple):
    """Header of an array in an archive."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype

    @property
    def size(self) -> int:
        """Declared size of the content in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def is_npz(path: Path) -> bool:
    """Return True if `path` is a zip archive, or a file named `*.npz`."""
    return path.is_file() and (path.suffix == ".npz" or zipfile.is_zipfile(path))


def read_npz(path: Path, obs_keys: Sequence[str] | None = None, on_progress: OnProgress | None = None) -> DemoDataset:
    """Read the trajectories in `path`, without validating them.

    Args:
        path: the file.
        obs_keys: None or `obs`, the only observation array of this format.
        on_progress: called after each episode.

    Raises:
        UserError: not an npz file, pickled content, a missing key, or arrays of inconsistent shapes.
    """
    arrays = _load_arrays(path)
    location = str(path)
    select_obs_keys({"obs": arrays["obs"]}, obs_keys, location)
    episodes = _split_by_length(arrays, location) if "lengths" in arrays else _unstack(arrays, location)
    enumerated = with_progress(list(enumerate(episodes)), on_progress)
    trajectories = tuple(_to_trajectory(arrays, index, episode, location) for index, episode in enumerated)
    return DemoDataset(_get_text(arrays, "task"), trajectories, _parse_provenance(arrays, location))


def _load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Load the arrays that belong to this format; others are not read."""
    try:
        with zipfile.ZipFile(path) as archive:
            # The sizes in the archive's directory bound what is unpacked.
            declared = sum(member.file_size for member in archive.infolist())
            check_expanded_size(declared, path.stat().st_size, str(path))
            names = {name.removesuffix(".npy") for name in archive.namelist()}
            get_required(dict.fromkeys(names), "obs", str(path))
            known = (key for key in (*FLOAT_KEYS, *OTHER_KEYS) if key in names)
            return {key: read_member(archive, key, as_float32=key in FLOAT_KEYS) for key in known}
    except UserError:
        raise
    except Exception as error:  # zip, decompression and header parsing raise many types
        raise UserError(
            f"{path} cannot be read as npz without pickle ({summarize_exception(error)}): "
            "save plain numeric arrays with np.savez, none of dtype object."
        ) from error


def read_member(archive: zipfile.ZipFile, key: str, *, as_float32: bool) -> np.ndarray:
    """Read the array `key`, as float32 if `as_float32` and it is numeric.

    Raises:
        ValueError: it is pickled, truncated or not an array.
    """
    name = f"{key}.npy"
    with archive.open(name) as stream:
        header = _read_header(stream, name)
        if header.dtype.hasobject:
            raise ValueError(f"{name} holds Python objects")
        # Checked before it is allocated: the header of a short file may declare any shape.
        if header.size > archive.getinfo(name).file_size:
            raise ValueError(f"{name} is truncated: it declares {math.prod(header.shape)} numbers")
        if as_float32 and not header.fortran_order and header.dtype.kind in "fiub":
            return _read_float32(stream, header, name)
    with archive.open(name) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _read_header(stream: IO[bytes], name: str) -> Header:
    version = np.lib.format.read_magic(stream)
    if version not in HEADER_READERS:
        raise ValueError(f"{name} is in version {version} of NumPy's format, expected 1.0 or 2.0")
    return Header(*HEADER_READERS[version](stream))


def _read_float32(stream: IO[bytes], header: Header, name: str) -> np.ndarray:
    shape, _, dtype = header
    values = np.empty(shape, np.float32)
    flat, step = values.reshape(-1), max(CHUNK_BYTES // dtype.itemsize, 1)
    for start in range(0, flat.size, step):
        count = min(step, flat.size - start)
        chunk = np.frombuffer(_read_exactly(stream, count * dtype.itemsize, name, shape), dtype)
        with np.errstate(over="ignore"):
            flat[start : start + count] = chunk
    return values


def _read_exactly(stream: IO[bytes], size: int, name: str, shape: tuple[int, ...]) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise ValueError(f"{name} is truncated: it declares {math.prod(shape)} numbers")
    return data


def _unstack(arrays: dict[str, np.ndarray], location: str) -> list[dict[str, np.ndarray]]:
    keys = [key for key in ("obs", *STEP_KEYS) if key in arrays]
    counts = {key: arrays[key].shape[0] if arrays[key].ndim >= 2 else None for key in keys}
    if None in counts.values() or len(set(counts.values())) != 1:
        shapes = {key: arrays[key].shape for key in keys}
        raise UserError(
            f"{location}: {shapes}: expected [N, T, ...] with one N for all, or concatenated with 'lengths'."
        )
    return [{key: arrays[key][index] for key in keys} for index in range(len(arrays["obs"]))]


def _split_by_length(arrays: dict[str, np.ndarray], location: str) -> list[dict[str, np.ndarray]]:
    lengths = arrays["lengths"]
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or (lengths < 1).any():
        raise UserError(f"{location}: 'lengths' must be a vector of positive integers, got {lengths.dtype}: {lengths}.")
    pieces = {}
    for key in ("obs", *STEP_KEYS):
        if key in arrays:
            ends = np.cumsum(lengths + (key == "obs"))
            rows = arrays[key].shape[0] if arrays[key].ndim else 0
            if rows != (ends[-1] if len(ends) else 0):
                raise UserError(f"{location}: '{key}' has {rows} rows, but 'lengths' requires {ends[-1:]}.")
            pieces[key] = np.split(arrays[key], ends[:-1])
    return [{key: pieces[key][index] for key in pieces} for index in range(len(lengths))]


def _to_trajectory(
    arrays: dict[str, np.ndarray], index: int, episode: dict[str, np.ndarray], location: str
) -> Trajectory:
    location = f"{location}, episode {index}"
    steps = len(episode["obs"]) - 1
    action = as_float32(episode["action"], "action", location) if "action" in episode else empty_actions(steps)
    reward = episode.get("reward", np.zeros(len(action)))
    terminated = bool(_get_episode_value(arrays, "terminated", index, False, location))
    seed = int(_get_episode_value(arrays, "seed", index, -1, location))
    return Trajectory(
        obs=as_float32(episode["obs"], "obs", location),
        action=action,
        reward=as_float32(reward, "reward", location),
        terminated=terminated,
        truncated=bool(_get_episode_value(arrays, "truncated", index, not terminated, location)),
        success=as_bool(episode["success"], "success", location) if "success" in episode else None,
        seed=seed if seed >= 0 else None,
    )


def _get_episode_value(arrays: dict[str, np.ndarray], key: str, index: int, default: int, location: str) -> int:
    values = arrays.get(key)
    if values is None:
        return default
    if values.ndim != 1 or index >= len(values) or values.dtype.kind not in "biuf":
        raise UserError(
            f"{location}: '{key}' has shape {values.shape} ({values.dtype}), expected one number per episode."
        )
    return int(values[index])


def _get_text(arrays: dict[str, np.ndarray], key: str) -> str:
    return str(arrays[key][()]) if key in arrays else ""


def _parse_provenance(arrays: dict[str, np.ndarray], location: str) -> dict[str, object]:
    try:
        provenance = json.loads(_get_text(arrays, "provenance") or "{}")
        return provenance if isinstance(provenance, dict) else {"note": provenance}
    except json.JSONDecodeError as error:
        raise UserError(f"{location}: 'provenance' is not JSON ({error}).") from error


def save_npz(dataset: DemoDataset, path: str | Path, on_progress: OnProgress | None = None) -> None:
    """Write `dataset` to the new file `path` atomically.

    Raises:
        UserError: `path` exists, or success is recorded for some episodes only.
    """
    path = Path(path)
    arrays = _to_arrays(dataset, path)
    with new_file(path) as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]
    if on_progress:
        on_progress(len(dataset), len(dataset))


def _to_arrays(dataset: DemoDataset, path: Path) -> dict[str, np.ndarray]:
    success = [trajectory.success for trajectory in dataset if trajectory.success is not None]
    if len(success) not in (0, len(dataset)):
        raise UserError(f"{path}: {len(success)} of {len(dataset)} episodes have 'success'; give it for all or none.")
    return {
        "obs": np.concatenate([trajectory.obs for trajectory in dataset]),
        **({"action": np.concatenate([trajectory.action for trajectory in dataset])} if dataset.has_actions else {}),
        "reward": np.concatenate([trajectory.reward for trajectory in dataset]),
        **({"success": np.concatenate(success)} if success else {}),
        "lengths": np.array([len(trajectory) for trajectory in dataset]),
        "terminated": np.array([trajectory.terminated for trajectory in dataset]),
        "truncated": np.array([trajectory.truncated for trajectory in dataset]),
        "seed": np.array([-1 if trajectory.seed is None else trajectory.seed for trajectory in dataset]),
        "task": np.array(dataset.task),
        "provenance": np.array(json.dumps(dataset.provenance)),
    }
