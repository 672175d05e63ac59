from pathlib import Path

import numpy as np
import pytest

from cdred.data.demonstrations import load_demos, read_demos, save_demos
from cdred.data.formats.imitation import is_imitation, read_imitation
from cdred.data.formats.registry import detect_format
from cdred.errors import UserError
from demo_files import write_imitation

LENGTHS = (20, 20, 16)


class Payload:
    """Object that creates a file when it is unpickled."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return (Path.touch, (self._path,))


@pytest.fixture
def save(tmp_path):
    """Return a function that writes `rollouts.npz` with some arrays changed."""
    return lambda lengths=LENGTHS, **changes: write_imitation(tmp_path / "rollouts.npz", lengths, **changes)


def test_flat_rollouts_are_split_into_trajectories(save):
    path = save()
    assert detect_format(path).name == "imitation"
    dataset = load_demos(path, allow_variable_horizon=True)
    assert [len(trajectory) for trajectory in dataset] == [20, 20, 16]
    assert [(trajectory.terminated, trajectory.truncated) for trajectory in dataset] == [
        (True, False),
        (True, False),
        (False, True),
    ]
    for number, trajectory in enumerate(dataset):
        steps = np.arange(len(trajectory) + 1)
        np.testing.assert_array_equal(trajectory.obs, np.stack([0 * steps + number, steps, 0 * steps], axis=1))
        np.testing.assert_allclose(trajectory.action[:, 0], steps[:-1] / 100)
        np.testing.assert_array_equal(trajectory.reward, 20 * number + steps[:-1])
        assert (trajectory.obs.dtype, trajectory.reward.dtype, trajectory.success) == (np.float32, np.float32, None)


def test_infos_are_left_out_without_unpickling(save, tmp_path):
    infos = np.array([Payload(tmp_path / "ran")] * 56, dtype=object)
    dataset = load_demos(save(infos=infos, extra=np.zeros(3)), allow_variable_horizon=True)
    assert not (tmp_path / "ran").exists()
    assert "infos" in dataset.provenance["dropped"]
    assert "never unpickled" in dataset.provenance["dropped"]
    assert dataset.provenance["arrays_left_out"] == ["extra"]
    assert "time limits" in dataset.provenance["terminal"]


def test_pickled_observations_are_refused(save, tmp_path):
    obs = np.array([Payload(tmp_path / "ran")] * 59, dtype=object)
    with pytest.raises(UserError, match=r"obs.npy holds Python objects"):
        load_demos(save(obs=obs))
    assert not (tmp_path / "ran").exists()


def test_rewards_and_infos_are_optional(save):
    path = save(rews=None, infos=None, terminal=np.zeros(3, bool))
    dataset = read_imitation(path)
    assert [trajectory.reward for trajectory in dataset] == [None] * len(LENGTHS)
    assert dataset.provenance == {"format": "imitation npz"}


@pytest.mark.parametrize("lengths", [(7,), (5, 3), (1, 4, 1)])
def test_any_lengths_round_trip(save, tmp_path, lengths, assert_equal):
    dataset = read_imitation(save(lengths))
    assert [trajectory.obs[:, 1].tolist() for trajectory in dataset] == [list(range(n + 1)) for n in lengths]
    save_demos(dataset, tmp_path / "minari")
    assert_equal(dataset, read_demos(tmp_path / "minari"))


def test_single_components_are_read(save):
    dataset = read_imitation(save((5, 3), obs=np.arange(10)[:, None]))
    assert [trajectory.obs[:, 0].tolist() for trajectory in dataset] == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9]]
    assert dataset[1].action.shape == (3, 1)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("obs", "no 'obs' in it"),
        ("acts", r"\(59, 3\).*\n.*one after the other without where they end"),
        ("indices", "no 'action' in it, but 'acts'"),
        ("terminal", "no 'action' in it, but 'acts'"),
    ],
)
def test_layout_without_one_array_is_refused(save, missing, message):
    assert is_imitation(save())
    path = save(**{missing: None})
    assert not is_imitation(path)
    with pytest.raises(UserError, match=f"rollouts.npz: .*{message}"):
        load_demos(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"indices": np.array([0, 20, 40])}, r"'indices' has shape \(3,\) and 'terminal' \(3,\), expected one flag"),
        ({"indices": np.array([40, 20])}, r"'indices' must increase from 1 to 55, .* got \[40, 20\]"),
        ({"indices": np.array([0, 20])}, "'indices' must increase from 1"),
        ({"indices": np.array([20, 56])}, "'indices' must increase from 1"),
        ({"indices": np.array([20.0, 40.0])}, "'indices' holds float64, expected integers"),
        ({"terminal": np.zeros(56, bool)}, r"'indices' has shape \(2,\) and 'terminal' \(56,\)"),
        ({"obs": np.zeros((56, 3))}, "'obs' has 56 rows for 56 rows of 'acts' in 3 trajectories, expected 59"),
        ({"rews": np.zeros(59)}, r"'rews' has shape \(59,\), expected \(56,\)"),
        ({"obs": np.zeros(59)}, r"'obs' has shape \(59,\).* store obs\[:, None\]"),
        ({"acts": np.zeros(56)}, r"'acts' has shape \(56,\).* store acts\[:, None\]"),
        ({"acts": np.full((56, 1), "left")}, "'acts' holds <U4, expected numbers"),
    ],
)
def test_inconsistent_arrays_are_named(save, changes, message):
    with pytest.raises(UserError, match=f"rollouts.npz: {message}"):
        read_imitation(save(**changes))


def test_indices_of_every_row_are_refused(save):
    with pytest.raises(UserError, match=r"none of its 5 episodes has more than one step.*'indices' holds the rows"):
        read_imitation(save((1,) * 5))


def test_only_obs_can_be_named(save):
    path = save()
    assert len(read_imitation(path, ["obs"])) == 3
    with pytest.raises(UserError, match="no observation 'state'"):
        read_imitation(path, ["state"])
