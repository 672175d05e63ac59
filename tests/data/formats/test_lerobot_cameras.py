"""Camera images of LeRobotDataset folders: every frame at its time step, or an error."""

import os

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from camera_files import FPS, SIZE, TOP, WRIST, colour, edit_info, frames, write_lerobot, write_video
from cdred.data.demonstrations import load_demos
from cdred.data.formats.cameras import ImageRequest, encode_png
from cdred.data.formats.lerobot_read import read_lerobot
from cdred.errors import UserError

LENGTHS = (4, 3)
REQUEST = ImageRequest(8)
VIDEO = f"videos/{TOP}/chunk-000/file-000.mp4"
# Of a lossy codec, a fraction of the difference between neighbouring frames.
LOSS = 8


def read(path, request=REQUEST):
    return read_lerobot(path, images=request)


def assert_frames(dataset, shift=0, loss=0):
    assert len(dataset) == len(LENGTHS)
    for episode, (trajectory, length) in enumerate(zip(dataset, LENGTHS, strict=True)):
        # One image per observation: the last frame is the final observation.
        assert (len(trajectory), trajectory.image.shape, trajectory.image.dtype) == (
            length - 1,
            (length, 8, 8, 3),
            np.uint8,
        )
        np.testing.assert_array_equal(trajectory.obs[:, 1], np.arange(length))
        for step, image in enumerate(trajectory.image):
            difference = np.abs(image.astype(int) - colour(episode + shift, step).astype(int))
            assert difference.max() <= loss, (episode, step)


@pytest.mark.parametrize("codec", ["mpeg4", "libx264", "libsvtav1"])
@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
def test_frames_of_videos_stand_at_their_time_steps(tmp_path, codec, version):
    if codec not in av.codecs_available:
        pytest.skip(f"FFmpeg in this PyAV has no encoder {codec}")
    scheduling = os.sched_getscheduler(0)
    assert_frames(read(write_lerobot(tmp_path / "d", LENGTHS, version=version, codec=codec)), loss=LOSS)
    assert os.sched_getscheduler(0) == scheduling


def test_images_in_data_files_are_exact_in_any_order_of_rows(tmp_path):
    for order in (1, -1):
        assert_frames(read(write_lerobot(tmp_path / str(order), LENGTHS, kind="image", order=order)))


def test_channels_first_in_the_metadata_is_the_same_image(tmp_path):
    shape = {"shape": [3, *SIZE], "names": ["channels", "height", "width"]}
    assert_frames(read(write_lerobot(tmp_path / "image", LENGTHS, kind="image", **shape)))
    assert_frames(read(write_lerobot(tmp_path / "video", LENGTHS, **shape)), loss=LOSS)


def test_the_whole_image_is_resized_without_cropping(tmp_path):
    image = np.zeros((*SIZE, 3), np.uint8)
    image[:12, :16], image[:12, 16:], image[12:, :16] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    path = write_lerobot(tmp_path / "d", LENGTHS, kind="image")
    table = pq.read_table(path / "data/chunk-000/file-000.parquet").to_pylist()
    for row in table:
        row[TOP]["bytes"] = encode_png(image)
    pq.write_table(pq.read_table(path / "data/chunk-000/file-000.parquet").from_pylist(table), _data(path))
    expected = np.zeros((2, 2, 3), np.uint8)
    expected[0, 0, 0] = expected[0, 1, 1] = expected[1, 0, 2] = 255
    np.testing.assert_array_equal(read(path, ImageRequest(2))[1].image, np.stack([expected] * 3))


def _data(path):
    return path / "data/chunk-000/file-000.parquet"


def test_several_cameras_must_be_chosen_from(tmp_path):
    path = write_lerobot(tmp_path / "d", LENGTHS, (TOP, WRIST))
    with pytest.raises(UserError, match=rf"it has 2 cameras, {TOP} \(24, 32, 3\) uint8, {WRIST}.* --camera NAME"):
        read(path)
    assert_frames(read(path, ImageRequest(8, WRIST)), shift=2, loss=LOSS)
    with pytest.raises(UserError, match=rf"no camera 'front' in it \(available: {TOP} \(24, 32, 3\)"):
        read(path, ImageRequest(8, "front"))


def test_depth_maps_are_no_cameras(tmp_path):
    path = write_lerobot(tmp_path / "d", LENGTHS, (TOP, WRIST))
    edit_info(path, lambda info: info["features"][WRIST].update(info={"video.is_depth_map": True}))
    assert_frames(read(path), loss=LOSS)


def test_provenance_names_camera_size_and_codec(tmp_path):
    path = write_lerobot(tmp_path / "d", LENGTHS, (TOP, WRIST), info={"video.codec": "mpeg4"})
    provenance = read(path, ImageRequest(8, WRIST)).provenance
    assert provenance["cameras"] == {TOP: "video, 24 x 32, mpeg4", WRIST: "video, 24 x 32, mpeg4"}
    assert provenance["images"] == {"camera": WRIST, "stored_size": "24 x 32", "resized_to": "8 x 8"}
    assert provenance["obs_left_out"] == [TOP]


def test_nothing_is_decoded_unless_asked_for(tmp_path):
    path = write_lerobot(tmp_path / "d", LENGTHS)
    (path / VIDEO).write_bytes(b"no video")
    dataset = load_demos(path, allow_variable_horizon=True, action_low=0, action_high=10)
    assert [trajectory.image for trajectory in dataset] == [None, None]
    assert dataset.provenance["cameras"] == {TOP: "video, 24 x 32, unknown codec"}
    with pytest.raises(UserError, match=r"file-000\.mp4 cannot be read as video"):
        load_demos(path, image_size=8, allow_variable_horizon=True, action_low=0, action_high=10)


@pytest.mark.parametrize(
    ("lengths", "starts", "message"),
    [
        ((4, 4), (0, 4), r"episode 1: its video has 4 frames from 0\.4 s on, expected 3"),
        ((4, 2), (0, 4), r"episode 1: its video has 2 frames from 0\.4 s on, expected 3"),
        ((5, 3), (0, 5), "episode 0: its video has 5 frames from 0 s on, expected 4"),
        ((3, 3), (0, 3), "episode 0: its video has 3 frames from 0 s on, expected 4"),
        ((4, 0), (0, 4), r"episode 1: its video has 0 frames from 0\.4 s on, expected 3"),
        ((4, 3), (1, 5), r"a frame at 0 s, but its first episode, 0, begins at 0\.1 s"),
    ],
)
def test_videos_of_another_length_than_their_episode_are_named(tmp_path, lengths, starts, message):
    path = write_lerobot(tmp_path / "d", LENGTHS)
    write_video(path / VIDEO, np.concatenate([frames(e, n) for e, n in enumerate(lengths) if n]))
    _set_starts(path, starts)
    with pytest.raises(UserError, match=message):
        read(path)


def _set_starts(path, starts):
    file = path / "meta/episodes/chunk-000/file-000.parquet"
    rows = pq.read_table(file).to_pylist()
    for row, start in zip(rows, starts, strict=True):
        row[f"videos/{TOP}/from_timestamp"] = start / FPS
    pq.write_table(pq.read_table(file).from_pylist(rows), file)


def test_frames_at_other_times_than_the_steps_are_named(tmp_path):
    path = write_lerobot(tmp_path / "d", (4,))
    write_video(path / VIDEO, frames(0, 4), times=[0, 1, 3, 4])
    with pytest.raises(UserError, match=r"episode 0: frame 2 of its video is at 0\.3 s, expected at 0\.2 s, by 10 fra"):
        read(path)


def test_a_dropped_frame_counts_as_missing(tmp_path):
    path = write_lerobot(tmp_path / "d", (4,))
    write_video(path / VIDEO, frames(0, 4)[[0, 1, 3]], times=[0, 1, 3])
    with pytest.raises(UserError, match="episode 0: its video has 3 frames from 0 s on, expected 4"):
        read(path)


def test_truncated_videos_are_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (7, *SIZE, 3), dtype=np.uint8)
    path = write_lerobot(tmp_path / "d", LENGTHS)
    write_video(path / VIDEO, noise)
    whole = (path / VIDEO).read_bytes()
    for fraction in (0.02, 0.4, 0.8, 0.97):
        (path / VIDEO).write_bytes(whole[: int(fraction * len(whole))])
        with pytest.raises(
            UserError, match=r"file-000\.mp4.*(frames from|cannot be read as video|is damaged|no video in it)"
        ):
            read(path)


def test_a_missing_codec_is_named(tmp_path):
    path = write_lerobot(tmp_path / "d", LENGTHS, info={"video.codec": "hevc3"})
    content = (path / VIDEO).read_bytes()
    assert b"mp4v" in content
    (path / VIDEO).write_bytes(content.replace(b"mp4v", b"xyz9").replace(b"esds", b"free"))
    with pytest.raises(UserError, match=r"no decoder for its codec \(hevc3 in the metadata\): install a newer one"):
        read(path)


def test_missing_videos_and_other_sizes_are_named(tmp_path):
    path = write_lerobot(tmp_path / "d", LENGTHS)
    write_video(path / VIDEO, np.concatenate([frames(e, n, (32, 48)) for e, n in enumerate(LENGTHS)]))
    with pytest.raises(UserError, match="its frames are 32 x 48, expected 24 x 32"):
        read(path)
    (path / VIDEO).unlink()
    with pytest.raises(UserError, match=r"file-000\.mp4: no such video file: fetch the dataset again, with its videos"):
        read(path)
    edit_info(path, lambda info: info["features"][TOP].update(shape=[10**5, 10**5, 3]))
    (path / VIDEO).touch()
    with pytest.raises(UserError, match=r"100000 x 100000 pixels, expected 67,108,864 pixels at most"):
        read(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda info: info.update(fps=0), "fps 0, expected a positive number"),
        (lambda info: info.update(video_path=None), "states no video_path"),
        (lambda info: info.update(video_path="../{video_key}.mp4"), "outside the dataset's folder"),
        (lambda info: info.update(video_path="{video_key}/../../x.mp4"), "outside the dataset's folder"),
        (lambda info: info["features"][TOP].update(shape=[*SIZE, 4]), r"images of shape \(24, 32, 4\).*expected RGB"),
    ],
)
def test_unusable_metadata_of_videos_is_refused(tmp_path, change, message):
    path = write_lerobot(tmp_path / "d", LENGTHS)
    edit_info(path, change)
    with pytest.raises(UserError, match=message):
        read(path, ImageRequest(8, TOP))


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (encode_png(frames(0, 1)[0])[:60], "cannot be decoded as PNG or JPEG"),
        (encode_png(frames(0, 1, (8, 8))[0]), r"RGB image of 8 x 8, expected shape \(24, 32, 3\)"),
        (encode_png(frames(0, 1)[0][..., 0]), r"L image of 24 x 32, expected shape \(24, 32, 3\)"),
        (None, "images in files beside the data are not read"),
    ],
    ids=["truncated", "other size", "grey", "missing"],
)
def test_damaged_images_in_data_files_are_refused(tmp_path, encoded, message):
    path = write_lerobot(tmp_path / "d", LENGTHS, kind="image")
    rows = pq.read_table(_data(path)).to_pylist()
    rows[2][TOP]["bytes"] = encoded
    pq.write_table(pq.read_table(_data(path)).from_pylist(rows), _data(path))
    with pytest.raises(UserError, match=rf"'{TOP}'.*{message}"):
        read(path)


def test_pixels_alone_need_no_vectors(tmp_path):
    path = write_lerobot(tmp_path / "d", LENGTHS, kind="image")
    edit_info(path, lambda info: info["features"].pop("observation.state"))
    dataset = read(path)
    assert [trajectory.obs.shape for trajectory in dataset] == [(4, 0), (3, 0)]
    np.testing.assert_array_equal(dataset[1].image[2, 0, 0], colour(1, 2))
