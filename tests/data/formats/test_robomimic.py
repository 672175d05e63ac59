import json

import h5py
import numpy as np
import pytest

from cdred.data.formats.robomimic import is_robomimic, read_robomimic
from cdred.errors import UserError

STEPS = 5


def write(path, *, next_obs=True, demos=(0, 10, 2), env_args=None):
    """A file as robomimic's documentation lays it out: three demonstrations, named out of order, with a camera."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = env_args or json.dumps({"env_name": "Lift", "env_type": 1, "env_kwargs": {}})
        for number in demos:
            group = data.create_group(f"demo_{number}")
            group.attrs["num_samples"] = STEPS
            time = np.arange(STEPS + 1, dtype=np.float64)
            full = {
                "eef_pos": number + np.stack([time, -time], axis=1),
                "agentview_image": np.zeros((STEPS + 1, 4, 4, 3), np.uint8),
                "gripper": 100 * time,
            }
            for key, values in full.items():
                group[f"obs/{key}"] = values[:-1]
                if next_obs:
                    group[f"next_obs/{key}"] = values[1:]
            group["actions"] = np.full((STEPS, 2), 0.01 * number)
            group["rewards"] = time[1:]
            group["dones"] = np.arange(STEPS) >= STEPS - 2
        file["mask/train"] = np.array([b"demo_0"])
    return path


def test_vectors_are_joined_by_name_and_the_final_observation_is_that_of_next_obs(tmp_path):
    dataset = read_robomimic(write(tmp_path / "d.hdf5"))
    assert [one.action[0, 0] for one in dataset] == pytest.approx([0.0, 0.02, 0.1])
    time = np.arange(STEPS + 1)
    np.testing.assert_array_equal(dataset[1].obs, np.stack([2 + time, 2 - time, 100 * time], axis=1))
    assert (dataset[1].obs.dtype, len(dataset[1])) == (np.float32, STEPS)
    np.testing.assert_array_equal(dataset[1].reward, time[1:])
    assert (dataset.task, dataset[0].success, dataset[0].seed) == ("", None, None)
    assert dataset.provenance == {
        "format": "robomimic HDF5",
        "env_name": "Lift",
        "obs_keys": ["eef_pos", "gripper"],
        "obs_left_out": ["agentview_image"],
    }


def test_dones_are_no_end_of_the_world(tmp_path):
    assert {(one.terminated, one.truncated) for one in read_robomimic(write(tmp_path / "d.hdf5"))} == {(False, True)}


def test_without_next_obs_the_last_action_is_left_out(tmp_path):
    whole = read_robomimic(write(tmp_path / "whole.hdf5"))
    dataset = read_robomimic(write(tmp_path / "d.hdf5", next_obs=False))
    assert "last action" in dataset.provenance["dropped"]
    assert "dropped" not in whole.provenance
    np.testing.assert_array_equal(dataset[1].obs, whole[1].obs[:-1])
    np.testing.assert_array_equal(dataset[1].action, whole[1].action[:-1])
    np.testing.assert_array_equal(dataset[1].reward, whole[1].reward[:-1])


def test_named_observations_are_taken_in_their_order(tmp_path):
    dataset = read_robomimic(write(tmp_path / "d.hdf5"), ["gripper", "eef_pos"])
    np.testing.assert_array_equal(dataset[0].obs[1], [100, 1, -1])
    pictures = read_robomimic(tmp_path / "d.hdf5", ["agentview_image"])
    assert pictures[0].obs.shape == (STEPS + 1, 4, 4, 3)


def test_what_robomimic_may_leave_out(tmp_path):
    with h5py.File(write(tmp_path / "d.hdf5"), "a") as file:
        for key in ("rewards", "dones", "actions"):
            for name in file["data"]:
                del file["data"][name][key]
        del file["data"].attrs["env_args"]
    dataset = read_robomimic(tmp_path / "d.hdf5")
    assert dataset[0].episode_return == 0
    assert dataset[0].action.shape == (STEPS, 0)
    assert not dataset.has_actions


def test_progress_is_told_after_each_demonstration(tmp_path):
    told = []
    read_robomimic(write(tmp_path / "d.hdf5"), on_progress=lambda *numbers: told.append(numbers))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_only_a_data_group_with_demonstrations_is_robomimic(tmp_path):
    assert is_robomimic(write(tmp_path / "d.hdf5"))
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["data"] = np.zeros(3)
    assert not is_robomimic(tmp_path / "other.hdf5")


def test_what_is_wrong_is_named(tmp_path):
    path = write(tmp_path / "d.hdf5")
    with pytest.raises(UserError, match=r"no observation 'eff_pos' in it .*eef_pos"):
        read_robomimic(path, ["eff_pos"])
    with h5py.File(path, "a") as file:
        del file["data/demo_10/obs"]
    with pytest.raises(UserError, match=r"d.hdf5, demo_10: no 'obs' in it .*dataset_states_to_obs.py"):
        read_robomimic(path)
    with pytest.raises(UserError, match="env_args of 'data' is not JSON"):
        read_robomimic(write(tmp_path / "e.hdf5", env_args="{"))
