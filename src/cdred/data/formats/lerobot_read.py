"""Reader of LeRobotDataset folders, v3.0, v2.1 and v2.0, with PyArrow and without PyTorch.

    meta/info.json           codebase_version, fps, features: {name: {dtype, shape, names}}, total_episodes, ...
    data/chunk-*/*.parquet   one row per frame: all features but videos, `episode_index`, `frame_index`, ...;
                             v3: files of many episodes; v2: `episode_<i>.parquet`, one each
    meta/episodes/chunk-*/*.parquet, meta/tasks.parquet   v3: one row per episode, one row per task
    meta/episodes.jsonl, meta/tasks.jsonl                 v2
    videos/                                               not read

(https://huggingface.co/docs/lerobot/lerobot-dataset-v3, and `lerobot.datasets` 0.4.)

A frame is an observation and the action taken there; there is no observation after the last action, which is therefore
dropped, unless the dataset was written by `cdred.data.formats.lerobot_write`: that stores the final observation and how
the episode ended in the episodes' metadata. In other datasets `next.done` marks the end of every episode whatever its
cause, so every episode counts as truncated. Actions are in the robot's own units; `cdred.data.rescale` maps them to
[-1, 1].
"""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cdred.data.formats.arrow import open_parquet, read_columns_into, read_rows, to_numpy
from cdred.data.formats.common import (
    NO_FINAL_OBSERVATION,
    OnProgress,
    drop_last_action,
    empty_actions,
    sanitize_text,
    with_progress,
)
from cdred.data.formats.obs_keys import format_shapes, obs_provenance, select_obs_keys
from cdred.data.formats.safety import check_expanded_size, check_relative_path
from cdred.errors import UserError
from cdred.types import DemoDataset, Trajectory

INFO, CDRED_META = Path("meta/info.json"), Path("meta/cdred.json")
# Columns of `meta/episodes` that `lerobot_write` adds and LeRobot ignores: information that frames cannot hold.
FINAL, TERMINATED, TRUNCATED, SEED = "cdred/final_observation", "cdred/terminated", "cdred/truncated", "cdred/seed"
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
        features: all columns by name.
        keys: names of those that make up the observation.
        final_frames: what `lerobot_write` stored beyond the frames, by episode.
    """

    features: dict[str, Feature]
    keys: tuple[str, ...]
    final_frames: dict[int, dict[str, Any]]


class EpisodeRows(NamedTuple):
    """An episode and its rows in the data file."""

    episode: int
    rows: slice


def is_lerobot(path: Path) -> bool:
    """Return True if `path` is a folder with `meta/info.json`."""
    return (path / INFO).is_file()


def read_lerobot(
    path: Path, obs_keys: Sequence[str] | None = None, on_progress: OnProgress | None = None
) -> DemoDataset:
    """Read the trajectories in the folder `path`, without validating them.

    Args:
        path: the dataset's folder.
        obs_keys: features to concatenate, in that order; None for `observation.state` and
            `observation.environment_state`, as far as they exist.
        on_progress: called after each data file.

    Raises:
        UserError: an unknown version, damaged or missing files, an unknown feature, or PyArrow is not installed.
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
    features = _parse_features(info, path)
    keys = _select_features(features, obs_keys, str(path / INFO))
    layout = Layout(features, keys, _read_final_frames(path))
    files = with_progress(_find_episodes(path, info), on_progress)
    trajectories = tuple(
        trajectory for file, episodes in files for trajectory in _read_episodes(file, episodes, layout)
    )
    metadata = _read_json(path / CDRED_META) if (path / CDRED_META).exists() else {}
    provenance = metadata["provenance"] if "provenance" in metadata else _external_provenance(path, info, layout)
    return DemoDataset(metadata.get("task", ""), trajectories, provenance)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected a JSON object.")
    return tree


def _parse_features(info: dict[str, Any], path: Path) -> dict[str, Feature]:
    try:
        features = info["features"].items()
        return {
            name: Feature((0, *map(int, feature["shape"])), _to_dtype(feature["dtype"])) for name, feature in features
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path / INFO}: its 'features' are not as LeRobot writes them ({error!r}).") from error


def _to_dtype(name: str) -> np.dtype:
    """Return the NumPy type of a feature; object for LeRobot's `image`, `video` and `string`, and unknown types."""
    try:
        return np.dtype(object if name in ("image", "video", "string") else name)
    except TypeError:
        return np.dtype(object)


def _select_features(features: dict[str, Feature], obs_keys: Sequence[str] | None, location: str) -> tuple[str, ...]:
    if obs_keys is None:
        obs_keys = [name for name in DEFAULT_OBS if name in features]
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


def _find_episodes(path: Path, info: dict[str, Any]) -> list[tuple[Path, list[EpisodeRows]]]:
    """Return every data file with the episodes in it.

    Raises:
        UserError: the number of episodes differs from `info.json`, or an episode is not contiguous.
    """
    files = [(file, list(_episodes_in(file))) for file in sorted(path.glob("data/*/*.parquet"))]
    numbers = [episode.episode for _, episodes in files for episode in episodes]
    expected = info.get("total_episodes", len(numbers))
    if len(numbers) != len(set(numbers)) or len(numbers) != expected:
        raise UserError(
            f"{path}: its data files hold {len(set(numbers))} episodes in {len(numbers)} pieces, but {INFO} declares "
            f"{expected}: fetch the dataset again."
        )
    return files


def _episodes_in(file: Path) -> Iterator[EpisodeRows]:
    with open_parquet(file) as table:
        if "episode_index" not in table.schema_arrow.names:
            raise UserError(f"{file}: no column 'episode_index' in it.")
        column = table.read(columns=["episode_index"]).column("episode_index").combine_chunks()
    episode = to_numpy(column, f"{file}: 'episode_index'").reshape(-1).astype(np.int64)
    starts = np.flatnonzero(np.diff(episode, prepend=episode[:1] - 1)).tolist()
    for start, stop in zip(starts, [*starts[1:], len(episode)], strict=True):
        yield EpisodeRows(int(episode[start]), slice(start, stop))


def _read_final_frames(path: Path) -> dict[int, dict[str, Any]]:
    if not (path / CDRED_META).exists():
        return {}
    columns = ["episode_index", FINAL, TERMINATED, TRUNCATED, SEED]
    files = sorted(path.glob("meta/episodes/*/*.parquet"))
    return {row["episode_index"]: row for file in files for row in read_rows(file, columns)}


def _read_episodes(file: Path, episodes: list[EpisodeRows], layout: Layout) -> list[Trajectory]:
    """Read the episodes of one data file, each directly into its final arrays."""
    rows = sum(episode.rows.stop - episode.rows.start for episode in episodes)
    width = sum(math.prod(layout.features[key].shape[1:]) for key in {*layout.keys, ACTION} & {*layout.features})
    # The shapes are those that info.json declares, so they are checked before anything is allocated.
    check_expanded_size(4 * rows * width, file.stat().st_size, str(file))
    trajectories = [_allocate(episode, layout) for episode in episodes]
    targets = [_column_targets(trajectory, layout) for trajectory in trajectories]
    read_columns_into(file, [episode.rows for episode in episodes], targets)
    return [
        trajectory if episode.episode in layout.final_frames else drop_last_action(trajectory)
        for trajectory, episode in zip(trajectories, episodes, strict=True)
    ]


def _allocate(episode: EpisodeRows, layout: Layout) -> Trajectory:
    """Allocate an episode to read frames into; it has one more observation if the final one is known."""
    steps, final = episode.rows.stop - episode.rows.start, layout.final_frames.get(episode.episode)
    shapes = [layout.features[key].shape[1:] for key in layout.keys]
    shape = shapes[0] if len(shapes) == 1 else (sum(int(np.prod(size, dtype=int)) for size in shapes),)
    obs = np.empty((steps + (final is not None), *shape), np.float32)
    if final is not None:
        obs[-1] = np.array(final[FINAL], np.float32).reshape(shape)
    action = layout.features.get(ACTION)
    return Trajectory(
        obs=obs,
        action=empty_actions(steps) if action is None else np.empty((steps, *action.shape[1:]), np.float32),
        reward=np.zeros(steps, np.float32),
        terminated=final is not None and final[TERMINATED],
        truncated=final is None or final[TRUNCATED],
        success=np.zeros(steps, bool) if SUCCESS in layout.features else None,
        seed=None if final is None else final[SEED],
    )


def _column_targets(trajectory: Trajectory, layout: Layout) -> dict[str, np.ndarray]:
    """Return the part of the episode's arrays that each column is read into."""
    targets, start, steps = {}, 0, len(trajectory)
    for key in layout.keys:
        width = int(np.prod(layout.features[key].shape[1:], dtype=int))
        obs = trajectory.obs[:steps]
        targets[key] = obs if len(layout.keys) == 1 else obs[:, start : start + width]
        start += width
    others = {ACTION: trajectory.action, REWARD: trajectory.reward, SUCCESS: trajectory.success}
    return targets | {key: array for key, array in others.items() if key in layout.features and array is not None}


def _external_provenance(path: Path, info: dict[str, Any], layout: Layout) -> dict[str, object]:
    """Return the provenance of a dataset that `lerobot_write` did not write."""
    observations = {name: feature for name, feature in layout.features.items() if name.startswith("observation")}
    provenance = {
        "format": f"LeRobotDataset {info['codebase_version']}",
        "fps": info.get("fps"),
        "robot_type": info.get("robot_type"),
        "tasks": _read_task_descriptions(path),
        **obs_provenance(observations, layout.keys),
        "dropped": NO_FINAL_OBSERVATION,
    }
    return {key: value for key, value in provenance.items() if value}


def _read_task_descriptions(path: Path) -> list[str]:
    """Return the natural-language task descriptions."""
    table, lines = path / "meta/tasks.parquet", path / "meta/tasks.jsonl"
    if table.exists():
        return [value for row in read_rows(table) for value in row.values() if isinstance(value, str)]
    if not lines.exists():
        return []
    try:
        rows = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [str(row["task"]) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{lines} is not JSON lines as LeRobot writes them ({error!r}).") from error
