"""Episodes as mp4: expert and agent side by side, each under its name."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

Frames = UInt8[np.ndarray, "_ _ _ 3"]
"""One clip: frames, height, width, RGB; sizes may differ from clip to clip."""


def write_video(path: Path, frames: UInt8[np.ndarray, "T H W 3"], fps: int | float) -> Path:
    """Write `frames` as H.264 (MPEG-4 part 2 where this FFmpeg lacks x264), `fps` frames per second.

    An odd height or width grows by one repeated line: the colour format halves both.

    Raises:
        ValueError: there is not a single frame.
    """
    import av  # here, not above: training without rendering must not need FFmpeg

    if not len(frames):
        raise ValueError(f"a video needs at least one frame: {path}")
    _, height, width, _ = frames.shape
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    # faststart puts the index first, so that a browser plays the file while loading it.
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def side_by_side(
    left: UInt8[np.ndarray, "_ H _ 3"],
    right: UInt8[np.ndarray, "_ H _ 3"],
    labels: tuple[str, str] = ("expert", "agent"),
) -> UInt8[np.ndarray, "_ H _ 3"]:
    """Both clips in one picture with their labels; the shorter one holds its last frame."""
    named = [_labelled(clip, label) for clip, label in zip((left, right), labels, strict=True)]
    return np.concatenate(_same_length(named), axis=2)


def stack(clips: Sequence[Frames]) -> Frames:
    """Clips above one another, e.g. one pair per seed; shorter ones hold their last frame. Widths must agree."""
    return np.concatenate(_same_length(clips), axis=1)


def _same_length(clips: Sequence[Frames]) -> list[Frames]:
    longest = max(map(len, clips))
    return [np.pad(clip, ((0, longest - len(clip)), (0, 0), (0, 0), (0, 0)), mode="edge") for clip in clips]


def _labelled(clip: Frames, label: str) -> Frames:
    """White on a darkened plate in the upper left corner, drawn once and laid over all frames."""
    from PIL import Image, ImageDraw, ImageFont

    size = max(11, clip.shape[1] // 18)
    font, margin = ImageFont.load_default(size), size // 2
    left, top, right, bottom = (int(edge) for edge in font.getbbox(label))
    plate = Image.new("L", (right - left + 2 * margin, bottom - top + 2 * margin))
    ImageDraw.Draw(plate).text((margin - left, margin - top), label, fill=255, font=font)
    ink = np.asarray(plate, np.float32)[: clip.shape[1], : clip.shape[2], None] / 255
    out = clip.copy()
    corner = out[:, : ink.shape[0], : ink.shape[1]]
    corner[:] = np.rint(corner * 0.45 * (1 - ink) + 255 * ink).astype(np.uint8)
    return out
