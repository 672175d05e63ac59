import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cdred.data.formats.lerobot_read import is_lerobot, read_lerobot
from cdred.errors import UserError

# Written by LeRobot itself; the README in that folder describes the content.
FILES = Path(__file__).parent / "lerobot"
EPISODES = ((0, 5), (1, 4))


@pytest.fixture(params=["v3.0", "v2.1"])
def lerobot_dataset(request, tmp_path):
    """Return a copy of a dataset that LeRobot wrote."""
    return Path(shutil.copytree(FILES / request.param, tmp_path / "d"))


@pytest.fixture
def v3_dataset(tmp_path):
    """Return a copy of the version 3 dataset."""
    return Path(shutil.copytree(FILES / "v3.0", tmp_path / "d"))


def edit(path, change):
    """Apply `change` to the dict in a JSON file."""
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


def test_frames_become_steps_except_the_last(lerobot_dataset):
    assert is_lerobot(lerobot_dataset)
    dataset = read_lerobot(lerobot_dataset)
    for trajectory, (episode, frames) in zip(dataset, EPISODES, strict=True):
        time = np.arange(frames)
        expected = np.stack([0 * time + episode, time, 0 * time + 0.5, 10 * episode + time], axis=1)
        np.testing.assert_array_equal(trajectory.obs, expected)
        np.testing.assert_array_equal(trajectory.action, np.stack([episode - 3 * time, time], axis=1)[:-1])
        np.testing.assert_array_equal(trajectory.reward, time[:-1])
        assert trajectory.success.tolist() == [False] * (frames - 2) + [True]
        assert (trajectory.terminated, trajectory.truncated, trajectory.seed) == (False, True, None)
        assert (trajectory.obs.dtype, trajectory.action.dtype, trajectory.reward.dtype) == (np.float32,) * 3


def test_metadata_is_kept_in_provenance(lerobot_dataset):
    dataset = read_lerobot(lerobot_dataset)
    assert dataset.task == ""
    assert dataset.provenance["format"].startswith("LeRobotDataset v")
    assert dataset.provenance["tasks"] == ["push 0", "push 1"]
    assert dataset.provenance["fps"] == 20
    assert dataset.provenance["obs_keys"] == ["observation.state", "observation.environment_state"]
    assert "last action" in dataset.provenance["dropped"]


def test_named_features_are_concatenated_in_order(lerobot_dataset):
    dataset = read_lerobot(lerobot_dataset, ["observation.environment_state", "observation.state"])
    np.testing.assert_array_equal(dataset[1].obs[2], [12, 1, 2, 0.5])
    assert read_lerobot(lerobot_dataset, ["observation.state"])[0].obs.shape == (5, 3)


def test_scalar_feature_is_a_vector_of_one(lerobot_dataset):
    edit(lerobot_dataset / "meta/info.json", feature("observation.environment_state", shape=[]))
    dataset = read_lerobot(lerobot_dataset, ["observation.environment_state"])
    assert [trajectory.obs.tolist() for trajectory in dataset] == [[[0], [1], [2], [3], [4]], [[10], [11], [12], [13]]]


def test_missing_actions_rewards_success_are_unknown(lerobot_dataset):
    def forget(info):
        for name in ("action", "next.reward", "next.success"):
            del info["features"][name]

    edit(lerobot_dataset / "meta/info.json", forget)
    dataset = read_lerobot(lerobot_dataset)
    assert not dataset.has_actions
    assert (dataset[0].action.shape, dataset[0].success, dataset[0].reward) == ((4, 0), None, None)


def test_split_data_files_read_the_same(v3_dataset):
    expected = read_lerobot(v3_dataset)
    file = v3_dataset / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    pq.write_table(table.slice(0, 5), file)
    pq.write_table(table.slice(5), v3_dataset / "data/chunk-000/file-001.parquet")
    calls = []
    actual = read_lerobot(v3_dataset, on_progress=lambda *numbers: calls.append(numbers))
    assert calls == [(1, 2), (2, 2)]
    for x, y in zip(expected, actual, strict=True):
        np.testing.assert_array_equal(x.obs, y.obs)
        np.testing.assert_array_equal(x.action, y.action)


def test_batches_smaller_than_an_episode_are_joined(v3_dataset, monkeypatch):
    expected = read_lerobot(v3_dataset)
    monkeypatch.setattr("cdred.data.formats.arrow.BATCH_ROWS", 2)
    for x, y in zip(expected, read_lerobot(v3_dataset), strict=True):
        np.testing.assert_array_equal(x.obs, y.obs)
        np.testing.assert_array_equal(x.action, y.action)
        np.testing.assert_array_equal(x.success, y.success)


def feature(name, **fields):
    return lambda info: info["features"].update({name: info["features"].get(name, {}) | fields})


@pytest.mark.parametrize(
    ("change", "obs_keys", "message"),
    [
        (
            lambda info: info.update(codebase_version="v1.6"),
            None,
            r"info.json: codebase_version is v1.6; known are v3.0",
        ),
        (lambda info: info.pop("features"), None, r"info.json: its 'features' are not as LeRobot writes them"),
        (lambda info: info.update(total_episodes=3), None, r"info.json declares total_episodes 3, but .* hold 2"),
        (
            feature("action", shape=[3]),
            None,
            r"file-000.parquet: 'action' has 2 numbers per row, expected shape \(3,\)",
        ),
        (feature("next.reward2", shape=[1], dtype="float32"), ["next.reward2"], r"no column 'next.reward2' in it"),
        (feature("eye", shape=[8, 8, 3], dtype="video"), ["eye"], "'eye' holds images or text"),
        (feature("eye", shape=[8, 8, 3], dtype="video"), ["eye", "observation.state"], "'eye' has shape"),
        (lambda _: None, ["state"], r"no observation 'state' in it \(available: observation.state \(3,\)"),
    ],
)
def test_malformed_info_is_named(v3_dataset, change, obs_keys, message):
    edit(v3_dataset / "meta/info.json", change)
    with pytest.raises(UserError, match=message):
        read_lerobot(v3_dataset, obs_keys)


def test_nonstandard_observations_must_be_named(v3_dataset):
    def rename(info):
        for name in ("observation.state", "observation.environment_state"):
            info["features"][f"my.{name}"] = info["features"].pop(name)

    edit(v3_dataset / "meta/info.json", rename)
    with pytest.raises(UserError, match=r"none of observation.state, .*--obs-keys \(available: .*my.observation.state"):
        read_lerobot(v3_dataset)


def test_damaged_files_are_named(v3_dataset):
    file = v3_dataset / "data/chunk-000/file-000.parquet"
    file.write_bytes(b"PAR1 broken")
    with pytest.raises(UserError, match=r"file-000.parquet cannot be read as Parquet"):
        read_lerobot(v3_dataset)
    (v3_dataset / "meta/info.json").write_text("{")
    with pytest.raises(UserError, match=r"info.json cannot be read as JSON"):
        read_lerobot(v3_dataset)
    (v3_dataset / "meta/info.json").write_text("[]")
    with pytest.raises(UserError, match="expected a JSON object"):
        read_lerobot(v3_dataset)


def test_ragged_and_text_columns_are_rejected(v3_dataset):
    file = v3_dataset / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    column = table.column_names.index("action")
    ragged = pa.array([[1.0, 2.0]] * 8 + [[1.0]])
    pq.write_table(table.set_column(column, "action", ragged), file)
    with pytest.raises(UserError, match="'action' holds lists of different lengths"):
        read_lerobot(v3_dataset)
    pq.write_table(table.set_column(column, "action", pa.array(["left"] * 9)), file)
    with pytest.raises(UserError, match=r"'action' holds .*, expected numbers"):
        read_lerobot(v3_dataset)


def test_malformed_task_file_is_rejected(tmp_path):
    path = shutil.copytree(FILES / "v2.1", tmp_path / "d")
    (path / "meta/tasks.jsonl").write_text('{"task_index": 0}\n')
    with pytest.raises(UserError, match=r"tasks.jsonl is not JSON lines as LeRobot writes them"):
        read_lerobot(path)


def test_missing_pyarrow_gives_install_hint(v3_dataset, monkeypatch):
    def missing(name, *_):
        raise ModuleNotFoundError(f"No module named {name!r}", name="pyarrow")

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(UserError, match=r"needs pyarrow, which is not installed: pip install 'cdred\[formats\]'"):
        read_lerobot(v3_dataset)
