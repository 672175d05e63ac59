from dataclasses import replace

import numpy as np
import pytest

from cdred.data.demos import open_demos, save_demos
from cdred.errors import UserError
from cdred.types import DemoDataset


@pytest.mark.parametrize("name", ["folder", "file.npz"])
def test_what_was_saved_is_opened(demos, spec, tmp_path, name, assert_equal):
    save_demos(demos, tmp_path / name)
    assert_equal(demos, open_demos(tmp_path / name, spec))
    assert_equal(demos, open_demos(str(tmp_path / name)))
    assert (tmp_path / name).is_dir() == (name == "folder")


@pytest.mark.parametrize("name", ["folder", "file.npz"])
def test_what_is_opened_is_validated(demos, spec, tmp_path, name):
    save_demos(demos, tmp_path / name)
    with pytest.raises(UserError, match=f"{name}.*not of probe/other"):
        open_demos(tmp_path / name, replace(spec, task="probe/other"))


def test_what_is_saved_is_validated(demos, make_trajectory, tmp_path):
    broken = make_trajectory(action=np.full((6, 2), 2.0, np.float32))
    with pytest.raises(UserError, match="episode 0: an action component is 2"):
        save_demos(replace(demos, trajectories=(broken,)), tmp_path / "d")
    assert not list(tmp_path.iterdir())


def test_mixed_horizons_are_refused_unless_meant(make_trajectory, tmp_path):
    save_demos(DemoDataset("", (make_trajectory(5), make_trajectory(6))), tmp_path / "d.npz")
    with pytest.raises(UserError, match="decisions long"):
        open_demos(tmp_path / "d.npz")
    assert len(open_demos(tmp_path / "d.npz", mixed_horizons=True)) == 2


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        open_demos(tmp_path / "d")


@pytest.mark.parametrize("name", ["demos.pkl", "demos.hdf5"])
def test_unknown_formats_are_refused_unread(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match="no known format"):
        open_demos(tmp_path / name)


def test_a_folder_without_metadata_is_no_known_format(tmp_path):
    with pytest.raises(UserError, match="no known format"):
        open_demos(tmp_path)
