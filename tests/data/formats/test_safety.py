"""Limits on untrusted files, and that legitimate files stay within them."""

import h5py
import numpy as np
import pytest

from cdred.data.demonstrations import load_demos
from cdred.data.formats.d4rl import read_d4rl
from cdred.data.formats.minari import save_minari
from cdred.data.formats.safety import (
    MAX_COMPRESSION_RATIO,
    MIN_ALLOWED_BYTES,
    check_expanded_size,
    check_relative_path,
    check_symlinks,
)
from cdred.errors import UserError


def test_content_is_bounded_by_file_and_memory():
    check_expanded_size(MIN_ALLOWED_BYTES, 1, "d")
    check_expanded_size(MAX_COMPRESSION_RATIO * 2**20, 2**20, "d")
    with pytest.raises(UserError, match=r"d: it declares 268,435,457 bytes .* has 1,048,576 .* a decompression bomb"):
        check_expanded_size(MAX_COMPRESSION_RATIO * 2**20 + 1, 2**20, "d")
    with pytest.raises(UserError, match="this machine has"):
        check_expanded_size(2**60, 2**59, "d")


def test_static_images_are_not_a_bomb(tmp_path):
    rows, image = 2000, np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3), np.uint8)
    with h5py.File(tmp_path / "d.hdf5", "w") as file:
        images = np.repeat(image, rows, axis=0)
        for key in ("observations", "next_observations"):
            file.create_dataset(key, data=images, chunks=(64, 64, 64, 3), compression="gzip")
        file["actions"], file["rewards"] = np.zeros((rows, 2)), np.zeros(rows)
        file["terminals"], file["timeouts"] = np.zeros(rows, bool), np.arange(rows) % 20 == 19
        content = 2 * images.nbytes
    assert content > 30 * (tmp_path / "d.hdf5").stat().st_size
    assert len(read_d4rl(tmp_path / "d.hdf5")) == rows / 20


def test_internal_links_and_virtual_arrays_are_followed(tmp_path):
    with h5py.File(tmp_path / "d.hdf5", "w") as file:
        file["kept/observations"] = np.arange(10.0).reshape(5, 2)
        file["observations"] = h5py.SoftLink("/kept/observations")
        file["nowhere"] = h5py.SoftLink("/gone")
        layout = h5py.VirtualLayout((5, 2), "f8")
        layout[:] = h5py.VirtualSource(".", "kept/observations", (5, 2))
        file.create_virtual_dataset("next_observations", layout)
        file["actions"], file["rewards"], file["terminals"] = np.zeros((5, 2)), np.zeros(5), np.arange(5) == 4
    (trajectory,) = read_d4rl(tmp_path / "d.hdf5")
    np.testing.assert_array_equal(trajectory.obs[:, 0], [0, 2, 4, 6, 8, 8])


def test_cyclic_group_is_rejected(tmp_path):
    with h5py.File(tmp_path / "d.hdf5", "w") as file:
        file["observations"], file["actions"] = np.zeros((5, 2)), np.zeros((5, 2))
        file["a/b/again"] = file.create_group("a")
    with pytest.raises(UserError, match="a group contains itself"):
        read_d4rl(tmp_path / "d.hdf5")


def test_only_hub_cache_links_are_followed(demos, tmp_path):
    folder = tmp_path / "snapshots" / "c0ffee"
    save_minari(demos, folder)
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    file = folder / "data" / "main_data.hdf5"
    file.rename(blobs / "1234")
    file.symlink_to("../../../blobs/1234")
    assert len(load_demos(folder, allow_variable_horizon=True)) == 3
    # The dataset may be a folder in the repository.
    folder.rename(tmp_path / "whole")
    folder.mkdir()
    (tmp_path / "whole").rename(folder / "sets")
    folder = folder / "sets"
    (folder / "data" / "main_data.hdf5").unlink()
    (folder / "data" / "main_data.hdf5").symlink_to("../../../../blobs/1234")
    assert len(load_demos(folder, allow_variable_horizon=True)) == 3
    (folder / "note").symlink_to(tmp_path)
    with pytest.raises(UserError, match="note is a link to"):
        check_symlinks(folder)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd"])
def test_path_outside_folder_is_rejected(name):
    check_relative_path("data/chunk-000/file.parquet", "info.json")
    with pytest.raises(UserError, match=r"info.json names .*expected a path below it"):
        check_relative_path(name, "info.json")


def test_minari_writes_to_relative_path(demos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_minari(demos, "d")
    assert len(load_demos("d", allow_variable_horizon=True)) == 3
