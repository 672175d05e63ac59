import json

import h5py
import numpy as np
import pytest

from cdred.data.demonstrations import load_demos
from cdred.data.formats.maniskill import is_maniskill, read_maniskill
from cdred.errors import UserError

STEPS = 4


def write(path, obs="state", about=True):
    """Files as `RecordEpisode` lays them out, in the observation mode `state`, `dict` or `none`."""
    time = np.arange(STEPS + 1, dtype=np.float32)
    with h5py.File(path, "w") as file:
        for number in (0, 1):
            group = file.create_group(f"traj_{number}", track_order=True)
            if obs == "state":
                group["obs"] = np.stack([time, time + number], axis=1)
            elif obs == "dict":
                group["obs/sensor_data/base/rgb"] = np.zeros((STEPS + 1, 8, 8, 3), np.uint8)
                group["obs/extra/tcp"] = np.stack([time] * 3, axis=1)
                group["obs/agent/qpos"] = -np.stack([time] * 2, axis=1)
            else:
                group["obs"] = np.zeros((STEPS + 1, 0), np.float32)
            group["actions"] = np.full((STEPS, 3), 0.5, np.float32)
            group["terminated"] = np.arange(STEPS) >= (1 if number else STEPS)
            group["truncated"] = np.arange(STEPS) == (STEPS if number else STEPS - 1)
            group["success"] = np.arange(STEPS) >= 1
            group["env_states/actors/cube"] = np.stack([time] * 13, axis=1)
    if about:
        episodes = [
            {"episode_id": number, "episode_seed": 100 + number, "control_mode": "pd_ee_delta_pose", "elapsed_steps": 4}
            for number in (0, 1)
        ]
        env_info = {"env_id": "PickCube-v1", "max_episode_steps": 50, "env_kwargs": {}}
        text = json.dumps({"env_info": env_info, "episodes": episodes, "source_type": "motionplanning"})
        path.with_suffix(".json").write_text(text)
    return path


def test_states_flags_and_what_the_json_knows(tmp_path):
    dataset = load_demos(write(tmp_path / "trajectory.state.h5"))
    np.testing.assert_array_equal(dataset[1].obs[:, 1], np.arange(STEPS + 1) + 1)
    assert [(one.terminated, one.truncated) for one in dataset] == [(False, True), (True, False)]
    assert dataset[0].success.tolist() == [False, True, True, True]
    assert [one.seed for one in dataset] == [100, 101]
    assert dataset[0].episode_return == 0
    assert dataset.provenance == {
        "format": "ManiSkill HDF5",
        "env_id": "PickCube-v1",
        "source_type": "motionplanning",
        "control_mode": "pd_ee_delta_pose",
    }


def test_the_json_may_be_missing(tmp_path):
    dataset = read_maniskill(write(tmp_path / "t.h5", about=False))
    assert dataset.provenance == {"format": "ManiSkill HDF5"}
    assert dataset[0].seed is None


def test_parts_are_joined_without_pictures_and_without_states(tmp_path):
    dataset = read_maniskill(write(tmp_path / "t.h5", "dict"))
    np.testing.assert_array_equal(dataset[0].obs[1], [-1, -1, 1, 1, 1])
    assert dataset.provenance["obs_keys"] == ["agent/qpos", "extra/tcp"]
    assert "sensor_data/base/rgb" in dataset.provenance["obs_left_out"]
    named = read_maniskill(tmp_path / "t.h5", ["env_states/actors/cube", "agent/qpos"])
    assert named[0].obs.shape == (STEPS + 1, 15)


def test_without_observations_the_ways_out_are_told(tmp_path):
    path = write(tmp_path / "t.h5", "none")
    with pytest.raises(UserError, match=r"no observations in it: replay it.*there are: env_states/actors/cube"):
        read_maniskill(path)
    assert read_maniskill(path, ["env_states/actors/cube"])[0].obs.shape == (STEPS + 1, 13)


def test_what_is_wrong_is_named(tmp_path):
    path = write(tmp_path / "t.h5")
    assert is_maniskill(path)
    with h5py.File(path, "a") as file:
        del file["traj_1/truncated"]
    with pytest.raises(UserError, match=r"t.h5, traj_1: no 'truncated' in it"):
        read_maniskill(path)
    path.with_suffix(".json").write_text("[]")
    with pytest.raises(UserError, match=r"t.json is not JSON as ManiSkill writes it"):
        read_maniskill(path)
