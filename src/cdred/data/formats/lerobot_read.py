"""LeRobotDataset folders, v3.0, v2.1 and v2.0, with PyArrow and without PyTorch.

    meta/info.json           codebase_version, fps, features: {name: {dtype, shape, names}}, total_episodes, ...
    data/chunk-*/*.parquet   a row a frame: the features that are no videos, `episode_index`, `frame_index`, ...;
                             v3: files of many episodes; v2: `episode_<i>.parquet`, one each
    meta/episodes/chunk-*/*.parquet, meta/tasks.parquet   v3: a row an episode, a row a task
    meta/episodes.jsonl, meta/tasks.jsonl                 v2
    videos/                                               never looked at

(https://huggingface.co/docs/lerobot/lerobot-dataset-v3, and `lerobot.datasets` 0.4.)

A frame is an observation and the action taken there; there is no observation after the last action, which is therefore
left out, unless `cdred.data.formats.lerobot_write` wrote the dataset: it keeps it among the episode's metadata, together with
how the episode ended. Elsewhere `next.done` marks every episode's end, whoever ended it, so that an episode counts as
truncated. Actions are in the robot's own units; `cdred.data.rescale_actions` brings them to [-1, 1].
"""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cdred.data.formats.arrow import fill, numbers, parquet, rows_of
from cdred.data.formats.common import (
    NO_FINAL_OBSERVATION,
    OnProgress,
    drop_last_action,
    empty_actions,
    one_line,
    tracked,
)
from cdred.data.formats.obs_keys import account, listed, selected
from cdred.data.formats.safety import check_expanded_size, check_relative_path
from cdred.errors import UserError
from cdred.types import DemoDataset, Trajectory

INFO, OURS = Path("meta/info.json"), Path("meta/cdred.json")
# Columns of `meta/episodes` that `lerobot_write` adds and LeRobot ignores: what a frame has no place for.
FINAL, TERMINATED, TRUNCATED, SEED = "cdred/final_observation", "cdred/terminated", "cdred/truncated", "cdred/seed"
DEFAULT_OBS = ("observation.state", "observation.environment_state")
ACTION, REWARD, SUCCESS = "action", "next.reward", "next.success"
VERSIONS = ("v3.0", "v2.1", "v2.0")


class Feature(NamedTuple):
    """What `info.json` says of a column; `shape` begins with an axis for time, `dtype` is object but for numbers."""

    shape: tuple[int, ...]
    dtype: np.dtype


class Layout(NamedTuple):
    """What is to be read of every episode.

    Attributes:
        features: all there are.
        keys: those that make the observation.
        closing: what our own writer kept beyond the frames, by episode.
    """

    features: dict[str, Feature]
    keys: tuple[str, ...]
    closing: dict[int, dict[str, Any]]


class Place(NamedTuple):
    """The rows of its data file in which an episode is."""

    episode: int
    rows: slice


def is_lerobot(path: Path) -> bool:
    """Whether `path` is a folder with `meta/info.json`."""
    return (path / INFO).is_file()


def read_lerobot(
    path: Path, obs_keys: Sequence[str] | None = None, on_progress: OnProgress | None = None
) -> DemoDataset:
    """The trajectories in the folder `path`, not yet validated.

    Args:
        path: the dataset's folder.
        obs_keys: features to join, in that order; None for `observation.state` and `observation.environment_state`,
            those of the two that there are.
        on_progress: told after each data file.

    Raises:
        UserError: another version, damaged or missing files, no such feature, PyArrow not installed.
    """
    info = _json(path / INFO)
    version = info.get("codebase_version")
    if version not in VERSIONS:
        raise UserError(
            f"{path / INFO}: codebase_version is {one_line(version)}; known are {', '.join(VERSIONS)}: "
            "convert it with LeRobot's own scripts."
        )
    for key in ("data_path", "video_path"):
        if info.get(key):
            check_relative_path(info[key], f"{path / INFO}: '{key}'")
    features = _features(info, path)
    layout = Layout(features, _obs_keys(features, obs_keys, str(path / INFO)), _closing(path))
    files = _places(path, info)
    trajectories = tuple(one for file, places in tracked(files, on_progress) for one in _episodes(file, places, layout))
    ours = _json(path / OURS) if (path / OURS).exists() else {}
    provenance = ours["provenance"] if "provenance" in ours else _foreign(path, info, layout)
    return DemoDataset(ours.get("task", ""), trajectories, provenance)


def _json(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected a JSON object.")
    return tree


def _features(info: dict[str, Any], path: Path) -> dict[str, Feature]:
    try:
        named = info["features"].items()
        return {name: Feature((0, *map(int, one["shape"])), _dtype(one["dtype"])) for name, one in named}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path / INFO}: its 'features' are not as LeRobot writes them ({error!r}).") from error


def _dtype(name: str) -> np.dtype:
    """`image`, `video` and `string` are LeRobot's names for what NumPy has no numbers for."""
    try:
        return np.dtype(object if name in ("image", "video", "string") else name)
    except TypeError:
        return np.dtype(object)


def _obs_keys(features: dict[str, Feature], obs_keys: Sequence[str] | None, where: str) -> tuple[str, ...]:
    if obs_keys is None:
        obs_keys = [name for name in DEFAULT_OBS if name in features]
        if not obs_keys:
            raise UserError(
                f"{where}: it has none of {', '.join(DEFAULT_OBS)}; name its observations with --obs-keys "
                f"(there are: {listed(features)})."
            )
    keys = selected(features, obs_keys, where)
    for key in keys:
        if features[key].dtype.kind not in "fiub":
            raise UserError(f"{where}: '{key}' holds pictures or texts, expected numbers: leave it out of --obs-keys.")
    return keys


def _places(path: Path, info: dict[str, Any]) -> list[tuple[Path, list[Place]]]:
    """Every data file and the episodes in it.

    Raises:
        UserError: there are fewer or other episodes than `info.json` says, or one is in two pieces.
    """
    files = [(file, list(_places_in(file))) for file in sorted(path.glob("data/*/*.parquet"))]
    found = [place.episode for _, places in files for place in places]
    expected = info.get("total_episodes", len(found))
    if len(found) != len(set(found)) or len(found) != expected:
        raise UserError(
            f"{path}: its data files hold {len(set(found))} episodes in {len(found)} pieces, but {INFO} says "
            f"{expected}: fetch the dataset again."
        )
    return files


def _places_in(file: Path) -> Iterator[Place]:
    with parquet(file) as opened:
        if "episode_index" not in opened.schema_arrow.names:
            raise UserError(f"{file}: no column 'episode_index' in it.")
        column = opened.read(columns=["episode_index"]).column("episode_index").combine_chunks()
    episode = numbers(column, f"{file}: 'episode_index'").reshape(-1).astype(np.int64)
    starts = np.flatnonzero(np.diff(episode, prepend=episode[:1] - 1)).tolist()
    for start, stop in zip(starts, [*starts[1:], len(episode)], strict=True):
        yield Place(int(episode[start]), slice(start, stop))


def _closing(path: Path) -> dict[int, dict[str, Any]]:
    if not (path / OURS).exists():
        return {}
    columns = ["episode_index", FINAL, TERMINATED, TRUNCATED, SEED]
    files = sorted(path.glob("meta/episodes/*/*.parquet"))
    return {row["episode_index"]: row for file in files for row in rows_of(file, columns)}


def _episodes(file: Path, places: list[Place], layout: Layout) -> list[Trajectory]:
    """The episodes of one data file, each read into the arrays that it keeps."""
    rows = sum(place.rows.stop - place.rows.start for place in places)
    width = sum(math.prod(layout.features[key].shape[1:]) for key in {*layout.keys, ACTION} & {*layout.features})
    # The shapes are those of info.json, which may say anything.
    check_expanded_size(4 * rows * width, file.stat().st_size, str(file))
    drafts = [_draft(place, layout) for place in places]
    fill(file, [place.rows for place in places], [_targets(one, layout) for one in drafts])
    return [
        one if place.episode in layout.closing else drop_last_action(one)
        for one, place in zip(drafts, places, strict=True)
    ]


def _draft(place: Place, layout: Layout) -> Trajectory:
    """An episode whose frames are still to be read; one more observation where the final one is known."""
    steps, last = place.rows.stop - place.rows.start, layout.closing.get(place.episode)
    shapes = [layout.features[key].shape[1:] for key in layout.keys]
    shape = shapes[0] if len(shapes) == 1 else (sum(int(np.prod(one, dtype=int)) for one in shapes),)
    obs = np.empty((steps + (last is not None), *shape), np.float32)
    if last is not None:
        obs[-1] = np.array(last[FINAL], np.float32).reshape(shape)
    action = layout.features.get(ACTION)
    return Trajectory(
        obs=obs,
        action=empty_actions(steps) if action is None else np.empty((steps, *action.shape[1:]), np.float32),
        reward=np.zeros(steps, np.float32),
        terminated=last is not None and last[TERMINATED],
        truncated=last is None or last[TRUNCATED],
        success=np.zeros(steps, bool) if SUCCESS in layout.features else None,
        seed=None if last is None else last[SEED],
    )


def _targets(one: Trajectory, layout: Layout) -> dict[str, np.ndarray]:
    """Which column goes into which piece of the episode's arrays."""
    targets, start = {}, 0
    for key in layout.keys:
        width = int(np.prod(layout.features[key].shape[1:], dtype=int))
        targets[key] = one.obs[: len(one)] if len(layout.keys) == 1 else one.obs[: len(one), start : start + width]
        start += width
    known = {ACTION: one.action, REWARD: one.reward, SUCCESS: one.success}
    return targets | {key: into for key, into in known.items() if key in layout.features and into is not None}


def _foreign(path: Path, info: dict[str, Any], layout: Layout) -> dict[str, object]:
    seen = {name: one for name, one in layout.features.items() if name.startswith("observation")}
    facts = {
        "format": f"LeRobotDataset {info['codebase_version']}",
        "fps": info.get("fps"),
        "robot_type": info.get("robot_type"),
        "tasks": _tasks(path),
        **account(seen, layout.keys),
        "dropped": NO_FINAL_OBSERVATION,
    }
    return {key: value for key, value in facts.items() if value}


def _tasks(path: Path) -> list[str]:
    """What the robot was told to do, in words."""
    table, lines = path / "meta/tasks.parquet", path / "meta/tasks.jsonl"
    if table.exists():
        return [value for row in rows_of(table) for value in row.values() if isinstance(value, str)]
    if not lines.exists():
        return []
    try:
        rows = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [str(row["task"]) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{lines} is not JSON lines as LeRobot writes them ({error!r}).") from error
