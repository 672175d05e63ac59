"""The native format: a Minari 0.5 dataset folder, `<folder>/data/{main_data.hdf5, metadata.json}`.

The `minari` package opens it: by `MinariDataset(folder / "data")`, or by name with `MINARI_DATASETS_PATH` set to the
folder's parent. Beyond what Minari prescribes it holds the episode's `seed`, `infos/success` [T+1] (its first entry
belongs to the reset, as Minari has it, and is false) and, in the metadata, `cdred`: the task and the provenance.

Written by `minari` itself; read with h5py, because Minari may construct an environment named in a file to learn its
spaces, and a demonstration file should not decide what code runs.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cdred.data.arrays import as_bool, as_float32, required
from cdred.errors import UserError
from cdred.types import DemoDataset, Trajectory

DATA_FILE, METADATA_FILE = "main_data.hdf5", "metadata.json"


def data_folder(path: Path) -> Path | None:
    """Where in `path` a Minari dataset keeps its files: `path/data` or `path`; None if it is no such dataset."""
    return next((folder for folder in (path / "data", path) if (folder / METADATA_FILE).is_file()), None)


def read_minari(path: Path) -> DemoDataset:
    """The trajectories in the dataset folder `path`, not yet validated.

    Raises:
        UserError: not a Minari dataset in HDF5, damaged files, missing keys, or observations in several parts.
    """
    folder = data_folder(path)
    if folder is None:
        raise UserError(f"{path} is not a Minari dataset: no data/{METADATA_FILE} in it.")
    metadata = _metadata(folder / METADATA_FILE)
    file_path = folder / DATA_FILE
    try:
        with h5py.File(file_path, "r") as file:
            trajectories = tuple(_trajectory(group, f"{file_path}, {name}") for name, group in _episodes(file))
    except OSError as error:
        raise UserError(f"{file_path} cannot be read as HDF5: {error}") from error
    ours = metadata.get("cdred", {})
    return DemoDataset(ours.get("task", ""), trajectories, ours.get("provenance") or _foreign(metadata))


def _metadata(path: Path) -> dict[str, Any]:
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    kind = metadata.get("data_format", "hdf5")
    if kind != "hdf5":
        raise UserError(f"{path}: data_format is '{kind}'; only 'hdf5' can be read: save the dataset again as hdf5.")
    return metadata


def _foreign(metadata: dict[str, Any]) -> dict[str, object]:
    keys = ("dataset_id", "minari_version", "author", "algorithm_name", "code_permalink", "description", "requirements")
    return {key: metadata[key] for key in keys if key in metadata}


def _episodes(file: h5py.File) -> list[tuple[str, h5py.Group]]:
    named = [(name, group) for name, group in file.items() if re.fullmatch(r"episode_\d+", name)]
    return sorted(named, key=lambda pair: int(pair[0].removeprefix("episode_")))


def _trajectory(group: h5py.Group, where: str) -> Trajectory:
    action = as_float32(_leaf(group, "actions", where), "actions", where)
    terminated, truncated = (_last(group, key, len(action), where) for key in ("terminations", "truncations"))
    seed = group.attrs.get("seed")
    return Trajectory(
        obs=as_float32(_leaf(group, "observations", where), "observations", where),
        action=action,
        reward=as_float32(_leaf(group, "rewards", where), "rewards", where),
        terminated=terminated,
        truncated=truncated,
        success=_success(group, len(action), where),
        seed=None if seed is None else int(seed),
    )


def _leaf(group: Mapping[str, Any], key: str, where: str) -> np.ndarray:
    found = required(group, key, where)
    if not isinstance(found, h5py.Dataset):
        raise UserError(f"{where}: '{key}' is in several parts; only one array can be used: flatten it first.")
    return found[()]


def _last(group: h5py.Group, key: str, steps: int, where: str) -> bool:
    flags = as_bool(_leaf(group, key, where), key, where)
    if flags.shape != (steps,) or flags[:-1].any():
        raise UserError(f"{where}: '{key}' must be one flag an action ({steps}), set at the last one at most.")
    return bool(flags[-1:].any())


def _success(group: h5py.Group, steps: int, where: str) -> np.ndarray | None:
    infos = group.get("infos")
    if not isinstance(infos, h5py.Group) or "success" not in infos:
        return None
    flags = as_bool(_leaf(infos, "success", where), "infos/success", where)
    return flags[1:] if len(flags) == steps + 1 else flags


def save_minari(dataset: DemoDataset, path: str | Path) -> None:
    """Write `dataset` to a new folder `path`, in one piece or not at all.

    Raises:
        UserError: `path` exists and is not an empty folder.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} exists already: remove it, or save elsewhere.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        temporary.chmod(0o755)
        (temporary / "data").mkdir()
        _write(dataset, temporary / "data", _dataset_id(path.name))
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _dataset_id(name: str) -> str:
    return re.sub(r"[^-\w]", "_", name)


def _write(dataset: DemoDataset, folder: Path, dataset_id: str) -> None:
    import minari
    from gymnasium.spaces import Box
    from minari.dataset.minari_storage import MinariStorage

    first = dataset[0]
    storage = MinariStorage.new(
        folder,
        observation_space=Box(-np.inf, np.inf, first.obs.shape[1:], np.float32),
        action_space=Box(-1.0, 1.0, first.action.shape[1:], np.float32),
    )
    ours = {"task": dataset.task, "provenance": dataset.provenance}
    storage.update_metadata({"dataset_id": dataset_id, "minari_version": minari.__version__, "cdred": ours})
    storage.update_episodes([_buffer(index, one) for index, one in enumerate(dataset)])


def _buffer(index: int, one: Trajectory) -> Any:
    from minari.data_collector import EpisodeBuffer

    ends = np.arange(len(one)) == len(one) - 1
    return EpisodeBuffer(
        id=index,
        seed=one.seed,
        observations=one.obs,  # pyright: ignore[reportArgumentType]
        actions=one.action,  # pyright: ignore[reportArgumentType]
        rewards=one.reward,  # pyright: ignore[reportArgumentType]
        terminations=ends & one.terminated,  # pyright: ignore[reportArgumentType]
        truncations=ends & one.truncated,  # pyright: ignore[reportArgumentType]
        infos=None if one.success is None else {"success": np.concatenate([[False], one.success])},
    )
