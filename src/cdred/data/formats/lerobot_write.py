"""A LeRobotDataset v3.0 folder that LeRobot itself opens, and `cdred.data.formats.lerobot_read` without loss.

What LeRobot's reader needs, in `meta/info.json`, `meta/stats.json`, `meta/tasks.parquet`, `meta/episodes` and `data`:
a frame for each step with `observation.state`, `action`, `next.reward`, `next.done`, `next.truncated`,
`next.success` where it is known, and the counters `timestamp`, `frame_index`, `episode_index`, `index`, `task_index`.
Its videos are for pictures, which are not written here.

A frame has no place for the final observation: T steps make T frames, never T + 1. It is kept in `meta/episodes`,
one row an episode, in columns that LeRobot does not look at (`cdred/final_observation`, `cdred/terminated`,
`cdred/truncated`, `cdred/seed`); task and provenance are in `meta/cdred.json`.

Seconds are needed and not known: `provenance["fps"]` where it is a positive number, else 10 steps a second.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cdred.data.formats.common import OnProgress, import_optional, tracked
from cdred.data.formats.lerobot_read import ACTION, FINAL, INFO, OURS, REWARD, SEED, SUCCESS, TERMINATED, TRUNCATED
from cdred.errors import UserError
from cdred.files import check_new_path, new_folder
from cdred.types import DemoDataset, Trajectory

FPS_WHERE_UNKNOWN = 10
STATE, DONE, CUT = "observation.state", "next.done", "next.truncated"
# LeRobot's defaults: how many files a folder holds at most, and how many megabytes (2^20 bytes) a file.
FILES_A_CHUNK, DATA_FILE_MB, VIDEO_FILE_MB = 1000, 100, 200
QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"

Columns = dict[str, np.ndarray]


def save_lerobot(dataset: DemoDataset, path: str | Path, on_progress: OnProgress | None = None) -> None:
    """Write `dataset` to a new folder `path`, in one piece or not at all.

    Args:
        dataset: validated; all of its observations must be vectors.
        path: must not exist, or be an empty folder.
        on_progress: told after each episode.

    Raises:
        UserError: `path` is taken, observations are not vectors, success is known of some episodes only, or PyArrow
            is not installed.
    """
    path = Path(path)
    check_new_path(path)
    _check(dataset, path)
    import_optional("pyarrow.parquet", f"writing {path}")
    fps = _fps(dataset.provenance)
    with new_folder(path) as folder:
        _write_tasks(dataset.task, folder / "meta/tasks.parquet")
        rows = _write_data(dataset, folder, fps, on_progress)
        _write_parquet(folder / EPISODES_PATH.format(chunk_index=0, file_index=0), rows)
        _write_json(folder / "meta/stats.json", _stats(dataset, fps))
        _write_json(folder / INFO, _info(dataset, fps))
        _write_json(folder / OURS, {"task": dataset.task, "provenance": dataset.provenance})


def _check(dataset: DemoDataset, path: Path) -> None:
    shape = dataset[0].obs.shape[1:]
    if len(shape) != 1:
        raise UserError(
            f"{path}: a LeRobot frame keeps a vector, but one observation has shape {shape}: save as Minari."
        )
    known = sum(one.success is not None for one in dataset)
    if known not in (0, len(dataset)):
        raise UserError(f"{path}: {known} of {len(dataset)} episodes have 'success'; give it for all or none.")


def _fps(provenance: dict[str, object]) -> float:
    fps = provenance.get("fps")
    return fps if isinstance(fps, int | float) and not isinstance(fps, bool) and fps > 0 else FPS_WHERE_UNKNOWN


def _frames(one: Trajectory, episode: int, first: int, fps: float) -> Columns:
    """One episode's frames, `[T, ...]` by column."""
    steps = np.arange(len(one))
    last = steps == len(one) - 1
    return {
        STATE: one.obs[:-1],
        **({ACTION: one.action} if one.action.shape[1] else {}),
        REWARD: one.reward,
        DONE: last,
        CUT: last & one.truncated,
        **({} if one.success is None else {SUCCESS: one.success}),
        "timestamp": (steps / fps).astype(np.float32),
        "frame_index": steps,
        "episode_index": np.full(len(one), episode),
        "index": first + steps,
        "task_index": np.zeros(len(one), np.int64),
    }


def _features(dataset: DemoDataset, fps: float) -> dict[str, dict[str, Any]]:
    frames = _frames(dataset[0], 0, 0, fps)
    return {
        name: {"dtype": str(values.dtype), "shape": list(values.shape[1:]) or [1], "names": None}
        for name, values in frames.items()
    }


def _info(dataset: DemoDataset, fps: float) -> dict[str, Any]:
    return {
        "codebase_version": "v3.0",
        "robot_type": None,
        "total_episodes": len(dataset),
        "total_frames": sum(map(len, dataset)),
        "total_tasks": 1,
        "chunks_size": FILES_A_CHUNK,
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
    """The data files, a row group for each episode, and what `meta/episodes` says of each."""
    rows, first, file_number, size, writer = [], 0, -1, 0.0, None
    try:
        for episode, one in tracked(list(enumerate(dataset)), on_progress):
            table = _arrow(_frames(one, episode, first, fps))
            if writer is None or size + table.nbytes > DATA_FILE_MB * 2**20:
                if writer is not None:
                    writer.close()
                file_number, size = file_number + 1, 0.0
                writer = _writer(folder / DATA_PATH.format(**_place(file_number)), table.schema)
            writer.write_table(table)
            size += table.nbytes
            rows.append(_episode(one, episode, dataset.task, first, _place(file_number)))
            first += len(one)
    finally:
        if writer is not None:
            writer.close()
    return rows


def _place(file_number: int) -> dict[str, int]:
    chunk, file = divmod(file_number, FILES_A_CHUNK)
    return {"chunk_index": chunk, "file_index": file}


def _episode(one: Trajectory, episode: int, task: str, first: int, place: dict[str, int]) -> dict[str, object]:
    return {
        "episode_index": episode,
        "tasks": [task],
        "length": len(one),
        **{f"data/{key}": value for key, value in place.items()},
        "dataset_from_index": first,
        "dataset_to_index": first + len(one),
        "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": 0,
        FINAL: one.obs[-1],
        TERMINATED: one.terminated,
        TRUNCATED: one.truncated,
        SEED: one.seed,
    }


def _arrow(columns: Columns) -> Any:
    """A table whose vectors are fixed-size lists; one number a frame is a plain column, as LeRobot has it."""
    pyarrow = import_optional("pyarrow", "writing a LeRobot dataset")
    arrays = {}
    for name, values in columns.items():
        flat = pyarrow.array(np.ascontiguousarray(values).reshape(-1))
        width = int(np.prod(values.shape[1:], dtype=int))
        arrays[name] = flat if width == 1 else pyarrow.FixedSizeListArray.from_arrays(flat, width)
    return pyarrow.table(arrays)


def _writer(path: Path, schema: Any) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    return import_optional("pyarrow.parquet", f"writing {path}").ParquetWriter(path, schema, compression="snappy")


def _write_parquet(path: Path, rows: list[dict[str, object]], metadata: dict[bytes, bytes] | None = None) -> None:
    pyarrow = import_optional("pyarrow", f"writing {path}")
    table = pyarrow.Table.from_pylist(rows).replace_schema_metadata(metadata)
    with _writer(path, table.schema) as writer:
        writer.write_table(table)


def _write_tasks(task: str, path: Path) -> None:
    """LeRobot reads this with pandas and finds the task in the index, which pandas knows from the schema's metadata."""
    text = {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    number = text | {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"}
    about = {"index_columns": ["task"], "column_indexes": [], "columns": [number, text], "pandas_version": "2.2.0"}
    _write_parquet(path, [{"task_index": 0, "task": task}], {b"pandas": json.dumps(about).encode()})


def _stats(dataset: DemoDataset, fps: float) -> dict[str, dict[str, list[float]]]:
    """Of every column, what LeRobot normalises by."""
    firsts = np.cumsum([0, *map(len, dataset)]).tolist()
    names = _features(dataset, fps)
    return {name: _stats_of([_frames(one, i, firsts[i], fps)[name] for i, one in enumerate(dataset)]) for name in names}


def _stats_of(pieces: Sequence[np.ndarray]) -> dict[str, list[float]]:
    values = np.concatenate([piece.reshape(len(piece), -1) for piece in pieces])
    values = values.astype(np.float32, copy=False) if values.dtype == bool else values
    facts = {"min": values.min(0), "max": values.max(0)}
    facts |= {"mean": values.mean(0, dtype=np.float64), "std": values.std(0, dtype=np.float64)}
    facts |= dict(zip(QUANTILES, np.quantile(values, list(QUANTILES.values()), axis=0), strict=True))
    return {**{name: fact.tolist() for name, fact in facts.items()}, "count": [len(values)]}


def _write_json(path: Path, tree: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree, indent=4) + "\n", encoding="utf-8")
