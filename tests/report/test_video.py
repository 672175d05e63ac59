"""Videos: what is written reads back with its frames, size and colours."""

from pathlib import Path

import av
import numpy as np
import pytest

from cdred.report.video import side_by_side, stack_clips, write_video


def clip(length: int, colour: tuple[int, int, int], height: int = 96, width: int = 97) -> np.ndarray:
    frames = np.zeros((length, height, width, 3), np.uint8)
    frames[:] = colour
    frames[-1] = 255 - frames[-1]
    return frames


def test_written_video_reads_back(tmp_path: Path) -> None:
    path = write_video(tmp_path / "videos" / "pair.mp4", clip(7, (200, 40, 40), 95, 97), fps=12.5)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert stream.average_rate == 12.5
    assert len(frames) == 7
    assert frames[0].shape == (96, 98, 3)
    assert np.abs(frames[0][50, 50].astype(int) - (200, 40, 40)).max() < 12


def test_shorter_clip_is_extended_by_its_last_frame() -> None:
    expert, agent = clip(3, (10, 20, 30)), clip(5, (90, 90, 90))
    pair = side_by_side(expert, agent)
    assert pair.shape == (5, 96, 194, 3)
    assert (pair[4, 90, 50] == (245, 235, 225)).all()
    assert (pair[3, 90, 150] == 90).all()
    assert stack_clips([pair, pair[:2]]).shape == (5, 192, 194, 3)


def test_labels_are_drawn_on_a_copy() -> None:
    plain = clip(2, (100, 100, 100))
    pair = side_by_side(plain, plain)
    assert (plain[0] == 100).all()
    assert pair[0, :20, :40].max() > 200
    assert (pair[:, 40:] == side_by_side(plain, plain, ("a", "b"))[:, 40:]).all()


def test_label_larger_than_the_frame_is_cropped() -> None:
    tiny = clip(1, (0, 0, 0), 8, 8)
    assert side_by_side(tiny, tiny).shape == (1, 8, 16, 3)


def test_empty_clip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        write_video(tmp_path / "x.mp4", np.zeros((0, 8, 8, 3), np.uint8), 25)
