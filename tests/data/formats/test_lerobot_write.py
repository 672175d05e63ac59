import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from cdred.data.formats.lerobot_read import read_lerobot
from cdred.data.formats.lerobot_write import save_lerobot
from cdred.errors import UserError
from cdred.types import DemoDataset


@pytest.fixture
def saved(demos, tmp_path):
    """Return the folder in which `demos` are saved."""
    save_lerobot(demos, tmp_path / "d")
    return tmp_path / "d"


def test_info_matches_lerobot_v3(saved):
    info = json.loads((saved / "meta/info.json").read_text())
    features = info.pop("features")
    assert info == {
        "codebase_version": "v3.0",
        "robot_type": None,
        "total_episodes": 3,
        "total_frames": 16,
        "total_tasks": 1,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": 10,
        "splits": {"train": "0:3"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": None,
    }
    assert {name: (trajectory["dtype"], trajectory["shape"]) for name, trajectory in features.items()} == {
        "observation.state": ("float32", [3]),
        "action": ("float32", [2]),
        "next.reward": ("float32", [1]),
        "next.done": ("bool", [1]),
        "next.truncated": ("bool", [1]),
        "next.success": ("bool", [1]),
        "timestamp": ("float32", [1]),
        "frame_index": ("int64", [1]),
        "episode_index": ("int64", [1]),
        "index": ("int64", [1]),
        "task_index": ("int64", [1]),
    }
    assert list(pq.read_schema(saved / "data/chunk-000/file-000.parquet").names) == list(features)


def test_frame_counters_run_within_and_across_episodes(saved, demos):
    frames = pq.read_table(saved / "data/chunk-000/file-000.parquet").to_pydict()
    lengths = [len(trajectory) for trajectory in demos]
    assert frames["index"] == list(range(16))
    assert frames["frame_index"] == [step for length in lengths for step in range(length)]
    assert frames["episode_index"] == [i for i, length in enumerate(lengths) for _ in range(length)]
    assert frames["timestamp"] == pytest.approx([0.1 * step for step in frames["frame_index"]])
    ends = np.cumsum(lengths) - 1
    np.testing.assert_array_equal(np.flatnonzero(frames["next.done"]), ends)
    np.testing.assert_array_equal(np.flatnonzero(frames["next.truncated"]), ends[[0, 2]])
    np.testing.assert_array_equal(
        frames["observation.state"], np.concatenate([trajectory.obs[:-1] for trajectory in demos])
    )


def test_episode_metadata_locates_its_frames(saved, demos):
    rows = pq.read_table(saved / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [(row["dataset_from_index"], row["dataset_to_index"], row["length"]) for row in rows] == [
        (0, 6, 6),
        (6, 10, 4),
        (10, 16, 6),
    ]
    assert {(row["data/chunk_index"], row["data/file_index"], *row["tasks"]) for row in rows} == {(0, 0, "probe/fake")}
    np.testing.assert_array_equal(
        [row["cdred/final_observation"] for row in rows], [trajectory.obs[-1] for trajectory in demos]
    )


def test_statistics_cover_all_frames(saved, demos):
    stats = json.loads((saved / "meta/stats.json").read_text())
    action = np.concatenate([trajectory.action for trajectory in demos])
    np.testing.assert_allclose(stats["action"]["mean"], action.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats["action"]["q90"], np.quantile(action, 0.9, axis=0), rtol=1e-5)
    assert (stats["action"]["count"], stats["next.success"]["max"]) == ([16], [1.0])
    assert set(stats) == set(json.loads((saved / "meta/info.json").read_text())["features"])


def test_task_is_the_pandas_index(saved):
    table = pq.read_table(saved / "meta/tasks.parquet")
    assert table.to_pydict() == {"task_index": [0], "task": ["probe/fake"]}
    assert json.loads(table.schema.metadata[b"pandas"])["index_columns"] == ["task"]


def test_large_dataset_round_trips_through_several_files(demos, tmp_path, monkeypatch, assert_equal):
    monkeypatch.setattr("cdred.data.formats.lerobot_write.DATA_FILE_MB", 1e-6)
    monkeypatch.setattr("cdred.data.formats.lerobot_write.FILES_PER_CHUNK", 2)
    save_lerobot(demos, tmp_path / "d")
    files = sorted(str(path.relative_to(tmp_path / "d")) for path in tmp_path.glob("d/data/*/*"))
    assert files == [f"data/chunk-00{chunk}/file-00{file}.parquet" for chunk, file in ((0, 0), (0, 1), (1, 0))]
    assert_equal(demos, read_lerobot(tmp_path / "d"))


def test_fps_is_taken_from_provenance(demos, tmp_path):
    save_lerobot(replace(demos, provenance={"fps": 50}), tmp_path / "d")
    assert json.loads((tmp_path / "d/meta/info.json").read_text())["fps"] == 50
    save_lerobot(replace(demos, provenance={"fps": True}), tmp_path / "e")
    assert json.loads((tmp_path / "e/meta/info.json").read_text())["fps"] == 10


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"obs": np.zeros((7, 4, 4), np.float32)}, r"one observation has shape \(4, 4\): save as Minari"),
        ({"success": None}, "1 of 2 episodes have 'success'"),
        ({"reward": None}, "1 of 2 episodes have 'reward'"),
    ],
)
def test_unsupported_dataset_is_rejected(make_trajectory, tmp_path, fields, message):
    first = make_trajectory(**fields)
    with pytest.raises(UserError, match=f"d: .*{message}"):
        save_lerobot(DemoDataset("", (first, make_trajectory())), tmp_path / "d")
    assert not list(tmp_path.iterdir())


def test_existing_path_is_kept_and_failure_cleaned_up(saved, demos, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="exists already"):
        save_lerobot(demos, saved)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("cdred.data.formats.lerobot_write._stats", fail)
    with pytest.raises(OSError, match="disk full"):
        save_lerobot(demos, tmp_path / "new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["d"]
