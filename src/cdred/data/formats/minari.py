"""The native format: a Minari 0.5 dataset folder, `<folder>/data/metadata.json` beside the episodes.

Written in HDF5, `<folder>/data/main_data.hdf5`; read also in Arrow and Parquet (`cdred.data.formats.minari_hdf5` and
`minari_arrow` say how each keeps its episodes). The `minari` package opens what is written here: by
`MinariDataset(folder / "data")`, or by name with `MINARI_DATASETS_PATH` set to the folder's parent. Beyond what Minari
prescribes it holds the episode's `seed`, `infos/success` [T+1] (its first entry belongs to the reset, as Minari has it,
and is false) and, in the metadata, `cdred`: the task and the provenance.

Written by `minari` itself; read without it, because Minari may construct an environment named in a file to learn its
spaces, and a demonstration file should not decide what code runs.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cdred.data.formats.common import OnProgress, empty_actions, final_flag, one_line, tracked
from cdred.data.formats.hdf5 import opened
from cdred.data.formats.minari_arrow import arrow_episodes
from cdred.data.formats.minari_hdf5 import Stored, hdf5_episodes
from cdred.data.formats.obs_keys import account, joined, selected
from cdred.data.rescale_actions import DECLARED
from cdred.errors import UserError
from cdred.files import new_folder
from cdred.types import DemoDataset, Trajectory

DATA_FILE, METADATA_FILE = "main_data.hdf5", "metadata.json"


def data_folder(path: Path) -> Path | None:
    """Where in `path` a Minari dataset keeps its files: `path/data` or `path`; None if it is no such dataset."""
    return next((folder for folder in (path / "data", path) if (folder / METADATA_FILE).is_file()), None)


def is_minari(path: Path) -> bool:
    """Whether `path` is a folder with Minari's metadata in it."""
    return path.is_dir() and data_folder(path) is not None


def read_minari(
    path: Path, obs_keys: Sequence[str] | None = None, on_progress: OnProgress | None = None
) -> DemoDataset:
    """The trajectories in the dataset folder `path`, not yet validated.

    Args:
        path: the dataset's folder.
        obs_keys: parts of a Dict observation to join, in that order, `a/b` for part b of part a; None for all vectors,
            sorted by name, which is how Gymnasium flattens a Dict of boxes.
        on_progress: told after each episode.

    Raises:
        UserError: not a Minari dataset, damaged files, missing keys, no such part of the observations.
    """
    folder = data_folder(path)
    if folder is None:
        raise UserError(f"{path} is not a Minari dataset: no data/{METADATA_FILE} in it.")
    metadata = _metadata(folder / METADATA_FILE)
    with _episodes(folder, metadata) as episodes:
        stored = (episode() for episode in tracked(episodes, on_progress))
        choices, trajectories = [], []
        for one in stored:
            keys = selected(one.parts, obs_keys, one.where)
            choices.append(account(one.parts, keys))
            trajectories.append(_trajectory(one, keys))
    ours = metadata.get("cdred", {})
    provenance = ours["provenance"] if "provenance" in ours else _foreign(metadata) | (choices[0] if choices else {})
    return DemoDataset(ours.get("task", ""), tuple(trajectories), provenance)


def _metadata(path: Path) -> dict[str, Any]:
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(metadata, dict) or not isinstance(metadata.get("cdred", {}), dict):
        raise UserError(f"{path}: expected a JSON object, and one under 'cdred' if that is there.")
    return metadata


@contextmanager
def _episodes(folder: Path, metadata: dict[str, Any]) -> Iterator[list[Any]]:
    kind = metadata.get("data_format", "hdf5")
    if kind in ("arrow", "parquet"):
        yield arrow_episodes(folder, kind, metadata.get("observation_space", "{}"))
    elif kind == "hdf5":
        with opened(folder / DATA_FILE) as file:
            yield hdf5_episodes(file, str(folder / DATA_FILE))
    else:
        raise UserError(
            f"{folder / METADATA_FILE}: data_format is '{one_line(kind)}'; known are hdf5, arrow and parquet."
        )


def _foreign(metadata: dict[str, Any]) -> dict[str, object]:
    keys = ("dataset_id", "minari_version", "author", "algorithm_name", "code_permalink", "description", "requirements")
    bounds = _action_bounds(metadata.get("action_space"))
    return {**{key: metadata[key] for key in keys if key in metadata}, **({DECLARED: bounds} if bounds else {})}


def _action_bounds(space: object) -> dict[str, list[float]] | None:
    """The bounds of a Box action space; None where it is unbounded, [-1, 1] already, or something else."""
    try:
        box = json.loads(space) if isinstance(space, str) else {}
        low, high = (np.array(box[key], np.float64).ravel() for key in ("low", "high"))
    except (ValueError, KeyError, TypeError):
        return None
    if not np.isfinite([low, high]).all() or ((low == -1).all() and (high == 1).all()):
        return None
    return {"low": low.tolist(), "high": high.tolist()}


def _trajectory(one: Stored, keys: Sequence[str]) -> Trajectory:
    obs = joined(one.parts, keys, one.read, one.where)
    rewards = _needed(one, "rewards")
    action = one.column("actions")
    action = empty_actions(len(rewards)) if action is None else action
    flags = (final_flag(_needed(one, key) != 0, key, len(action), one.where) for key in ("terminations", "truncations"))
    terminated, truncated = flags
    success = one.column("infos/success")
    return Trajectory(obs, action, rewards, terminated, truncated, _per_decision(success, len(action)), one.seed)


def _needed(one: Stored, key: str) -> np.ndarray:
    found = one.column(key)
    if found is None:
        raise UserError(f"{one.where}: no '{key}' in it.")
    return found


def _per_decision(success: np.ndarray | None, steps: int) -> np.ndarray | None:
    if success is None:
        return None
    flags = success.reshape(-1) != 0
    return flags[1:] if len(flags) == steps + 1 else flags


def save_minari(dataset: DemoDataset, path: str | Path, on_progress: OnProgress | None = None) -> None:
    """Write `dataset` to a new folder `path`, in one piece or not at all.

    Raises:
        UserError: `path` exists and is not an empty folder.
    """
    # Minari appends a relative path to itself.
    path = Path(path).absolute()
    with new_folder(path) as folder:
        (folder / "data").mkdir()
        _write(dataset, folder / "data", _dataset_id(path.name), on_progress)


def _dataset_id(name: str) -> str:
    return re.sub(r"[^-\w]", "_", name)


def _write(dataset: DemoDataset, folder: Path, dataset_id: str, on_progress: OnProgress | None) -> None:
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
    storage.update_episodes(_buffer(index, one) for index, one in tracked(list(enumerate(dataset)), on_progress))


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
