"""The native format: a Minari 0.5 dataset folder, `<folder>/data/metadata.json` beside the episodes.

Datasets are written in HDF5, `<folder>/data/main_data.hdf5`, and read in HDF5, Arrow and Parquet
(`cdred.data.formats.minari_hdf5` and `minari_arrow` describe the layouts). The `minari` package opens what is written
here: by `MinariDataset(folder / "data")`, or by name with `MINARI_DATASETS_PATH` set to the folder's parent. Beyond
Minari's requirements it holds the episode's `seed`, `infos/success` [T+1] (as in Minari the first entry belongs to the
reset; it is false) and, in the metadata, `cdred`: task and provenance. Unknown rewards are NaN at every step. With
camera images the observation space is a Dict of `image` and, unless images are all that is observed, `state`; images
are stored without JPEG's loss.

Written with `minari` itself but read without it, because Minari may construct an environment that a file names to learn
its spaces, and a demonstration file must not decide what code runs.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cdred.data.formats.cameras import IMAGE, STATE, ImageRequest
from cdred.data.formats.common import (
    OnProgress,
    check_all_or_none,
    empty_actions,
    final_flag,
    sanitize_text,
    with_progress,
)
from cdred.data.formats.hdf5 import open_hdf5
from cdred.data.formats.minari_arrow import arrow_episodes
from cdred.data.formats.minari_hdf5 import RawEpisode, hdf5_episodes
from cdred.data.formats.minari_spaces import parse_shapes
from cdred.data.formats.obs_keys import check_same_parts
from cdred.data.formats.obs_selection import Selection, select_obs
from cdred.data.rescale import BOUNDS_KEY
from cdred.errors import UserError
from cdred.files import new_folder
from cdred.types import DemoDataset, Trajectory

DATA_FILE, METADATA_FILE = "main_data.hdf5", "metadata.json"


def find_data_folder(path: Path) -> Path | None:
    """Return the folder of a Minari dataset's files, `path/data` or `path`; None if there is no dataset."""
    return next((folder for folder in (path / "data", path) if (folder / METADATA_FILE).is_file()), None)


def is_minari(path: Path) -> bool:
    """Return True if `path` is a folder with Minari's metadata in it."""
    return path.is_dir() and find_data_folder(path) is not None


def read_minari(
    path: Path,
    obs_keys: Sequence[str] | None = None,
    on_progress: OnProgress | None = None,
    images: ImageRequest | None = None,
) -> DemoDataset:
    """Read the trajectories in the dataset folder `path`, without validating them.

    Args:
        path: the dataset's folder.
        obs_keys: keys of a Dict observation to concatenate, in that order, `a/b` for nested keys and indices for
            members of a Tuple; None for all vectors, sorted by name, whatever the order of the environment.
        on_progress: called after each episode.
        images: camera images to read as well.

    Raises:
        UserError: not a Minari dataset, damaged files, missing keys, or an unknown observation key or camera.
    """
    folder = find_data_folder(path)
    if folder is None:
        raise UserError(f"{path} is not a Minari dataset: no data/{METADATA_FILE} in it.")
    metadata = _read_metadata(folder / METADATA_FILE)
    is_ours = "cdred" in metadata
    with _open_episodes(folder, metadata) as episodes:
        _check_total(metadata, len(episodes), folder)
        first, selected, trajectories = None, {}, []
        for open_episode in with_progress(episodes, on_progress):
            raw = open_episode()
            selection = select_obs(raw.obs_arrays, obs_keys, images, raw.location, is_ours=is_ours)
            if first is None:
                first, selected = selection.parts, selection.provenance(obs_keys, is_ours=is_ours)
            check_same_parts(selection.parts, first, raw.location)
            trajectories.append(_to_trajectory(raw, selection))
    extra = metadata.get("cdred", {})
    provenance = extra["provenance"] if "provenance" in extra else _external_provenance(metadata)
    return DemoDataset(extra.get("task", ""), tuple(trajectories), provenance | selected)


def _read_metadata(path: Path) -> dict[str, Any]:
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(metadata, dict) or not isinstance(metadata.get("cdred", {}), dict):
        raise UserError(f"{path}: expected a JSON object, and a JSON object under its key 'cdred' if that exists.")
    return metadata


def _check_total(metadata: dict[str, Any], found: int, folder: Path) -> None:
    """Check that no episode is missing, as after an interrupted download."""
    total = metadata.get("total_episodes", found)
    if total != found:
        raise UserError(
            f"{folder}: it has {found} episodes, but total_episodes in {METADATA_FILE} is "
            f"{sanitize_text(repr(total))}: fetch the dataset again."
        )


@contextmanager
def _open_episodes(folder: Path, metadata: dict[str, Any]) -> Iterator[list[Any]]:
    kind = metadata.get("data_format", "hdf5")
    shapes = parse_shapes(metadata.get("observation_space", "{}"), f"{folder}, observation_space")
    if kind in ("arrow", "parquet"):
        yield arrow_episodes(folder, kind, shapes)
    elif kind == "hdf5":
        with open_hdf5(folder / DATA_FILE) as file:
            yield hdf5_episodes(file, str(folder / DATA_FILE), shapes)
    else:
        raise UserError(
            f"{folder / METADATA_FILE}: data_format is '{sanitize_text(kind)}'; known are hdf5, arrow and parquet."
        )


def _external_provenance(metadata: dict[str, Any]) -> dict[str, object]:
    """Return the provenance of a dataset that `save_minari` did not write."""
    keys = ("dataset_id", "minari_version", "author", "algorithm_name", "code_permalink", "description", "requirements")
    bounds = _action_bounds(metadata.get("action_space"))
    return {**{key: metadata[key] for key in keys if key in metadata}, **({BOUNDS_KEY: bounds} if bounds else {})}


def _action_bounds(space: object) -> dict[str, list[float]] | None:
    """Return the bounds of a Box action space; None if it is unbounded or another space."""
    try:
        box = json.loads(space) if isinstance(space, str) else {}
        low, high = (np.array(box[key], np.float64).ravel() for key in ("low", "high"))
    except (ValueError, KeyError, TypeError):
        return None
    if not np.isfinite([low, high]).all():
        return None
    return {"low": low.tolist(), "high": high.tolist()}


def _to_trajectory(raw: RawEpisode, selection: Selection) -> Trajectory:
    action = raw.column("actions")
    action = empty_actions(len(_get_column(raw, "terminations"))) if action is None else action
    obs = selection.read_vectors(raw.read_obs, len(action) + 1, raw.location)
    image = selection.read_images(raw.location)
    terminated, truncated = (
        final_flag(_get_column(raw, key) != 0, key, len(action), raw.location)
        for key in ("terminations", "truncations")
    )
    success = _step_success(raw.column("infos/success"), len(action))
    return Trajectory(obs, action, _known_rewards(raw), terminated, truncated, success, raw.seed, image)


def _get_column(raw: RawEpisode, key: str) -> np.ndarray:
    values = raw.column(key)
    if values is None:
        raise UserError(f"{raw.location}: no '{key}' in it.")
    return values


def _known_rewards(raw: RawEpisode) -> np.ndarray | None:
    """Return the rewards; None if they are missing, or NaN at every step, as written for unknown ones."""
    rewards = raw.column("rewards")
    return None if rewards is None or (rewards.size and np.isnan(rewards).all()) else rewards


def _step_success(success: np.ndarray | None, steps: int) -> np.ndarray | None:
    """Return one flag per step, without the entry of the reset."""
    if success is None:
        return None
    flags = success.reshape(-1) != 0
    return flags[1:] if len(flags) == steps + 1 else flags


def save_minari(dataset: DemoDataset, path: str | Path, on_progress: OnProgress | None = None) -> None:
    """Write `dataset` to the new folder `path` atomically.

    Raises:
        UserError: `path` exists and is not an empty folder, or only some episodes have images.
    """
    # Minari appends a relative path to itself.
    path = Path(path).absolute()
    check_all_or_none(dataset, "image", path)
    with new_folder(path) as folder:
        (folder / "data").mkdir()
        _write(dataset, folder / "data", re.sub(r"[^-\w]", "_", path.name), on_progress)


def _write(dataset: DemoDataset, folder: Path, dataset_id: str, on_progress: OnProgress | None) -> None:
    import minari
    from gymnasium.spaces import Box, Dict
    from minari.dataset.minari_storage import MinariStorage

    first = dataset[0]
    state = Box(-np.inf, np.inf, first.obs.shape[1:], np.float32)
    parts = {} if first.obs.shape[1:] == (0,) else {STATE: state}
    image = None if first.image is None else Box(0, 255, first.image.shape[1:], np.uint8)
    storage = MinariStorage.new(
        folder,
        observation_space=state if image is None else Dict({**parts, IMAGE: image}),
        action_space=Box(-1.0, 1.0, first.action.shape[1:], np.float32),
        jpeg_encoding=False,
    )
    extra = {"task": dataset.task, "provenance": dataset.provenance}
    storage.update_metadata({"dataset_id": dataset_id, "minari_version": minari.__version__, "cdred": extra})
    episodes = with_progress(list(enumerate(dataset)), on_progress)
    storage.update_episodes(_to_episode_buffer(index, trajectory) for index, trajectory in episodes)


def _to_episode_buffer(index: int, trajectory: Trajectory) -> Any:
    from minari.data_collector import EpisodeBuffer

    is_last = np.arange(len(trajectory)) == len(trajectory) - 1
    success = trajectory.success
    obs = trajectory.obs
    if trajectory.image is not None:
        obs = {**({STATE: obs} if obs.shape[1] else {}), IMAGE: trajectory.image}
    # Minari requires rewards.
    reward = np.full(len(trajectory), np.nan, np.float32) if trajectory.reward is None else trajectory.reward
    return EpisodeBuffer(
        id=index,
        seed=trajectory.seed,
        observations=obs,  # pyright: ignore[reportArgumentType]
        actions=trajectory.action,  # pyright: ignore[reportArgumentType]
        rewards=reward,  # pyright: ignore[reportArgumentType]
        terminations=is_last & trajectory.terminated,  # pyright: ignore[reportArgumentType]
        truncations=is_last & trajectory.truncated,  # pyright: ignore[reportArgumentType]
        infos=None if success is None else {"success": np.concatenate([[False], success])},
    )
