"""Frames of LeRobot datasets are put in order, and must agree with the metadata."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cdred.data.formats.lerobot_read import read_lerobot
from cdred.data.formats.lerobot_write import save_lerobot
from cdred.errors import UserError

FILES = Path(__file__).parent / "lerobot"
VERSIONS = ("v3.0", "v2.1")
FIRST_FILE = {"v3.0": "data/chunk-000/file-000.parquet", "v2.1": "data/chunk-000/episode_000000.parquet"}
EPISODES = "meta/episodes/chunk-000/file-000.parquet"


@pytest.fixture
def copy(tmp_path):
    """Return a function that copies the dataset of a version: episodes of 5 and 4 frames, written by LeRobot."""
    return lambda version: Path(shutil.copytree(FILES / version, tmp_path / "d"))


def edit_rows(path, change):
    """Replace the rows of a Parquet file, as a list of dicts, by `change(rows)`."""
    table = pq.read_table(path)
    pq.write_table(pa.Table.from_pylist(change(table.to_pylist()), table.schema), path)


def edit_episode(path, version, **fields):
    """Set fields of the metadata of episode 0; None removes it from the metadata."""

    def change(rows):
        return [row | fields for row in rows[:1]] + rows[1:] if fields else rows[1:]

    if version == "v3.0":
        edit_rows(path / EPISODES, change)
    else:
        lines = path / "meta/episodes.jsonl"
        rows = change([json.loads(line) for line in lines.read_text().splitlines()])
        lines.write_text("\n".join(map(json.dumps, rows)))


def with_value(row, name, value):
    """Return a function that sets one value of a list of rows."""
    return lambda rows: [old | {name: value} if index == row else old for index, old in enumerate(rows)]


def assert_same_frames(actual, expected):
    assert len(actual) == len(expected)
    for x, y in zip(actual, expected, strict=True):
        for key in ("obs", "action", "reward", "success"):
            np.testing.assert_array_equal(getattr(x, key), getattr(y, key))


ORDERS = {
    "first episode reversed": [4, 3, 2, 1, 0, 5, 6, 7, 8],
    "second episode reversed": [0, 1, 2, 3, 4, 8, 7, 6, 5],
    "two rows swapped": [0, 2, 1, 3, 4, 5, 6, 7, 8],
    "episodes interleaved": [0, 5, 1, 6, 2, 7, 3, 8, 4],
    "second episode first": [5, 6, 7, 8, 0, 1, 2, 3, 4],
    "shuffled": [7, 2, 8, 0, 4, 6, 1, 5, 3],
}


@pytest.mark.parametrize("batch_rows", [2, 2048])
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_rows_of_one_file_are_ordered(copy, monkeypatch, order, batch_rows):
    monkeypatch.setattr("cdred.data.formats.arrow.BATCH_ROWS", batch_rows)
    path = copy("v3.0")
    edit_rows(path / FIRST_FILE["v3.0"], lambda rows: [rows[index] for index in order])
    assert_same_frames(read_lerobot(path), read_lerobot(FILES / "v3.0"))


@pytest.mark.parametrize("order", [[4, 3, 2, 1, 0], [1, 0, 2, 4, 3]])
def test_rows_of_a_v2_file_are_ordered(copy, order):
    path = copy("v2.1")
    edit_rows(path / FIRST_FILE["v2.1"], lambda rows: [rows[index] for index in order])
    assert_same_frames(read_lerobot(path), read_lerobot(FILES / "v2.1"))


def test_episode_spread_over_files_is_ordered(copy):
    path = copy("v3.0")
    file = path / FIRST_FILE["v3.0"]
    table = pq.read_table(file)
    pq.write_table(table.take([8, 3, 6, 1]), file)
    pq.write_table(table.take([4, 0, 7, 2, 5]), file.with_name("file-001.parquet"))
    assert_same_frames(read_lerobot(path), read_lerobot(FILES / "v3.0"))


@pytest.mark.parametrize("order", [list(range(15, -1, -1)), [0, 6, 1, 7, 2, 8, 3, 9, 4, 5, *range(15, 9, -1)]])
def test_final_observations_stay_with_their_episodes(demos, tmp_path, order, assert_equal):
    save_lerobot(demos, tmp_path / "d")
    edit_rows(tmp_path / "d" / FIRST_FILE["v3.0"], lambda rows: [rows[index] for index in order])
    assert_equal(demos, read_lerobot(tmp_path / "d"))


def drop(row):
    return lambda rows: rows[:row] + rows[row + 1 :]


WRONG_COUNTERS = {
    "gap": (drop(2), "episode 0: frame_index 2 is missing before 3"),
    "first missing": (drop(0), "episode 0: frame_index 0 is missing before 1"),
    "row twice": (lambda rows: rows + rows[3:4], "episode 0: frame_index 3 occurs more than once"),
    "frame_index twice": (with_value(4, "frame_index", 3), "episode 0: frame_index 3 occurs more than once"),
    "frame_index jumps": (with_value(4, "frame_index", 9), "episode 0: frame_index 4 is missing before 9"),
    "all zero": (lambda rows: [row | {"frame_index": 0} for row in rows], "frame_index 0 occurs more than once"),
    "index swapped": (
        lambda rows: with_value(1, "index", 2)(with_value(2, "index", 1)(rows)),
        "episode 0, frame 1: index is 2, expected 1",
    ),
    "index twice": (with_value(4, "index", 3), "episode 0, frame 4: index is 3, expected 4"),
    "negative": (with_value(0, "frame_index", -1), "'frame_index' must be one integer per row, 0 or larger"),
    "null": (with_value(2, "index", None), "'index' must be one integer per row, 0 or larger"),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("change", "message"), WRONG_COUNTERS.values(), ids=WRONG_COUNTERS)
def test_gaps_duplicates_and_contradictions_are_named(copy, version, change, message):
    path = copy(version)
    edit_rows(path / FIRST_FILE[version], change)
    with pytest.raises(UserError, match=message) as error:
        read_lerobot(path)
    assert str(path / FIRST_FILE[version]) in str(error.value)


def test_copied_file_is_a_duplicate(copy):
    path = copy("v2.1")
    file = path / FIRST_FILE["v2.1"]
    shutil.copy(file, file.with_name("episode_000002.parquet"))
    with pytest.raises(UserError, match="episode 0: frame_index 0 occurs more than once"):
        read_lerobot(path)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("column", ["frame_index", "index", "episode_index"])
def test_missing_counter_is_named(copy, version, column):
    path = copy(version)
    file = path / FIRST_FILE[version]
    pq.write_table(pq.read_table(file).drop_columns([column]), file)
    with pytest.raises(UserError, match=f"no column '{column}' in it"):
        read_lerobot(path)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("length", [0, 4, 6, 500])
def test_length_in_metadata_must_agree(copy, version, length):
    path = copy(version)
    edit_episode(path, version, length=length)
    with pytest.raises(
        UserError, match=f"d, episode 0: its metadata declare length {length}, but the data files hold 5 rows"
    ):
        read_lerobot(path)


@pytest.mark.parametrize("version", VERSIONS)
def test_episode_cut_short_is_named(copy, version):
    path = copy(version)
    edit_rows(path / FIRST_FILE[version], drop(4))
    with pytest.raises(UserError, match="episode 0: its metadata declare length 5, but the data files hold 4 rows"):
        read_lerobot(path)


@pytest.mark.parametrize("version", VERSIONS)
def test_episode_without_rows_or_metadata_is_named(copy, version):
    path = copy(version)
    edit_rows(path / FIRST_FILE[version], lambda rows: [row for row in rows if row["episode_index"]])
    with pytest.raises(UserError, match="episode 0: its metadata declare length 5, but the data files hold 0 rows"):
        read_lerobot(path)
    edit_episode(path, version)
    with pytest.raises(UserError, match="declares total_episodes 2, but the data files hold 1"):
        read_lerobot(path)
    shutil.copy(FILES / version / FIRST_FILE[version], path / FIRST_FILE[version])
    with pytest.raises(UserError, match="episode 0: its metadata are missing, but the data files hold 5 rows"):
        read_lerobot(path)


@pytest.mark.parametrize("range_", [(0, 4), (0, 6), (1, 6), (0, 0)])
def test_index_range_in_metadata_must_agree(copy, range_):
    path = copy("v3.0")
    edit_episode(path, "v3.0", dataset_from_index=range_[0], dataset_to_index=range_[1])
    message = f"episode 0: .*from_index {range_[0]} and dataset_to_index {range_[1]}, expected 0 and 5, .* hold 5 rows"
    with pytest.raises(UserError, match=message):
        read_lerobot(path)


@pytest.mark.parametrize("version", VERSIONS)
def test_episode_listed_twice_is_rejected(copy, version):
    path = copy(version)
    edit_episode(path, version, episode_index=1)
    with pytest.raises(UserError, match="2 entries for 1 episodes"):
        read_lerobot(path)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("key", "value", "total"), [("total_frames", 10, 9), ("total_episodes", 1, 2)])
def test_totals_in_info_must_agree(copy, version, key, value, total):
    path = copy(version)
    info = json.loads((path / "meta/info.json").read_text())
    (path / "meta/info.json").write_text(json.dumps(info | {key: value}))
    with pytest.raises(UserError, match=f"info.json declares {key} {value}, but the data files hold {total}"):
        read_lerobot(path)
    del info[key]
    (path / "meta/info.json").write_text(json.dumps(info))
    assert_same_frames(read_lerobot(path), read_lerobot(FILES / version))


def test_missing_episode_metadata_is_accepted_only_in_foreign_datasets(copy, demos, tmp_path):
    path = copy("v3.0")
    (path / EPISODES).unlink()
    assert_same_frames(read_lerobot(path), read_lerobot(FILES / "v3.0"))
    save_lerobot(demos, tmp_path / "ours")
    (tmp_path / "ours" / EPISODES).unlink()
    with pytest.raises(UserError, match="no meta/episodes in it"):
        read_lerobot(tmp_path / "ours")
