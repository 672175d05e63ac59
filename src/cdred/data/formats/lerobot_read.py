"""Reader of LeRobotDataset folders, v3.0, v2.1 and v2.0, with PyArrow and without PyTorch.

    meta/info.json           codebase_version, fps, features: {name: {dtype, shape, names}}, total_episodes, ...
    data/chunk-*/*.parquet   one row per frame: all features but videos, `episode_index`, `frame_index`, ...;
                             v3: files of many episodes; v2: `episode_<i>.parquet`, one each
    meta/episodes/chunk-*/*.parquet, meta/tasks.parquet   v3: one row per episode, one row per task
    meta/episodes.jsonl, meta/tasks.jsonl                 v2
    videos/                                               read if images are asked for

Frames are ordered by `frame_index`, whatever the order of the rows, and must be as many as the metadata declare
(`cdred.data.formats.lerobot_frames`). `cdred.data.formats.lerobot_cameras` describes how images are stored.

(https://huggingface.co/docs/lerobot/lerobot-dataset-v3, and `lerobot.datasets` 0.4.)

A frame is an observation and the action taken there; there is no observation after the last action, which is therefore
dropped, unless the dataset was written by `cdred.data.formats.lerobot_write`: that stores the final observation and how
the episode ended in the episodes' metadata. In other datasets `next.done` marks the end of every episode whatever its
cause, so every episode counts as truncated. Actions are in the robot's own units; `cdred.data.rescale` maps them to
[-1, 1].
"""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cdred.data.formats.arrow import read_columns_into, read_rows
from cdred.data.formats.cameras import (
    CAMERAS_KEY,
    IMAGE,
    ImageRequest,
    allocate_images,
    decode_image,
    images_provenance,
    requested_camera,
    target_size,
)
from cdred.data.formats.common import (
    NO_FINAL_OBSERVATION,
    OnProgress,
    check_step_counts,
    drop_last_action,
    empty_actions,
    sanitize_text,
    with_progress,
)
from cdred.data.formats.lerobot_cameras import (
    Camera,
    episode_columns,
    find_cameras,
    read_image_column,
    read_videos,
)
from cdred.data.formats.lerobot_frames import (
    EpisodeFrames,
    check_metadata,
    locate_frames,
    read_episode_metadata,
    read_json_lines,
)
from cdred.data.formats.obs_keys import format_shapes, obs_provenance, select_obs_keys
from cdred.data.formats.safety import check_expanded_size, check_relative_path
from cdred.errors import UserError
from cdred.types import DemoDataset, Trajectory

INFO, CDRED_META = Path("meta/info.json"), Path("meta/cdred.json")
# Columns of `meta/episodes` that `lerobot_write` adds and LeRobot ignores: information that frames cannot hold.
FINAL, TERMINATED, TRUNCATED, SEED = "cdred/final_observation", "cdred/terminated", "cdred/truncated", "cdred/seed"
FINAL_IMAGE = "cdred/final_image"
FINAL_FRAME = (FINAL, TERMINATED, TRUNCATED, SEED)
# The feature that `lerobot_write` stores images in; LeRobot's policies look for names that begin with this.
OWN_CAMERA = "observation.image"
DEFAULT_OBS = ("observation.state", "observation.environment_state")
ACTION, REWARD, SUCCESS = "action", "next.reward", "next.success"
VERSIONS = ("v3.0", "v2.1", "v2.0")


class Feature(NamedTuple):
    """Column as described by `info.json`; `shape` begins with the time axis, `dtype` is object if not numeric."""

    shape: tuple[int, ...]
    dtype: np.dtype


class Layout(NamedTuple):
    """Description of what to read of every episode.

    Attributes:
        path: the dataset's folder.
        info: content of `info.json`.
        features: all columns by name.
        keys: names of those that make up the observation.
        camera: camera to read images of; None for none.
        image_size: height and width that they are resized to; 0 without a camera.
        is_ours: `lerobot_write` wrote the dataset, so its metadata hold what the frames cannot.
    """

    path: Path
    info: dict[str, Any]
    features: dict[str, Feature]
    keys: tuple[str, ...]
    camera: Camera | None
    image_size: int
    is_ours: bool


class Frames(NamedTuple):
    """Frames of all episodes, in order, `[rows, ...]`; what was not recorded, or is not read, is None."""

    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray | None
    success: np.ndarray | None
    image: np.ndarray | None


def is_lerobot(path: Path) -> bool:
    """Return True if `path` is a folder with `meta/info.json`."""
    return (path / INFO).is_file()


def read_lerobot(
    path: Path,
    obs_keys: Sequence[str] | None = None,
    on_progress: OnProgress | None = None,
    images: ImageRequest | None = None,
) -> DemoDataset:
    """Read the trajectories in the folder `path`, without validating them.

    Args:
        path: the dataset's folder.
        obs_keys: features to concatenate, in that order; None for `observation.state` and
            `observation.environment_state`, as far as they exist.
        on_progress: called after each data file.
        images: camera images to read as well.

    Raises:
        UserError: an unknown version, damaged or missing files, frames that are missing or contradict the metadata, an
            unknown feature or camera, or PyArrow is not installed.
    """
    info = _read_json(path / INFO)
    version = info.get("codebase_version")
    if version not in VERSIONS:
        raise UserError(
            f"{path / INFO}: codebase_version is {sanitize_text(version)}; known are {', '.join(VERSIONS)}: "
            "convert it with LeRobot's own scripts."
        )
    for key in ("data_path", "video_path"):
        if info.get(key):
            check_relative_path(info[key], f"{path / INFO}: '{key}'")
    features, cameras = _parse_features(info, path)
    is_ours = (path / CDRED_META).exists()
    camera = _select_camera(cameras, images, str(path / INFO), is_ours)
    keys = _select_features(features, obs_keys, str(path / INFO), beside_images=camera is not None)
    size = target_size(images, camera, is_ours=is_ours) if camera else 0
    layout = Layout(path, info, features, keys, camera, size, is_ours)
    trajectories = _read_trajectories(layout, on_progress)
    extra = _read_json(path / CDRED_META) if is_ours else {}
    provenance = extra["provenance"] if "provenance" in extra else _external_provenance(layout, cameras, obs_keys)
    return DemoDataset(extra.get("task", ""), trajectories, provenance)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected a JSON object.")
    return tree


def _parse_features(info: dict[str, Any], path: Path) -> tuple[dict[str, Feature], dict[str, Camera]]:
    """Return all features, and the cameras among them, by name."""
    try:
        features = {
            name: Feature((0, *(tuple(map(int, feature["shape"])) or (1,))), _to_dtype(feature["dtype"]))
            for name, feature in info["features"].items()
        }
        return features, find_cameras(info["features"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path / INFO}: its 'features' are not as LeRobot writes them ({error!r}).") from error


def _to_dtype(name: str) -> np.dtype:
    """Return the NumPy type of a feature; object for LeRobot's `image`, `video` and `string`, and unknown types."""
    try:
        return np.dtype(object if name in ("image", "video", "string") else name)
    except TypeError:
        return np.dtype(object)


def _select_camera(
    cameras: dict[str, Camera], images: ImageRequest | None, location: str, is_ours: bool
) -> Camera | None:
    """Return the camera to read; None if none is asked for."""
    named = {IMAGE: cameras[OWN_CAMERA]} if is_ours and OWN_CAMERA in cameras else cameras
    name = requested_camera(named, images, location, is_ours=is_ours)
    return None if name is None else named[name]


def _select_features(
    features: dict[str, Feature], obs_keys: Sequence[str] | None, location: str, *, beside_images: bool
) -> tuple[str, ...]:
    if obs_keys is None:
        obs_keys = [name for name in DEFAULT_OBS if name in features]
        if not obs_keys and beside_images:
            return ()
        if not obs_keys:
            raise UserError(
                f"{location}: it has none of {', '.join(DEFAULT_OBS)}; name its observations with --obs-keys "
                f"(available: {format_shapes(features)})."
            )
    keys = select_obs_keys(features, obs_keys, location)
    for key in keys:
        if features[key].dtype.kind not in "fiub":
            raise UserError(f"{location}: '{key}' holds images or text, expected numbers: omit it from --obs-keys.")
    return keys


def _read_trajectories(layout: Layout, on_progress: OnProgress | None) -> tuple[Trajectory, ...]:
    """Read all episodes, sorted by number."""
    camera, is_ours = layout.camera, layout.is_ours
    columns = [*(FINAL_FRAME if is_ours else ()), *([FINAL_IMAGE] if is_ours and camera else [])]
    if camera and layout.info["codebase_version"] == "v3.0":
        columns += episode_columns(camera)
    metadata = read_episode_metadata(layout.path, columns)
    if is_ours and not metadata:
        raise UserError(f"{layout.path}: no meta/episodes in it, but {CDRED_META}: copy the whole folder again.")
    files = sorted(layout.path.glob("data/*/*.parquet"))
    episodes, positions = locate_frames(files, spare_rows=int(is_ours))
    check_metadata(layout.path, layout.info, metadata, episodes)
    rows = episodes[-1].rows.stop + is_ours if episodes else 0
    frames = _read_frames(files, positions, rows, layout, on_progress)
    if camera and frames.image is not None:
        if camera.kind == "video":
            read_videos(layout.path, layout.info, camera, episodes, metadata, frames.image)
        else:
            read_image_column(files, positions, camera, frames.image)
    if is_ours:
        return tuple(_to_trajectory(frames, episode, metadata[episode.number]) for episode in episodes)
    trajectories = tuple(_to_trajectory(frames, episode) for episode in episodes)
    check_step_counts(map(len, trajectories), str(layout.path), "'episode_index' counts episodes, not frames")
    return trajectories


def _read_frames(
    files: Sequence[Path], positions: Sequence[np.ndarray], rows: int, layout: Layout, on_progress: OnProgress | None
) -> Frames:
    """Read the frames of all files into arrays of `rows` rows, each frame to its position."""
    width = sum(math.prod(layout.features[key].shape[1:]) for key in {*layout.keys, ACTION} & {*layout.features})
    # The shapes are those that info.json declares, so they are checked before anything is allocated.
    stored = sum(file.stat().st_size for file in files)
    check_expanded_size(4 * rows * width, stored, f"{layout.path / INFO} and the data files")
    frames = _allocate(rows, layout)
    targets = _column_targets(frames, layout)
    for file, destination in with_progress(list(zip(files, positions, strict=True)), on_progress):
        read_columns_into(file, destination, targets)
    return frames


def _allocate(rows: int, layout: Layout) -> Frames:
    shapes = [layout.features[key].shape[1:] for key in layout.keys]
    shape = shapes[0] if len(shapes) == 1 else (sum(int(np.prod(size, dtype=int)) for size in shapes),)
    action = layout.features.get(ACTION)
    return Frames(
        obs=np.empty((rows, *shape), np.float32),
        action=empty_actions(rows) if action is None else np.empty((rows, *action.shape[1:]), np.float32),
        reward=np.zeros(rows, np.float32) if REWARD in layout.features else None,
        success=np.zeros(rows, bool) if SUCCESS in layout.features else None,
        image=allocate_images(rows, layout.image_size, str(layout.path)) if layout.camera else None,
    )


def _column_targets(frames: Frames, layout: Layout) -> dict[str, np.ndarray]:
    """Return the array, or the part of the observations, that each column is read into."""
    targets, start = {}, 0
    for key in layout.keys:
        width = int(np.prod(layout.features[key].shape[1:], dtype=int))
        targets[key] = frames.obs if len(layout.keys) == 1 else frames.obs[:, start : start + width]
        start += width
    others = {ACTION: frames.action, REWARD: frames.reward, SUCCESS: frames.success}
    return targets | {key: array for key, array in others.items() if key in layout.features and array is not None}


def _to_trajectory(frames: Frames, episode: EpisodeFrames, final: dict[str, Any] | None = None) -> Trajectory:
    """Return the trajectory of an episode as views of `frames`.

    Args:
        frames: the frames of all episodes, with a spare row after each episode if `final` is given.
        episode: its rows.
        final: its metadata with what `lerobot_write` stored beyond the frames; None in other datasets.
    """
    rows, reward, success, image = episode.rows, frames.reward, frames.success, frames.image
    trajectory = Trajectory(
        obs=frames.obs[rows],
        action=frames.action[rows],
        reward=None if reward is None else reward[rows],
        terminated=False,
        truncated=True,
        success=None if success is None else success[rows],
        image=None if image is None else image[rows],
    )
    if final is None:
        return drop_last_action(trajectory)
    frames.obs[rows.stop] = np.array(final[FINAL], np.float32).reshape(frames.obs.shape[1:])
    if image is not None:
        image[rows.stop] = decode_image(final[FINAL_IMAGE], image.shape[1:], f"episode {episode.number}: {FINAL_IMAGE}")
    return replace(
        trajectory,
        obs=frames.obs[rows.start : rows.stop + 1],
        image=None if image is None else image[rows.start : rows.stop + 1],
        terminated=final[TERMINATED],
        truncated=final[TRUNCATED],
        seed=final[SEED],
    )


def _external_provenance(
    layout: Layout, cameras: dict[str, Camera], obs_keys: Sequence[str] | None
) -> dict[str, object]:
    """Return the provenance of a dataset that `lerobot_write` did not write."""
    camera = layout.camera
    observations = {
        name: feature
        for name, feature in layout.features.items()
        if name.startswith("observation") and (camera is None or name != camera.name)
    }
    images = images_provenance(camera, camera.name, layout.image_size) if camera else {}
    provenance = {
        "format": f"LeRobotDataset {layout.info['codebase_version']}",
        "fps": layout.info.get("fps"),
        "robot_type": layout.info.get("robot_type"),
        "tasks": _read_task_descriptions(layout.path),
        **obs_provenance(observations, layout.keys, obs_keys),
        CAMERAS_KEY: {name: sanitize_text(camera.describe()) for name, camera in cameras.items()},
        **images,
        "dropped": NO_FINAL_OBSERVATION,
    }
    return {key: value for key, value in provenance.items() if value}


def _read_task_descriptions(path: Path) -> list[str]:
    """Return the natural-language task descriptions."""
    table, lines = path / "meta/tasks.parquet", path / "meta/tasks.jsonl"
    if table.exists():
        return [value for row in read_rows(table) for value in row.values() if isinstance(value, str)]
    return [str(row["task"]) for row in read_json_lines(lines, "task")] if lines.exists() else []
