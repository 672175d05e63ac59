import numpy as np
import pytest

from cdred.data.formats.d4rl import is_d4rl, read_d4rl
from cdred.errors import UserError
from demo_files import D4RL_TERMINALS, d4rl_flags, write_d4rl


def test_episodes_end_at_terminals_and_timeouts(tmp_path):
    dataset = read_d4rl(write_d4rl(tmp_path / "d.hdf5"))
    assert [len(trajectory) for trajectory in dataset] == [3, 5, 1]
    assert [(trajectory.terminated, trajectory.truncated) for trajectory in dataset] == [
        (True, False),
        (False, True),
        (True, False),
    ]
    np.testing.assert_array_equal(dataset[1].obs[:, 0], [3, 4, 5, 6, 7, 7.5])
    np.testing.assert_array_equal(dataset[1].reward, [3, 4, 5, 6, 7])
    assert {trajectory.obs.dtype for trajectory in dataset} == {np.dtype("float32")}
    assert dataset.provenance == {"format": "D4RL HDF5", "rows_after_the_last_end": 2}


def test_without_next_observations_last_action_is_dropped(tmp_path):
    dataset = read_d4rl(write_d4rl(tmp_path / "d.hdf5", next_observations=None))
    assert [len(trajectory) for trajectory in dataset] == [2, 4]
    assert [(trajectory.terminated, trajectory.truncated) for trajectory in dataset] == [(False, True)] * 2
    np.testing.assert_array_equal(dataset[1].obs[:, 0], [3, 4, 5, 6, 7])
    assert dataset.provenance["episodes_skipped_as_empty"] == 1
    assert "last action" in dataset.provenance["dropped"]


def test_missing_timeouts_and_column_vectors_are_read(tmp_path):
    changes = {"timeouts": None, "rewards": np.ones((11, 1)), "terminals": d4rl_flags(D4RL_TERMINALS)[:, None]}
    dataset = read_d4rl(write_d4rl(tmp_path / "d.hdf5", **changes))
    assert [len(trajectory) for trajectory in dataset] == [3, 6]
    assert dataset[1].reward.tolist() == [1.0] * 6


def test_observations_without_actions_are_read(tmp_path):
    dataset = read_d4rl(write_d4rl(tmp_path / "d.hdf5", actions=None, rewards=None))
    assert not dataset.has_actions
    assert [len(trajectory) for trajectory in dataset] == [3, 5, 1]
    assert [trajectory.reward for trajectory in dataset] == [None] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"terminals": None}, "no 'terminals' in it"),
        ({"terminals": d4rl_flags([]), "timeouts": None}, "so episode ends are unknown"),
        ({"actions": np.zeros((10, 1))}, r"differ in their number of rows.*'observations' 11, 'actions' 10"),
        ({"next_observations": np.zeros((12, 2))}, r"differ in their number of rows.*'next_observations' 12"),
        ({"terminals": np.zeros((11, 2), bool)}, r"'terminals' has shape \(11, 2\), expected one number per row"),
        ({"timeouts": np.zeros((11, 3), bool)}, r"'timeouts' has shape \(11, 3\), expected one number per row"),
        ({"rewards": np.zeros((11, 2))}, r"'rewards' has shape \(11, 2\), expected one number per row"),
        ({"rewards": np.array([b"x"] * 11)}, "'rewards' holds .*, expected numbers"),
    ],
)
def test_malformed_file_is_named(tmp_path, changes, message):
    with pytest.raises(UserError, match=f"d.hdf5: .*{message}"):
        read_d4rl(write_d4rl(tmp_path / "d.hdf5", **changes))


def test_only_observations_can_be_named(tmp_path):
    path = write_d4rl(tmp_path / "d.hdf5")
    assert is_d4rl(path)
    assert len(read_d4rl(path, ["observations"])) == 3
    with pytest.raises(UserError, match=r"no observation 'infos/qpos' in it \(available: observations"):
        read_d4rl(path, ["infos/qpos"])
