"""Camera images in files of named arrays: choice of the camera, layouts, and images that are refused."""

from dataclasses import replace

import h5py
import numpy as np
import pytest

from camera_files import colour, frames, write_robomimic
from cdred.data.demonstrations import load_demos
from cdred.data.formats import cameras
from cdred.data.formats.cameras import ImageRequest, read_resized
from cdred.data.formats.robomimic import read_robomimic
from cdred.errors import UserError
from cdred.types import EnvSpec

STEPS = 4
REQUEST = ImageRequest(8)


def assert_frames(dataset, rows=STEPS + 1, shift=0):
    for episode, trajectory in enumerate(dataset):
        expected = np.stack([np.broadcast_to(colour(episode + shift, step), (8, 8, 3)) for step in range(rows)])
        np.testing.assert_array_equal(trajectory.image, expected)
        np.testing.assert_array_equal(trajectory.obs, np.stack([np.full(rows, episode), np.arange(rows)], axis=1))
        assert len(trajectory) == rows - 1


def test_final_image_is_that_of_next_obs(tmp_path):
    dataset = read_robomimic(write_robomimic(tmp_path / "d.hdf5"), images=REQUEST)
    assert_frames(dataset)
    assert dataset.provenance == {
        "format": "robomimic HDF5",
        "cameras": {"agentview_image": "24 x 32"},
        "images": {"camera": "agentview_image", "stored_size": "24 x 32", "resized_to": "8 x 8"},
    }


def test_without_final_image_the_last_action_is_dropped(tmp_path):
    assert_frames(read_robomimic(write_robomimic(tmp_path / "d.hdf5", next_obs=False), images=REQUEST), STEPS)
    # A final vector alone is not enough.
    with h5py.File(write_robomimic(tmp_path / "e.hdf5"), "a") as file:
        for demo in ("demo_0", "demo_1"):
            del file[f"data/{demo}/next_obs/agentview_image"]
    dataset = read_robomimic(tmp_path / "e.hdf5", images=REQUEST)
    assert_frames(dataset, STEPS)
    assert "last action" in dataset.provenance["dropped"]


def test_channels_first_in_bytes_are_moved_last(tmp_path):
    path = write_robomimic(tmp_path / "d.hdf5", convert=lambda images: np.moveaxis(images, -1, 1))
    dataset = read_robomimic(path, images=REQUEST)
    assert_frames(dataset)
    assert dataset.provenance["images"]["channels"] == "first, moved last"
    assert dataset.provenance["images"]["stored_size"] == "24 x 32"


@pytest.mark.parametrize(
    ("convert", "message"),
    [
        (
            lambda images: images / np.float32(255),
            r"shape \(24, 32, 3\) and type float32, expected RGB images \(H, W, 3\), or \(3, H, W\), of uint8: store b",
        ),
        (lambda images: np.moveaxis(images, -1, 1) / 255.0, r"shape \(3, 24, 32\) and type float64.*: store bytes"),
        (lambda images: images.astype(np.int64), r"shape \(24, 32, 3\) and type int64"),
        (lambda images: np.moveaxis(images, -1, 2), r"shape \(24, 3, 32\) and type uint8"),
        (lambda images: np.concatenate([images, images[..., :1]], axis=-1), r"shape \(24, 32, 4\) and type uint8"),
    ],
)
def test_images_of_another_kind_are_refused_with_what_is_expected(tmp_path, convert, message):
    path = write_robomimic(tmp_path / "d.hdf5", convert=convert)
    with pytest.raises(UserError, match=f"demo_0: 'agentview_image' holds images of {message}"):
        read_robomimic(path, images=ImageRequest(8, "agentview_image"))
    with pytest.raises(UserError, match=r"no camera images in it.*available: agentview_image \(.*cdred demos render"):
        read_robomimic(path, images=REQUEST)
    assert read_robomimic(path)[0].obs.shape == (STEPS + 1, 2)


def test_several_cameras_must_be_chosen_from(tmp_path):
    path = write_robomimic(tmp_path / "d.hdf5", ("agentview_image", "robot0_eye_in_hand_image"))
    with pytest.raises(UserError, match=r"2 cameras, agentview_image \(24, 32, 3\) uint8, robot0_eye.* --camera NAME"):
        read_robomimic(path, images=REQUEST)
    assert_frames(read_robomimic(path, images=ImageRequest(8, "robot0_eye_in_hand_image")), shift=2)
    with pytest.raises(UserError, match=r"no camera 'front' in it \(available: agentview_image"):
        read_robomimic(path, images=ImageRequest(8, "front"))
    with pytest.raises(UserError, match=r"'state' holds images of shape \(2,\)"):
        read_robomimic(path, images=ImageRequest(8, "state"))


def test_images_that_do_not_match_the_steps_are_refused(tmp_path):
    for key, message in (
        ("obs", "differ in length: {'state': 4, 'agentview_image': 3}"),
        ("next_obs", "has .*3} rows"),
    ):
        with h5py.File(write_robomimic(tmp_path / f"{key}.hdf5"), "a") as file:
            group = file[f"data/demo_1/{key}"]
            del group["agentview_image"]
            group["agentview_image"] = frames(1, STEPS - 1)
        with pytest.raises(UserError, match=f"demo_1: .*{message}"):
            read_robomimic(tmp_path / f"{key}.hdf5", images=REQUEST)
    with h5py.File(write_robomimic(tmp_path / "size.hdf5"), "a") as file:
        del file["data/demo_1/next_obs/agentview_image"]
        file["data/demo_1/next_obs/agentview_image"] = frames(1, STEPS, (8, 8))
    with pytest.raises(UserError, match=r"'next_obs/agentview_image' has shape \(8, 8, 3\) per time step, expected"):
        read_robomimic(tmp_path / "size.hdf5", images=REQUEST)


def test_blocks_are_joined_in_order(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (7, 6, 8, 3), dtype=np.uint8)
    taken = []

    class Array:
        shape, dtype = images.shape, images.dtype

        def __getitem__(self, rows):
            taken.append(rows)
            return images[rows]

    monkeypatch.setattr(cameras, "BLOCK_BYTES", 2 * images[0].nbytes)
    resized = read_resized(Array(), 2, "here", slice(1, 6))
    # Means of areas of 3 x 4 pixels.
    expected = images[1:6].reshape(5, 2, 3, 2, 4, 3).mean(axis=(2, 4))
    # Pillow rounds twice, after the columns and after the rows.
    assert np.abs(resized - expected).max() <= 1
    assert [(rows.start, rows.stop) for rows in taken] == [(1, 3), (3, 5), (5, 6)]


def test_images_that_exceed_the_memory_are_refused_before_they_are_read():
    class Array:
        shape, dtype = (10**6, 32, 32, 3), np.dtype(np.uint8)

    with pytest.raises(UserError, match=r"it holds .* bytes, but this machine has"):
        read_resized(Array(), 10**4, "here")


def test_a_task_decides_what_is_read(tmp_path):
    path = write_robomimic(tmp_path / "d.hdf5")
    task = EnvSpec("probe/fake", (2,), 1, STEPS)
    assert load_demos(path, task)[0].image is None
    assert_frames(load_demos(path, replace(task, image_size=8)))
    pixels = load_demos(path, replace(task, obs_shape=(0,), image_size=8))
    assert [trajectory.obs.shape for trajectory in pixels] == [(STEPS + 1, 0)] * 2
    with pytest.raises(UserError, match="a camera or image size is given for probe/fake, which observes no images"):
        load_demos(path, task, camera="agentview_image")
    with pytest.raises(UserError, match="image size 16 contradicts that of probe/fake, 8"):
        load_demos(path, replace(task, image_size=8), image_size=16)


def test_formats_without_cameras_say_so(tmp_path):
    rows = np.arange(4.0)[:, None]
    with h5py.File(tmp_path / "d.hdf5", "w") as file:
        file["observations"], file["actions"], file["rewards"] = rows, rows, rows[:, 0]
        file["terminals"], file["timeouts"] = np.zeros(4, bool), np.arange(4) == 3
    with pytest.raises(UserError, match="images are not read from the format D4RL; `cdred demos render"):
        load_demos(tmp_path / "d.hdf5", image_size=32)
