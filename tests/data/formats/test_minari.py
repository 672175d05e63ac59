import json
import os

import h5py
import minari
import numpy as np
import pytest
from minari import MinariDataset

from cdred.data.formats.minari import read_minari, save_minari
from cdred.errors import UserError
from cdred.types import DemoDataset


@pytest.fixture
def saved(demos, tmp_path):
    """Return the folder in which `demos` are saved."""
    save_minari(demos, tmp_path / "deep" / "fake-v0")
    return tmp_path / "deep" / "fake-v0"


def test_round_trip_is_lossless(demos, saved, assert_equal):
    assert_equal(demos, read_minari(saved))
    assert_equal(demos, read_minari(saved / "data"))
    assert [entry.name for entry in saved.parent.iterdir()] == ["fake-v0"]


def test_unknown_success_and_seed_stay_unknown(make_trajectory, tmp_path, assert_equal):
    plain = DemoDataset("probe/fake", (make_trajectory(success=None, seed=None),), {"expert": "me"})
    save_minari(plain, tmp_path / "d")
    assert_equal(plain, read_minari(tmp_path / "d"))


def check_with_minari(dataset, demos):
    assert (dataset.total_episodes, dataset.total_steps) == (3, 16)
    assert dataset.observation_space.shape == (3,)
    assert dataset.action_space.low.tolist() == [-1, -1]
    for expected, actual in zip(demos, dataset.iterate_episodes(), strict=True):
        np.testing.assert_array_equal(actual.observations, expected.obs)
        np.testing.assert_array_equal(actual.actions, expected.action)
        np.testing.assert_array_equal(actual.rewards, expected.reward)
        np.testing.assert_array_equal(actual.infos["success"], [False, *expected.success])
        assert {array.dtype for array in (actual.observations, actual.actions, actual.rewards)} == {np.dtype("float32")}
        assert actual.terminations.tolist() == [False] * (len(expected) - 1) + [expected.terminated]
        assert actual.truncations.tolist() == [False] * (len(expected) - 1) + [expected.truncated]
    assert [meta["seed"] for meta in dataset.storage.get_episode_metadata(range(3))] == [
        trajectory.seed for trajectory in demos
    ]


def test_minari_opens_saved_folder(demos, saved):
    check_with_minari(MinariDataset(saved / "data"), demos)


def test_minari_loads_saved_dataset_by_name(demos, saved, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(saved.parent))
    check_with_minari(minari.load_dataset("fake-v0"), demos)


def test_dataset_created_by_minari_is_read(tmp_path, monkeypatch, make_trajectory):
    from gymnasium.spaces import Box
    from minari.data_collector import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    trajectory = make_trajectory()
    buffer = EpisodeBuffer(
        observations=list(trajectory.obs.astype(np.float64)),
        actions=list(trajectory.action),
        rewards=trajectory.reward.tolist(),
        terminations=[False] * 6,
        truncations=[False] * 5 + [True],
    )
    spaces = {"observation_space": Box(-9, 9, (3,)), "action_space": Box(-1, 1, (2,))}
    minari.create_dataset_from_buffers("theirs-v0", [buffer], **spaces, author="author", code_permalink="x")
    dataset = read_minari(tmp_path / "theirs-v0")
    np.testing.assert_array_equal(dataset[0].obs, trajectory.obs)
    np.testing.assert_array_equal(dataset[0].reward, trajectory.reward)
    assert (dataset.task, dataset[0].truncated, dataset[0].success) == ("", True, None)
    assert dataset.provenance["dataset_id"] == "theirs-v0"


def test_saving_keeps_environment_variables(demos, tmp_path):
    before = dict(os.environ)
    save_minari(demos, tmp_path / "d")
    assert dict(os.environ) == before


def test_only_empty_folder_is_filled(demos, tmp_path):
    (tmp_path / "empty").mkdir()
    save_minari(demos, tmp_path / "empty")
    with pytest.raises(UserError, match="exists already"):
        save_minari(demos, tmp_path / "empty")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        save_minari(demos, tmp_path / "file")


def test_failure_leaves_no_files(demos, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("cdred.data.formats.minari._write", fail)
    with pytest.raises(OSError, match="disk full"):
        save_minari(demos, tmp_path / "d")
    assert not list(tmp_path.iterdir())


def delete(key):
    def change(file):
        del file["episode_1"][key]

    return change


def put(key, value):
    def change(file):
        if key in file["episode_1"]:
            del file["episode_1"][key]
        file["episode_1"][key] = value

    return change


def split(file):
    delete("actions")(file)
    file["episode_1/actions/part"] = np.zeros((4, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (delete("terminations"), "no 'terminations' in it"),
        (split, "'actions' is a group of arrays"),
        (put("actions", np.array([b"left"] * 4)), "'actions' holds .*, expected numbers"),
        (put("terminations", np.ones(4, bool)), "'terminations' must be one flag per action"),
        (put("truncations", np.zeros(9, bool)), "'truncations' must be one flag per action"),
    ],
)
def test_malformed_episode_is_named(saved, change, message):
    with h5py.File(saved / "data" / "main_data.hdf5", "a") as file:
        change(file)
    with pytest.raises(UserError, match=f"main_data.hdf5, episode_1: {message}"):
        read_minari(saved)


def test_missing_rewards_are_unknown(saved):
    with h5py.File(saved / "data" / "main_data.hdf5", "a") as file:
        delete("rewards")(file)
    dataset = read_minari(saved)
    assert [trajectory.reward is None for trajectory in dataset] == [False, True, False]


def test_minari_reads_unknown_rewards_as_nan(make_trajectory, tmp_path):
    dataset = DemoDataset("", (make_trajectory(reward=None),))
    save_minari(dataset, tmp_path / "d")
    (episode,) = MinariDataset(tmp_path / "d" / "data").iterate_episodes()
    np.testing.assert_array_equal(episode.rewards, np.full(6, np.nan))


def test_damaged_files_are_rejected(saved):
    metadata = saved / "data" / "metadata.json"
    (saved / "data" / "main_data.hdf5").write_bytes(b"broken")
    with pytest.raises(UserError, match="cannot be read as HDF5"):
        read_minari(saved)
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | {"data_format": "zarr"}))
    with pytest.raises(UserError, match="'zarr'; known are hdf5, arrow and parquet"):
        read_minari(saved)
    metadata.write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        read_minari(saved)


def test_folder_without_metadata_is_rejected(tmp_path):
    with pytest.raises(UserError, match="not a Minari dataset"):
        read_minari(tmp_path)
