import h5py
import numpy as np
import pytest

from cdred.data.formats.d4rl import is_d4rl, read_d4rl
from cdred.errors import UserError

# Eleven rows: an episode that ends by itself, one that the clock ends, one row of the world's end, and two left over.
TERMINALS, TIMEOUTS = [2, 8], [7]


def flags(rows):
    return np.isin(np.arange(11), rows)


def write(path, **changes):
    """A file as D4RL lays it out; None leaves an array out."""
    row = np.arange(11.0)
    arrays = {
        "observations": np.stack([row, -row], axis=1),
        "next_observations": np.stack([row + 0.5, -row], axis=1),
        "actions": np.full((11, 1), 0.25, np.float32),
        "rewards": row,
        "terminals": flags(TERMINALS),
        "timeouts": flags(TIMEOUTS),
        "infos/qpos": np.zeros((11, 9)),
    } | changes
    with h5py.File(path, "w") as file:
        for key, values in arrays.items():
            if values is not None:
                file[key] = values
    return path


def test_episodes_end_where_a_flag_says_and_by_whom_is_kept(tmp_path):
    dataset = read_d4rl(write(tmp_path / "d.hdf5"))
    assert [len(one) for one in dataset] == [3, 5, 1]
    assert [(one.terminated, one.truncated) for one in dataset] == [(True, False), (False, True), (True, False)]
    np.testing.assert_array_equal(dataset[1].obs[:, 0], [3, 4, 5, 6, 7, 7.5])
    np.testing.assert_array_equal(dataset[1].reward, [3, 4, 5, 6, 7])
    assert {one.obs.dtype for one in dataset} == {np.dtype("float32")}
    assert dataset.provenance == {"format": "D4RL HDF5", "rows_after_the_last_end": 2}


def test_without_next_observations_the_last_action_is_left_out_and_empty_episodes_skipped(tmp_path):
    dataset = read_d4rl(write(tmp_path / "d.hdf5", next_observations=None))
    assert [len(one) for one in dataset] == [2, 4]
    assert [(one.terminated, one.truncated) for one in dataset] == [(False, True)] * 2
    np.testing.assert_array_equal(dataset[1].obs[:, 0], [3, 4, 5, 6, 7])
    assert dataset.provenance["episodes_skipped_as_empty"] == 1
    assert "last action" in dataset.provenance["dropped"]


def test_old_files_without_timeouts_and_columns_of_one(tmp_path):
    changes = {"timeouts": None, "rewards": np.ones((11, 1)), "terminals": flags(TERMINALS)[:, None]}
    dataset = read_d4rl(write(tmp_path / "d.hdf5", **changes))
    assert [len(one) for one in dataset] == [3, 6]
    assert dataset[1].reward.tolist() == [1.0] * 6


def test_observations_alone(tmp_path):
    dataset = read_d4rl(write(tmp_path / "d.hdf5", actions=None, rewards=None))
    assert not dataset.has_actions
    assert [len(one) for one in dataset] == [3, 5, 1]
    assert dataset[0].episode_return == 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"terminals": None}, "no 'terminals' in it"),
        ({"terminals": flags([]), "timeouts": None}, "its episodes cannot be told apart"),
        ({"actions": np.zeros((10, 1))}, r"differ in their number of rows.*'observations' 11, 'actions' 10"),
        ({"rewards": np.array([b"x"] * 11)}, "'rewards' holds .*, expected numbers"),
    ],
)
def test_what_is_wrong_is_named_with_the_file(tmp_path, changes, says):
    with pytest.raises(UserError, match=f"d.hdf5: .*{says}"):
        read_d4rl(write(tmp_path / "d.hdf5", **changes))


def test_there_is_one_observation_array_to_name(tmp_path):
    path = write(tmp_path / "d.hdf5")
    assert is_d4rl(path)
    assert len(read_d4rl(path, ["observations"])) == 3
    with pytest.raises(UserError, match=r"no observation 'infos/qpos' in it \(there are: observations"):
        read_d4rl(path, ["infos/qpos"])
