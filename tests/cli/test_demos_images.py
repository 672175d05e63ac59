"""Camera images in `cdred demos convert` and `cdred demos info`."""

import numpy as np
import pytest

from camera_files import TOP, WRIST, colour, write_lerobot, write_robomimic
from cdred.cli.main import main
from cdred.data.demonstrations import load_demos


def run(capsys, *phrases):
    """Run `cdred demos` and return its exit code, standard output and standard error, each joined to one line."""
    code = main(["demos", *map(str, phrases)])
    captured = capsys.readouterr()
    return code, " ".join(captured.out.split()), " ".join(captured.err.split())


@pytest.mark.parametrize("name", ["d.npz", "minari", "lerobot"])
def test_convert_keeps_the_images_of_the_chosen_camera(tmp_path, capsys, name):
    path = write_lerobot(tmp_path / "source", (4, 4), (TOP, WRIST), kind="image")
    bounds = ("--action-low", 0, "--action-high", 3)
    form = ("--format", "lerobot") if name == "lerobot" else ()
    out = tmp_path / name
    code, text, _ = run(capsys, "convert", path, out, "--camera", WRIST, "--image-size", 8, *bounds, *form)
    assert code == 0
    assert "RGB images of 8 x 8" in text
    assert f"images {{'camera': '{WRIST}', 'stored_size': '24 x 32', 'resized_to': '8 x 8'}}" in text
    for episode, trajectory in enumerate(load_demos(out)):
        np.testing.assert_array_equal(trajectory.image[:, 0, 0], [colour(episode + 2, step) for step in range(4)])


def test_convert_reads_no_images_unless_asked_for(tmp_path, capsys):
    path = write_robomimic(tmp_path / "d.hdf5")
    assert run(capsys, "convert", path, tmp_path / "vectors.npz")[0] == 0
    assert load_demos(tmp_path / "vectors.npz")[0].image is None
    # By the task's name, or by a camera, with the size of tasks.
    task = ("--task", "probe/point?obs=both&size=32")
    assert run(capsys, "convert", path, tmp_path / "named.npz", *task)[0] == 0
    assert load_demos(tmp_path / "named.npz")[0].image.shape == (5, 32, 32, 3)
    assert run(capsys, "convert", path, tmp_path / "camera.npz", "--camera", "agentview_image")[0] == 0
    assert load_demos(tmp_path / "camera.npz")[0].image.shape == (5, 64, 64, 3)


def test_images_that_cannot_be_given_are_refused(tmp_path, capsys):
    path = write_robomimic(tmp_path / "d.hdf5")
    assert run(capsys, "convert", path, tmp_path / "d.npz", "--image-size", 8)[0] == 0
    for phrases, message in (
        ((tmp_path / "d.npz", "--image-size", 4), "images of 8 x 8, and those of recordings by cdred are not resized"),
        ((tmp_path / "d.npz", "--camera", "front"), "no camera 'front' in it: a file .npz has one camera, 'image'"),
        ((path, "--image-size", 0), "--image-size 0 should be a positive number of pixels"),
    ):
        code, _, error = run(capsys, "convert", phrases[0], tmp_path / "other.npz", *phrases[1:])
        assert (code, message in error) == (2, True), error
    assert not (tmp_path / "other.npz").exists()


def test_info_shows_cameras_without_decoding_them(tmp_path, capsys):
    path = write_lerobot(tmp_path / "d", (4, 4), (TOP, WRIST), info={"video.codec": "av1"})
    for video in path.glob("videos/*/*/*.mp4"):
        video.write_bytes(b"")
    _, text, _ = run(capsys, "info", path)
    assert f"cameras {{'{TOP}': 'video, 24 x 32, av1', '{WRIST}': 'video, 24 x 32, av1'}}" in text
