"""Writer of LeRobotDataset v3.0 folders, which LeRobot opens and `cdred.data.formats.lerobot_read` reads without loss.

It writes what LeRobot's reader needs: `meta/info.json`, `meta/stats.json`, `meta/tasks.parquet`, `meta/episodes` and
`data`, with one frame per step of `observation.state`, `action`, `next.reward`, `next.done`, `next.truncated`,
`next.success`, and the counters `timestamp`, `frame_index`, `episode_index`, `index`, `task_index`.
Camera images are a feature of dtype `image`, `observation.image`: PNG files in the data files, without loss. Videos,
LeRobot's default, would change the pixels, and are not written.

Frames cannot hold the final observation: T steps make T frames, not T + 1. It is stored in `meta/episodes`, one row per
episode, in columns that LeRobot ignores (`cdred/final_observation`, `cdred/final_image`, `cdred/terminated`,
`cdred/truncated`, `cdred/seed`); task and provenance are stored in `meta/cdred.json`.

LeRobot requires a frame rate: it is `provenance["fps"]` where that is a positive number, else 10 steps per second.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cdred.data.formats.cameras import encode_png
from cdred.data.formats.common import OnProgress, check_all_or_none, import_optional, with_progress
from cdred.data.formats.lerobot_read import (
    ACTION,
    CDRED_META,
    FINAL,
    FINAL_IMAGE,
    INFO,
    OWN_CAMERA,
    REWARD,
    SEED,
    SUCCESS,
    TERMINATED,
    TRUNCATED,
)
from cdred.errors import UserError
from cdred.files import check_new_path, new_folder
from cdred.types import DemoDataset, Trajectory

DEFAULT_FPS = 10
STATE, DONE, NEXT_TRUNCATED = "observation.state", "next.done", "next.truncated"
# LeRobot's defaults: maximum number of files per folder, and maximum size of a file in MiB.
FILES_PER_CHUNK, DATA_FILE_MB, VIDEO_FILE_MB = 1000, 100, 200
QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"

Columns = dict[str, np.ndarray]


def save_lerobot(dataset: DemoDataset, path: str | Path, on_progress: OnProgress | None = None) -> None:
    """Write `dataset` to the new folder `path` atomically.

    Args:
        dataset: validated; all of its observations must be vectors.
        path: must not exist, or be an empty folder.
        on_progress: called after each episode.

    Raises:
        UserError: `path` exists, observations are not vectors, reward, success or images are recorded for some
            episodes only, or PyArrow is not installed.
    """
    path = Path(path)
    check_new_path(path)
    _check_writable(dataset, path)
    import_optional("pyarrow.parquet", f"writing {path}")
    fps = _fps(dataset.provenance)
    with new_folder(path) as folder:
        _write_tasks(dataset.task, folder / "meta/tasks.parquet")
        rows = _write_data(dataset, folder, fps, on_progress)
        _write_parquet(folder / EPISODES_PATH.format(chunk_index=0, file_index=0), rows)
        _write_json(folder / "meta/stats.json", _stats(dataset, fps))
        _write_json(folder / INFO, _info(dataset, fps))
        _write_json(folder / CDRED_META, {"task": dataset.task, "provenance": dataset.provenance})


def _check_writable(dataset: DemoDataset, path: Path) -> None:
    shape = dataset[0].obs.shape[1:]
    if len(shape) != 1:
        raise UserError(f"{path}: LeRobot frames hold vectors, but one observation has shape {shape}: save as Minari.")
    check_all_or_none(dataset, "reward", path)
    check_all_or_none(dataset, "success", path)
    check_all_or_none(dataset, "image", path)


def _fps(provenance: dict[str, object]) -> float:
    fps = provenance.get("fps")
    return fps if isinstance(fps, int | float) and not isinstance(fps, bool) and fps > 0 else DEFAULT_FPS


def _to_frames(trajectory: Trajectory, episode: int, first_index: int, fps: float) -> Columns:
    """Return one episode's frames, `[T, ...]` by column, but their images."""
    steps = np.arange(len(trajectory))
    is_last = steps == len(trajectory) - 1
    return {
        **({STATE: trajectory.obs[:-1]} if trajectory.obs.shape[1] else {}),
        **({ACTION: trajectory.action} if trajectory.action.shape[1] else {}),
        **({} if trajectory.reward is None else {REWARD: trajectory.reward}),
        DONE: is_last,
        NEXT_TRUNCATED: is_last & trajectory.truncated,
        **({} if trajectory.success is None else {SUCCESS: trajectory.success}),
        "timestamp": (steps / fps).astype(np.float32),
        "frame_index": steps,
        "episode_index": np.full(len(trajectory), episode),
        "index": first_index + steps,
        "task_index": np.zeros(len(trajectory), np.int64),
    }


def _features(dataset: DemoDataset, fps: float) -> dict[str, dict[str, Any]]:
    frames, image = _to_frames(dataset[0], 0, 0, fps), dataset[0].image
    features = {
        name: {"dtype": str(values.dtype), "shape": list(values.shape[1:]) or [1], "names": None}
        for name, values in frames.items()
    }
    if image is None:
        return features
    names = ["height", "width", "channels"]
    return {OWN_CAMERA: {"dtype": "image", "shape": list(image.shape[1:]), "names": names}, **features}


def _info(dataset: DemoDataset, fps: float) -> dict[str, Any]:
    return {
        "codebase_version": "v3.0",
        "robot_type": None,
        "total_episodes": len(dataset),
        "total_frames": sum(map(len, dataset)),
        "total_tasks": 1,
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": DATA_FILE_MB,
        "video_files_size_in_mb": VIDEO_FILE_MB,
        "fps": fps,
        "splits": {"train": f"0:{len(dataset)}"},
        "data_path": DATA_PATH,
        "video_path": None,
        "features": _features(dataset, fps),
    }


def _write_data(
    dataset: DemoDataset, folder: Path, fps: float, on_progress: OnProgress | None
) -> list[dict[str, object]]:
    """Write the data files, one row group per episode, and return the rows of `meta/episodes`."""
    rows, first_index, file_number, size, writer = [], 0, -1, 0.0, None
    try:
        for episode, trajectory in with_progress(list(enumerate(dataset)), on_progress):
            table = _to_table(_to_frames(trajectory, episode, first_index, fps), trajectory.image)
            if writer is None or size + table.nbytes > DATA_FILE_MB * 2**20:
                if writer is not None:
                    writer.close()
                file_number, size = file_number + 1, 0.0
                writer = _open_writer(folder / DATA_PATH.format(**_file_index(file_number)), table.schema)
            writer.write_table(table)
            size += table.nbytes
            rows.append(_episode_row(trajectory, episode, dataset.task, first_index, _file_index(file_number)))
            first_index += len(trajectory)
    finally:
        if writer is not None:
            writer.close()
    return rows


def _file_index(file_number: int) -> dict[str, int]:
    chunk, file = divmod(file_number, FILES_PER_CHUNK)
    return {"chunk_index": chunk, "file_index": file}


def _episode_row(
    trajectory: Trajectory, episode: int, task: str, first_index: int, file_index: dict[str, int]
) -> dict[str, object]:
    return {
        "episode_index": episode,
        "tasks": [task],
        "length": len(trajectory),
        **{f"data/{key}": value for key, value in file_index.items()},
        "dataset_from_index": first_index,
        "dataset_to_index": first_index + len(trajectory),
        "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": 0,
        FINAL: trajectory.obs[-1],
        **({} if trajectory.image is None else {FINAL_IMAGE: encode_png(trajectory.image[-1])}),
        TERMINATED: trajectory.terminated,
        TRUNCATED: trajectory.truncated,
        SEED: trajectory.seed,
    }


def _to_table(columns: Columns, image: np.ndarray | None) -> Any:
    """Build a table with fixed-size lists for vectors and, as LeRobot does, plain columns for one number per frame.

    Images, of which the final one belongs to no frame, are structs of bytes and path, as of `datasets.Image`.
    """
    pyarrow = import_optional("pyarrow", "writing a LeRobot dataset")
    arrays = {}
    if image is not None:
        encoded = [{"bytes": encode_png(frame), "path": None} for frame in image[:-1]]
        fields = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
        arrays[OWN_CAMERA] = pyarrow.array(encoded, fields)
    for name, values in columns.items():
        flat = pyarrow.array(np.ascontiguousarray(values).reshape(-1))
        width = int(np.prod(values.shape[1:], dtype=int))
        arrays[name] = flat if width == 1 else pyarrow.FixedSizeListArray.from_arrays(flat, width)
    return pyarrow.table(arrays)


def _open_writer(path: Path, schema: Any) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    return import_optional("pyarrow.parquet", f"writing {path}").ParquetWriter(path, schema, compression="snappy")


def _write_parquet(path: Path, rows: list[dict[str, object]], metadata: dict[bytes, bytes] | None = None) -> None:
    pyarrow = import_optional("pyarrow", f"writing {path}")
    table = pyarrow.Table.from_pylist(rows).replace_schema_metadata(metadata)
    with _open_writer(path, table.schema) as writer:
        writer.write_table(table)


def _write_tasks(task: str, path: Path) -> None:
    """Write the task as the pandas index, declared in the schema's metadata: LeRobot reads this file with pandas."""
    text = {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    number = text | {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"}
    metadata = {"index_columns": ["task"], "column_indexes": [], "columns": [number, text], "pandas_version": "2.2.0"}
    _write_parquet(path, [{"task_index": 0, "task": task}], {b"pandas": json.dumps(metadata).encode()})


def _stats(dataset: DemoDataset, fps: float) -> dict[str, dict[str, Any]]:
    """Return the statistics of every column that LeRobot normalises by."""
    first_indices = np.cumsum([0, *map(len, dataset)]).tolist()
    features = [name for name in _features(dataset, fps) if name != OWN_CAMERA]

    def column(name: str) -> list[np.ndarray]:
        return [
            _to_frames(trajectory, index, first_indices[index], fps)[name] for index, trajectory in enumerate(dataset)
        ]

    stats = {name: _column_stats(column(name)) for name in features}
    images = [trajectory.image[:-1] for trajectory in dataset if trajectory.image is not None]
    return stats | ({OWN_CAMERA: _image_stats(images)} if images else {})


def _image_stats(pieces: Sequence[np.ndarray]) -> dict[str, Any]:
    """Return the statistics of the channels `[3, 1, 1]` of images, of values from 0 to 1, from counts of the bytes."""
    counts = np.zeros((3, 256), np.int64)
    for piece in pieces:
        for channel in range(3):
            counts[channel] += np.bincount(piece[..., channel].ravel(), minlength=256)
    values, total = np.arange(256) / 255, counts.sum(axis=1)
    mean = counts @ values / total
    cumulative = counts.cumsum(axis=1) / total[:, None]
    stats = {name: values[np.argmax(cumulative >= quantile, axis=1)] for name, quantile in QUANTILES.items()}
    stats |= {
        "min": values[np.argmax(counts > 0, axis=1)],
        "max": values[255 - np.argmax(counts[:, ::-1] > 0, axis=1)],
        "mean": mean,
        "std": np.sqrt(np.maximum(counts @ values**2 / total - mean**2, 0)),
    }
    return {
        **{name: value.reshape(3, 1, 1).tolist() for name, value in stats.items()},
        "count": [sum(map(len, pieces))],
    }


def _column_stats(pieces: Sequence[np.ndarray]) -> dict[str, list[float]]:
    values = np.concatenate([piece.reshape(len(piece), -1) for piece in pieces])
    values = values.astype(np.float32, copy=False) if values.dtype == bool else values
    stats = {"min": values.min(0), "max": values.max(0)}
    stats |= {"mean": values.mean(0, dtype=np.float64), "std": values.std(0, dtype=np.float64)}
    stats |= dict(zip(QUANTILES, np.quantile(values, list(QUANTILES.values()), axis=0), strict=True))
    return {**{name: value.tolist() for name, value in stats.items()}, "count": [len(values)]}


def _write_json(path: Path, tree: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree, indent=4) + "\n", encoding="utf-8")
