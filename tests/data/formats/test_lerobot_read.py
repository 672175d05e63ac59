import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cdred.data.formats.lerobot_read import is_lerobot, read_lerobot
from cdred.errors import UserError

# Written by LeRobot itself; the README there says what is in them.
FILES = Path(__file__).parent / "lerobot"
EPISODES = ((0, 5), (1, 4))


@pytest.fixture(params=["v3.0", "v2.1"])
def theirs(request, tmp_path):
    """A copy of a dataset that LeRobot wrote."""
    return Path(shutil.copytree(FILES / request.param, tmp_path / "d"))


@pytest.fixture
def newest(tmp_path):
    """A copy of the dataset in version 3."""
    return Path(shutil.copytree(FILES / "v3.0", tmp_path / "d"))


def edit(path, change):
    """Let `change` have its way with the dict in a JSON file."""
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


def test_frames_become_decisions_but_the_last_which_nothing_was_seen_after(theirs):
    assert is_lerobot(theirs)
    dataset = read_lerobot(theirs)
    for one, (episode, frames) in zip(dataset, EPISODES, strict=True):
        time = np.arange(frames)
        expected = np.stack([0 * time + episode, time, 0 * time + 0.5, 10 * episode + time], axis=1)
        np.testing.assert_array_equal(one.obs, expected)
        np.testing.assert_array_equal(one.action, np.stack([episode - 3 * time, time], axis=1)[:-1])
        np.testing.assert_array_equal(one.reward, time[:-1])
        assert one.success.tolist() == [False] * (frames - 2) + [True]
        assert (one.terminated, one.truncated, one.seed) == (False, True, None)
        assert (one.obs.dtype, one.action.dtype, one.reward.dtype) == (np.float32,) * 3


def test_the_provenance_says_what_the_file_knows(theirs):
    dataset = read_lerobot(theirs)
    assert dataset.task == ""
    assert dataset.provenance["format"].startswith("LeRobotDataset v")
    assert dataset.provenance["tasks"] == ["push 0", "push 1"]
    assert dataset.provenance["fps"] == 20
    assert dataset.provenance["obs_keys"] == ["observation.state", "observation.environment_state"]
    assert "last action" in dataset.provenance["dropped"]


def test_named_features_are_taken_in_their_order(theirs):
    dataset = read_lerobot(theirs, ["observation.environment_state", "observation.state"])
    np.testing.assert_array_equal(dataset[1].obs[2], [12, 1, 2, 0.5])
    assert read_lerobot(theirs, ["observation.state"])[0].obs.shape == (5, 3)


def test_a_dataset_without_actions_rewards_and_success(theirs):
    def forget(info):
        for name in ("action", "next.reward", "next.success"):
            del info["features"][name]

    edit(theirs / "meta/info.json", forget)
    dataset = read_lerobot(theirs)
    assert not dataset.has_actions
    assert (dataset[0].action.shape, dataset[0].success, dataset[0].episode_return) == ((4, 0), None, 0)


def test_many_small_files_and_one_large_are_the_same(newest):
    once = read_lerobot(newest)
    file = newest / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    pq.write_table(table.slice(0, 5), file)
    pq.write_table(table.slice(5), newest / "data/chunk-000/file-001.parquet")
    told = []
    twice = read_lerobot(newest, on_progress=lambda *numbers: told.append(numbers))
    assert told == [(1, 2), (2, 2)]
    for a, b in zip(once, twice, strict=True):
        np.testing.assert_array_equal(a.obs, b.obs)
        np.testing.assert_array_equal(a.action, b.action)


def test_batches_smaller_than_an_episode_are_put_together(newest, monkeypatch):
    once = read_lerobot(newest)
    monkeypatch.setattr("cdred.data.formats.arrow.BATCH_ROWS", 2)
    for a, b in zip(once, read_lerobot(newest), strict=True):
        np.testing.assert_array_equal(a.obs, b.obs)
        np.testing.assert_array_equal(a.action, b.action)
        np.testing.assert_array_equal(a.success, b.success)


def feature(name, **fields):
    return lambda info: info["features"].update({name: info["features"].get(name, {}) | fields})


@pytest.mark.parametrize(
    ("change", "obs_keys", "says"),
    [
        (
            lambda info: info.update(codebase_version="v1.6"),
            None,
            r"info.json: codebase_version is v1.6; known are v3.0",
        ),
        (lambda info: info.pop("features"), None, r"info.json: its 'features' are not as LeRobot writes them"),
        (lambda info: info.update(total_episodes=3), None, r"hold 2 episodes in 2 pieces, but .* says 3"),
        (feature("action", shape=[3]), None, r"file-000.parquet: 'action' has 2 numbers a row, expected shape \(3,\)"),
        (feature("next.reward2", shape=[1], dtype="float32"), ["next.reward2"], r"no column 'next.reward2' in it"),
        (feature("eye", shape=[8, 8, 3], dtype="video"), ["eye"], "'eye' holds pictures or texts"),
        (feature("eye", shape=[8, 8, 3], dtype="video"), ["eye", "observation.state"], "'eye' has shape"),
        (lambda _: None, ["state"], r"no observation 'state' in it \(there are: observation.state \(3,\)"),
    ],
)
def test_what_is_wrong_is_named(newest, change, obs_keys, says):
    edit(newest / "meta/info.json", change)
    with pytest.raises(UserError, match=says):
        read_lerobot(newest, obs_keys)


def test_observations_by_other_names_have_to_be_named(newest):
    def rename(info):
        for name in ("observation.state", "observation.environment_state"):
            info["features"][f"my.{name}"] = info["features"].pop(name)

    edit(newest / "meta/info.json", rename)
    with pytest.raises(UserError, match=r"none of observation.state, .*--obs-keys \(there are: .*my.observation.state"):
        read_lerobot(newest)


def test_damaged_files_are_named(newest):
    file = newest / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    pq.write_table(pa.concat_tables([table.slice(5), table.slice(0, 3), table.slice(5)]), file)
    with pytest.raises(UserError, match="2 episodes in 3 pieces"):
        read_lerobot(newest)
    pq.write_table(table.drop_columns(["episode_index"]), file)
    with pytest.raises(UserError, match="no column 'episode_index'"):
        read_lerobot(newest)
    file.write_bytes(b"PAR1 broken")
    with pytest.raises(UserError, match=r"file-000.parquet cannot be read as Parquet"):
        read_lerobot(newest)
    (newest / "meta/info.json").write_text("{")
    with pytest.raises(UserError, match=r"info.json cannot be read as JSON"):
        read_lerobot(newest)
    (newest / "meta/info.json").write_text("[]")
    with pytest.raises(UserError, match="expected a JSON object"):
        read_lerobot(newest)


def test_ragged_and_wordy_columns_are_refused(newest):
    file = newest / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    place = table.column_names.index("action")
    ragged = pa.array([[1.0, 2.0]] * 8 + [[1.0]])
    pq.write_table(table.set_column(place, "action", ragged), file)
    with pytest.raises(UserError, match="'action' holds lists of different lengths"):
        read_lerobot(newest)
    pq.write_table(table.set_column(place, "action", pa.array(["left"] * 9)), file)
    with pytest.raises(UserError, match=r"'action' holds .*, expected numbers"):
        read_lerobot(newest)


def test_tasks_that_are_not_json_lines_are_refused(tmp_path):
    path = shutil.copytree(FILES / "v2.1", tmp_path / "d")
    (path / "meta/tasks.jsonl").write_text('{"task_index": 0}\n')
    with pytest.raises(UserError, match=r"tasks.jsonl is not JSON lines as LeRobot writes them"):
        read_lerobot(path)


def test_without_pyarrow_the_mend_is_told(newest, monkeypatch):
    def missing(name, *_):
        raise ModuleNotFoundError(f"No module named {name!r}", name="pyarrow")

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(UserError, match=r"needs pyarrow, which is not installed: pip install 'cdred\[formats\]'"):
        read_lerobot(newest)
