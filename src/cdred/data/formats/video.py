"""Frames of video files, decoded one after the other by PyAV."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from cdred.data.formats.cameras import check_pixels
from cdred.data.formats.common import CorruptFileError, sanitize_text
from cdred.errors import UserError


def iter_frames(
    path: Path, size: tuple[int, int], codec: str = "unknown"
) -> Iterator[tuple[float, UInt8[np.ndarray, "H W 3"]]]:
    """Yield the frames of a video in the order in which they are shown, each with its time in seconds.

    Only the frames that the decoder holds, and the one that is yielded, are in memory.

    Args:
        path: the file.
        size: height and width that the frames must have.
        codec: name of the codec in the metadata, for the message if FFmpeg does not recognise it.

    Raises:
        UserError: no such file, another size, no decoder for its codec, or the file is damaged.
    """
    # here, because reading other files must not need FFmpeg
    import av

    if not path.is_file():
        raise UserError(f"{path}: no such video file: fetch the dataset again, with its videos.")
    check_pixels(*size, str(path))
    # The container is a local file: FFmpeg's protocols and playlists could open others.
    options = {"protocol_whitelist": "file", "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi"}
    with _ffmpeg_errors(path), av.open(str(path), options=options) as container:
        if not container.streams.video:
            raise UserError(f"{path}: no video in it: fetch the dataset again.")
        stream = container.streams.video[0]
        _check_decoder(stream, path, codec)
        if (stream.height, stream.width) != size:
            raise UserError(
                f"{path}: its frames are {stream.height} x {stream.width}, expected {size[0]} x {size[1]}, as the "
                "metadata of the dataset declare: fetch the dataset again."
            )
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            if frame.time is None or frame.is_corrupt or (frame.height, frame.width) != size:
                raise UserError(f"{path}: a frame is damaged: fetch the dataset again.")
            yield frame.time, frame.to_ndarray(format="rgb24")


@contextmanager
def _ffmpeg_errors(path: Path) -> Iterator[None]:
    """Report errors of FFmpeg without their cause: it calls sizes in damaged headers, too, a lack of memory."""
    from av.error import FFmpegError

    try:
        yield
    except FFmpegError as error:
        reason = sanitize_text(error.strerror)
        raise CorruptFileError(f"{path} cannot be read as video: {reason}; fetch the dataset again.") from None


def _check_decoder(stream: Any, path: Path, codec: str) -> None:
    """Check that FFmpeg, as PyAV comes with it, can decode a stream."""
    if stream.codec_context is None:
        raise UserError(
            f"{path}: FFmpeg in PyAV has no decoder for its codec ({sanitize_text(codec)} in the metadata): install a "
            "newer one (`pip install -U av`), or encode the videos again, for example with "
            "`ffmpeg -i OLD.mp4 -c:v libx264 -crf 18 NEW.mp4`."
        )
