import h5py
import numpy as np
import pytest

from cdred.data.formats.robomimic import is_robomimic, read_robomimic
from cdred.errors import UserError
from demo_files import ROBOMIMIC_STEPS, write_robomimic


def test_final_observation_is_taken_from_next_obs(tmp_path):
    dataset = read_robomimic(write_robomimic(tmp_path / "d.hdf5"))
    assert [trajectory.action[0, 0] for trajectory in dataset] == pytest.approx([0.0, 0.02, 0.1])
    time = np.arange(ROBOMIMIC_STEPS + 1)
    np.testing.assert_array_equal(dataset[1].obs, np.stack([2 + time, 2 - time, 100 * time], axis=1))
    assert (dataset[1].obs.dtype, len(dataset[1])) == (np.float32, ROBOMIMIC_STEPS)
    np.testing.assert_array_equal(dataset[1].reward, time[1:])
    assert (dataset.task, dataset[0].success, dataset[0].seed) == ("", None, None)
    assert dataset.provenance == {
        "format": "robomimic HDF5",
        "env_name": "Lift",
        "obs_keys": ["eef_pos", "gripper"],
        "obs_widths": [2, 1],
        "obs_order": "default of the file's reader",
        "obs_left_out": ["agentview_image"],
        "cameras": {"agentview_image": "4 x 4"},
    }


def test_dones_do_not_mean_termination(tmp_path):
    assert {
        (trajectory.terminated, trajectory.truncated)
        for trajectory in read_robomimic(write_robomimic(tmp_path / "d.hdf5"))
    } == {(False, True)}


def test_without_next_obs_last_action_is_dropped(tmp_path):
    with_next_obs = read_robomimic(write_robomimic(tmp_path / "whole.hdf5"))
    dataset = read_robomimic(write_robomimic(tmp_path / "d.hdf5", next_obs=False))
    assert "last action" in dataset.provenance["dropped"]
    assert "dropped" not in with_next_obs.provenance
    np.testing.assert_array_equal(dataset[1].obs, with_next_obs[1].obs[:-1])
    np.testing.assert_array_equal(dataset[1].action, with_next_obs[1].action[:-1])
    np.testing.assert_array_equal(dataset[1].reward, with_next_obs[1].reward[:-1])


def test_unknown_rewards_survive_dropping_the_last_action(tmp_path):
    with h5py.File(write_robomimic(tmp_path / "d.hdf5", next_obs=False), "a") as file:
        del file["data/demo_2/rewards"]
    dataset = read_robomimic(tmp_path / "d.hdf5")
    assert [trajectory.reward is None for trajectory in dataset] == [False, True, False]


def test_named_observations_are_concatenated_in_order(tmp_path):
    dataset = read_robomimic(write_robomimic(tmp_path / "d.hdf5"), ["gripper", "eef_pos"])
    np.testing.assert_array_equal(dataset[0].obs[1], [100, 1, -1])
    images = read_robomimic(tmp_path / "d.hdf5", ["agentview_image"])
    assert images[0].obs.shape == (ROBOMIMIC_STEPS + 1, 4, 4, 3)


def test_missing_optional_arrays_are_unknown(tmp_path):
    with h5py.File(write_robomimic(tmp_path / "d.hdf5"), "a") as file:
        for key in ("rewards", "dones", "actions"):
            for name in file["data"]:
                del file["data"][name][key]
        del file["data"].attrs["env_args"]
    dataset = read_robomimic(tmp_path / "d.hdf5")
    assert dataset[0].reward is None
    assert dataset[0].action.shape == (ROBOMIMIC_STEPS, 0)
    assert not dataset.has_actions


def test_progress_is_reported_after_each_demonstration(tmp_path):
    calls = []
    read_robomimic(write_robomimic(tmp_path / "d.hdf5"), on_progress=lambda *numbers: calls.append(numbers))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_format_requires_data_group(tmp_path):
    assert is_robomimic(write_robomimic(tmp_path / "d.hdf5"))
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["data"] = np.zeros(3)
    assert not is_robomimic(tmp_path / "other.hdf5")


def test_malformed_file_is_named(tmp_path):
    path = write_robomimic(tmp_path / "d.hdf5")
    with pytest.raises(UserError, match=r"no observation 'eff_pos' in it .*eef_pos"):
        read_robomimic(path, ["eff_pos"])
    with h5py.File(path, "a") as file:
        del file["data/demo_10/obs"]
    with pytest.raises(UserError, match=r"d.hdf5, demo_10: no 'obs' in it .*dataset_states_to_obs.py"):
        read_robomimic(path)
    with pytest.raises(UserError, match="env_args of 'data' is not JSON"):
        read_robomimic(write_robomimic(tmp_path / "e.hdf5", env_args="{"))


@pytest.mark.parametrize("next_obs", [True, False])
@pytest.mark.parametrize("num_samples", [0, 4, 6, 500])
def test_num_samples_must_agree_with_the_rows(tmp_path, next_obs, num_samples):
    with h5py.File(write_robomimic(tmp_path / "d.hdf5", next_obs=next_obs), "a") as file:
        file["data/demo_2"].attrs["num_samples"] = num_samples
    with pytest.raises(
        UserError, match=f"d.hdf5, demo_2: the attribute 'num_samples' is {num_samples}, but the file holds 5 rows"
    ):
        read_robomimic(tmp_path / "d.hdf5")


@pytest.mark.parametrize("next_obs", [True, False])
def test_total_must_agree_with_the_rows(tmp_path, next_obs):
    path = write_robomimic(tmp_path / "d.hdf5", next_obs=next_obs)
    with h5py.File(path, "a") as file:
        del file["data/demo_2"]
    with pytest.raises(UserError, match="'total' of 'data' is 15, but the file holds 10 rows"):
        read_robomimic(path)
    with h5py.File(path, "a") as file:
        file["data"].attrs["total"] = 10
    assert len(read_robomimic(path)) == 2


def test_missing_counts_are_accepted(tmp_path):
    expected = read_robomimic(write_robomimic(tmp_path / "d.hdf5"))
    with h5py.File(tmp_path / "d.hdf5", "a") as file:
        del file["data"].attrs["total"]
        for name in file["data"]:
            del file["data"][name].attrs["num_samples"]
    for x, y in zip(expected, read_robomimic(tmp_path / "d.hdf5"), strict=True):
        np.testing.assert_array_equal(x.obs, y.obs)


@pytest.mark.parametrize("next_obs", [True, False])
@pytest.mark.parametrize("key", ["actions", "rewards"])
def test_arrays_of_different_lengths_are_named(tmp_path, key, next_obs):
    with h5py.File(write_robomimic(tmp_path / "d.hdf5", next_obs=next_obs), "a") as file:
        values = file[f"data/demo_2/{key}"][:-1]
        del file[f"data/demo_2/{key}"]
        file[f"data/demo_2/{key}"] = values
    with pytest.raises(UserError, match=f"demo_2: its arrays differ in their number of rows.*'obs' 5.*'{key}' 4"):
        read_robomimic(tmp_path / "d.hdf5")


@pytest.mark.parametrize("rows", [4, 6])
def test_next_obs_must_have_the_rows_of_obs(tmp_path, rows):
    with h5py.File(write_robomimic(tmp_path / "d.hdf5"), "a") as file:
        for key in file["data/demo_2/next_obs"]:
            shape = file[f"data/demo_2/next_obs/{key}"].shape
            del file[f"data/demo_2/next_obs/{key}"]
            file[f"data/demo_2/next_obs/{key}"] = np.zeros((rows, *shape[1:]))
    with pytest.raises(UserError, match=f"demo_2: 'next_obs' has .*'eef_pos': {rows}.* rows, expected 5, as in 'obs'"):
        read_robomimic(tmp_path / "d.hdf5")
