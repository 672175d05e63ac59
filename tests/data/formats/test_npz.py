import io
import json
import zipfile

import numpy as np
import pytest

from cdred.data.formats.npz import read_npz, save_npz
from cdred.errors import UserError
from cdred.types import DemoDataset


def test_round_trip_is_lossless(demos, tmp_path, assert_equal):
    save_npz(demos, tmp_path / "new" / "d.npz")
    assert_equal(demos, read_npz(tmp_path / "new" / "d.npz"))
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["d.npz"]
    assert (tmp_path / "new" / "d.npz").stat().st_mode & 0o777 == 0o644


def test_unknown_success_and_seed_stay_unknown(make_trajectory, tmp_path, assert_equal):
    plain = DemoDataset("", (make_trajectory(success=None, seed=None),))
    save_npz(plain, tmp_path / "d.npz")
    assert_equal(plain, read_npz(tmp_path / "d.npz"))


@pytest.fixture
def stacked():
    generator = np.random.default_rng(0)
    return {"obs": generator.normal(size=(2, 6, 3)), "action": generator.uniform(-1, 1, (2, 5, 2))}


def test_missing_arrays_get_defaults(stacked, tmp_path):
    np.savez(tmp_path / "d.npz", **stacked)
    dataset = read_npz(tmp_path / "d.npz")
    assert (dataset.task, len(dataset), len(dataset[1])) == ("", 2, 5)
    np.testing.assert_array_equal(dataset[1].obs, stacked["obs"][1].astype(np.float32))
    assert (dataset[0].terminated, dataset[0].truncated, dataset[0].success) == (False, True, None)
    assert dataset[0].reward is None


@pytest.mark.parametrize("dtype", [">f8", "<f2", "i4", "u1", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_numeric_type_is_read(tmp_path, monkeypatch, dtype, order):
    monkeypatch.setattr("cdred.data.formats.npz_archive.CHUNK_BYTES", 16)
    obs = np.asarray(np.arange(36).reshape(2, 6, 3) % 7, dtype, order=order)
    np.savez(tmp_path / "d.npz", obs=obs, action=np.zeros((2, 5, 1)))
    dataset = read_npz(tmp_path / "d.npz")
    np.testing.assert_array_equal(np.stack([trajectory.obs for trajectory in dataset]), obs.astype(np.float32))
    assert dataset[0].obs.dtype == np.float32


def test_observations_without_actions_are_read(stacked, tmp_path):
    np.savez(tmp_path / "d.npz", obs=stacked["obs"])
    dataset = read_npz(tmp_path / "d.npz")
    assert dataset[0].action.shape == (5, 0)
    assert not dataset.has_actions


def test_truncated_array_is_rejected(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (2, 6, 3)})
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("obs.npy", header.getvalue() + bytes(100))
    with pytest.raises(UserError, match=r"obs.npy is truncated: it declares 36 numbers"):
        read_npz(tmp_path / "d.npz")


def test_only_obs_can_be_named(stacked, tmp_path):
    np.savez(tmp_path / "d.npz", **stacked)
    assert len(read_npz(tmp_path / "d.npz", ["obs"])) == 2
    with pytest.raises(UserError, match="no observation 'state'"):
        read_npz(tmp_path / "d.npz", ["state"])


def test_all_optional_arrays_are_read(stacked, tmp_path):
    more = {
        "reward": np.arange(10.0).reshape(2, 5),
        "success": np.eye(2, 5, dtype=bool),
        "terminated": np.array([True, False]),
        "seed": np.array([4, -1]),
        "task": "probe/fake",
        "provenance": json.dumps({"expert": "me"}),
    }
    np.savez(tmp_path / "d.npz", **stacked, **more)
    dataset = read_npz(tmp_path / "d.npz")
    assert (dataset.task, dataset.provenance) == ("probe/fake", {"expert": "me"})
    assert [(trajectory.terminated, trajectory.truncated, trajectory.seed) for trajectory in dataset] == [
        (True, False, 4),
        (False, True, None),
    ]
    assert dataset[1].episode_return == 35
    np.testing.assert_array_equal(dataset[1].success, more["success"][1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"obs": None}, r"no 'obs' in it \(available: action\)"),
        ({"obs": np.zeros((3, 6, 3))}, r"expected \[N, T, ...\] with one N for all"),
        ({"obs": np.zeros(5)}, r"expected \[N, T, ...\]"),
        ({"action": np.full((2, 5, 2), "left")}, "'action' holds <U4, expected numbers"),
        ({"action": np.array([[None] * 5] * 2)}, "without pickle"),
        ({"terminated": np.array([True])}, r"'terminated' has shape \(1,\) \(bool\), expected \(2,\)"),
        ({"truncated": np.ones(3, bool)}, r"'truncated' has shape \(3,\) \(bool\), expected \(2,\)"),
        ({"seed": np.zeros((2, 5))}, r"'seed' has shape \(2, 5\) \(float64\), expected \(2,\)"),
        ({"provenance": "{"}, "'provenance' is not JSON"),
        ({"lengths": np.array([5, 4])}, "rows, but 'lengths' requires"),
        ({"lengths": np.array([0.5])}, "positive integers"),
    ],
)
def test_malformed_arrays_are_named(stacked, tmp_path, changes, message):
    path = tmp_path / "d.npz"
    arrays = {key: value for key, value in (stacked | changes).items() if value is not None}
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=message) as error:
        read_npz(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 broken", b"\x80\x04]."])
def test_other_file_content_is_rejected(tmp_path, content):
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as npz"):
        read_npz(tmp_path / "d.npz")


def test_existing_file_is_not_overwritten(demos, tmp_path):
    path = tmp_path / "d.npz"
    path.write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        save_npz(demos, path)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("key", ["reward", "success"])
def test_partly_unknown_values_are_rejected(make_trajectory, tmp_path, key):
    dataset = DemoDataset("", (make_trajectory(), make_trajectory(**{key: None})))
    with pytest.raises(UserError, match=f"1 of 2 episodes have '{key}'.*save as Minari"):
        save_npz(dataset, tmp_path / "d.npz")
    assert not list(tmp_path.iterdir())
