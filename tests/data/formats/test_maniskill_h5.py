import json

import h5py
import numpy as np
import pytest

from cdred.data.demonstrations import load_demos
from cdred.data.formats.maniskill import is_maniskill, read_maniskill
from cdred.errors import UserError
from demo_files import MANISKILL_STEPS, write_maniskill


def test_observations_flags_and_json_are_read(tmp_path):
    dataset = load_demos(write_maniskill(tmp_path / "trajectory.state.h5"))
    np.testing.assert_array_equal(dataset[1].obs[:, 1], np.arange(MANISKILL_STEPS + 1) + 1)
    assert [(trajectory.terminated, trajectory.truncated) for trajectory in dataset] == [(False, True), (True, False)]
    assert dataset[0].success.tolist() == [False, True, True, True]
    assert [trajectory.seed for trajectory in dataset] == [100, 101]
    assert dataset[0].reward is None
    assert dataset.provenance == {
        "format": "ManiSkill HDF5",
        "env_id": "PickCube-v1",
        "source_type": "motionplanning",
        "control_mode": "pd_ee_delta_pose",
    }


def test_missing_json_is_accepted(tmp_path):
    dataset = read_maniskill(write_maniskill(tmp_path / "t.h5", with_json=False))
    assert dataset.provenance == {"format": "ManiSkill HDF5"}
    assert dataset[0].seed is None


def test_vectors_are_concatenated_without_images_and_states(tmp_path):
    dataset = read_maniskill(write_maniskill(tmp_path / "t.h5", "dict"))
    np.testing.assert_array_equal(dataset[0].obs[1], [-1, -1, 1, 1, 1])
    assert dataset.provenance["obs_keys"] == ["agent/qpos", "extra/tcp"]
    assert "sensor_data/base/rgb" in dataset.provenance["obs_left_out"]
    named = read_maniskill(tmp_path / "t.h5", ["env_states/actors/cube", "agent/qpos"])
    assert named[0].obs.shape == (MANISKILL_STEPS + 1, 15)


def test_missing_observations_give_hints(tmp_path):
    path = write_maniskill(tmp_path / "t.h5", "none")
    with pytest.raises(UserError, match=r"no observations in it: replay it.*available: env_states/actors/cube"):
        read_maniskill(path)
    assert read_maniskill(path, ["env_states/actors/cube"])[0].obs.shape == (MANISKILL_STEPS + 1, 13)


def test_malformed_files_are_named(tmp_path):
    path = write_maniskill(tmp_path / "t.h5")
    assert is_maniskill(path)
    with h5py.File(path, "a") as file:
        del file["traj_1/truncated"]
    with pytest.raises(UserError, match=r"t.h5, traj_1: no 'truncated' in it"):
        read_maniskill(path)
    path.with_suffix(".json").write_text("[]")
    with pytest.raises(UserError, match=r"t.json is not JSON as ManiSkill writes it"):
        read_maniskill(path)


def edit_episodes(path, change):
    """Replace the list of episodes in the JSON file by `change(episodes)`."""
    file = path.with_suffix(".json")
    metadata = json.loads(file.read_text())
    file.write_text(json.dumps(metadata | {"episodes": change(metadata["episodes"])}))


@pytest.mark.parametrize("steps", [0, 3, 5, 50])
def test_elapsed_steps_must_agree_with_the_rows(tmp_path, steps):
    path = write_maniskill(tmp_path / "t.h5")
    edit_episodes(path, lambda episodes: [episodes[0], episodes[1] | {"elapsed_steps": steps}])
    with pytest.raises(
        UserError, match=f"t.h5, traj_1: elapsed_steps in the JSON file is {steps}, but the file holds 4 rows"
    ):
        read_maniskill(path)


def test_missing_elapsed_steps_are_accepted(tmp_path):
    path = write_maniskill(tmp_path / "t.h5")
    edit_episodes(path, lambda _: [{"episode_id": 0}, {"episode_id": 1, "episode_seed": 7}])
    assert [(len(trajectory), trajectory.seed) for trajectory in read_maniskill(path)] == [(4, None), (4, 7)]


def test_json_file_must_list_the_trajectories(tmp_path):
    path = write_maniskill(tmp_path / "t.h5")
    edit_episodes(path, lambda episodes: episodes[:1])
    with pytest.raises(UserError, match=r"traj_1 is in t.h5, but not in t.json \(2 trajectories in t.h5, 1 in"):
        read_maniskill(path)
    edit_episodes(path, lambda episodes: [*episodes, {"episode_id": 1}, {"episode_id": 2}])
    with pytest.raises(UserError, match=r"traj_2 is in t.json, but not in t.h5 \(2 trajectories in t.h5, 3 in"):
        read_maniskill(path)


@pytest.mark.parametrize("key", ["terminated", "truncated"])
@pytest.mark.parametrize("shape", [(3,), (5,), (4, 1)])
def test_flags_must_be_one_per_action(tmp_path, key, shape):
    with h5py.File(write_maniskill(tmp_path / "t.h5"), "a") as file:
        del file[f"traj_0/{key}"]
        file[f"traj_0/{key}"] = np.zeros(shape, bool)
    with pytest.raises(UserError, match=rf"traj_0: '{key}' has shape .*, expected \(4,\), one flag per action"):
        read_maniskill(tmp_path / "t.h5")
