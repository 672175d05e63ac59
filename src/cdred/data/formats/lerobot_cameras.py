"""Camera images of LeRobotDataset folders: features of dtype `image` and `video`.

    image   a column of the data files, each value the bytes of a PNG or JPEG file, alone or in a struct {bytes, path}
    video   v3: videos/<feature>/chunk-*/file-*.mp4, each of several episodes, one after the other; meta/episodes has
                the columns videos/<feature>/chunk_index, file_index and from_timestamp (seconds in that file)
            v2: videos/chunk-*/<feature>/episode_<i>.mp4, one per episode

The frame of time step t of an episode is the one at `from_timestamp` + t / fps (`lerobot.datasets` 0.4 queries its
decoder by these times). A video is decoded once, from its beginning to its end. Every frame must belong to an episode,
and every time step must have its frame; nothing is interpolated or repeated.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from cdred.data.formats.arrow import check_columns, iter_batches, open_parquet
from cdred.data.formats.cameras import decode_image
from cdred.data.formats.common import sanitize_text
from cdred.data.formats.lerobot_frames import FETCH_HINT, EpisodeFrames
from cdred.data.formats.safety import check_relative_path
from cdred.data.formats.video import iter_frames
from cdred.errors import UserError
from cdred.resizing import resize_area

# Rows of encoded images that are in memory together.
BATCH_IMAGES = 32
V2_CHUNK_SIZE = 1000


class Camera(NamedTuple):
    """Camera feature; `shape` begins with the time axis, and `dtype` is that of the decoded images.

    Attributes:
        name: name of the feature.
        shape: `(0, H, W, C)`.
        dtype: uint8.
        kind: `image` or `video`.
        codec: codec that the metadata state, for a video.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    kind: str
    codec: str

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.shape[1], self.shape[2]

    def describe(self) -> str:
        """Return kind, size and codec as text."""
        return f"{self.kind}, {self.size[0]} x {self.size[1]}" + (f", {self.codec}" if self.kind == "video" else "")


class Span(NamedTuple):
    """Part of a video file that shows one episode: from `start` seconds on, one frame per row of the episode."""

    start: float
    episode: EpisodeFrames


def find_cameras(features: Mapping[str, Any]) -> dict[str, Camera]:
    """Return the cameras among the features of `info.json`, without depth maps, by name."""
    cameras = {}
    for name, feature in features.items():
        if feature.get("dtype") not in ("image", "video") or _is_depth_map(feature):
            continue
        shape = tuple(map(int, feature["shape"]))
        names = feature.get("names")
        channels_first = names[0] in ("channel", "channels") if isinstance(names, list) and names else shape[-1] != 3
        if len(shape) == 3 and channels_first:
            shape = (*shape[1:], shape[0])
        cameras[name] = Camera(name, (0, *shape), np.dtype(np.uint8), feature["dtype"], _codec(feature))
    return cameras


def _is_depth_map(feature: Mapping[str, Any]) -> bool:
    return any((feature.get(key) or {}).get("video.is_depth_map") for key in ("info", "video_info"))


def _codec(feature: Mapping[str, Any]) -> str:
    infos = (feature.get(key) or {} for key in ("info", "video_info"))
    return next((str(info["video.codec"]) for info in infos if "video.codec" in info), "unknown codec")


def episode_columns(camera: Camera) -> list[str]:
    """Return the columns of `meta/episodes` (v3) that locate the episodes in the videos of a camera."""
    if camera.kind != "video":
        return []
    return [f"videos/{camera.name}/{key}" for key in ("chunk_index", "file_index", "from_timestamp")]


def read_image_column(
    files: Sequence[Path], positions: Sequence[np.ndarray], camera: Camera, images: UInt8[np.ndarray, "rows S S 3"]
) -> None:
    """Decode the images in the data files into `images`, resized to its size.

    Args:
        files: the data files.
        positions: for each file, the position of each of its rows, `[rows]`.
        camera: camera of kind `image`.
        images: the result, written to.

    Raises:
        UserError: a missing column, or an image that is missing, damaged or of another size.
    """
    for path, rows in zip(files, positions, strict=True):
        location = f"{path}: '{sanitize_text(camera.name)}'"
        with open_parquet(path) as table:
            check_columns(table, [camera.name], path)
            for offset, batch in iter_batches(table, [camera.name], BATCH_IMAGES):
                column = batch.column(camera.name)
                for row, encoded in zip(rows[offset:], _encoded(column, location), strict=False):
                    image = decode_image(encoded, camera.shape[1:], location)
                    images[row] = resize_area(image, images.shape[1])


def _encoded(column: Any, location: str) -> list[bytes]:
    values = (column.field("bytes") if hasattr(column, "field") else column).to_pylist()
    if not all(isinstance(value, bytes) for value in values):
        raise UserError(
            f"{location} holds other values than the bytes of images; images in files beside the data are not read: "
            "save the dataset again with LeRobot, which embeds them."
        )
    return values


def read_videos(
    path: Path,
    info: Mapping[str, Any],
    camera: Camera,
    episodes: Sequence[EpisodeFrames],
    metadata: Mapping[int, Mapping[str, Any]],
    images: UInt8[np.ndarray, "rows S S 3"],
) -> None:
    """Decode the videos of a camera into `images`, resized to its size, each frame to the row of its time step.

    Args:
        path: the dataset's folder.
        info: content of `info.json`.
        camera: camera of kind `video`.
        episodes: all episodes.
        metadata: rows of `meta/episodes` (v3) by episode, with `episode_columns`.
        images: the result, written to.

    Raises:
        UserError: a missing, damaged or undecodable video, or frames that do not belong to the episodes' time steps.
    """
    fps = info.get("fps")
    if not isinstance(fps, int | float) or isinstance(fps, bool) or not 0 < fps < float("inf"):
        raise UserError(f"{path}: meta/info.json states fps {sanitize_text(fps)}, expected a positive number.")
    for file, spans in _locate_videos(path, info, camera, episodes, metadata).items():
        _read_video(path / file, sorted(spans, key=lambda span: span.start), float(fps), camera, images)


def _locate_videos(
    path: Path,
    info: Mapping[str, Any],
    camera: Camera,
    episodes: Sequence[EpisodeFrames],
    metadata: Mapping[int, Mapping[str, Any]],
) -> dict[str, list[Span]]:
    """Return the parts of each video file, by its path below the dataset's folder."""
    template, files = info.get("video_path"), {}
    if not isinstance(template, str):
        raise UserError(f"{path}: meta/info.json states no video_path, but '{sanitize_text(camera.name)}' is a video.")
    shared, chunk_size = info.get("codebase_version") == "v3.0", info.get("chunks_size", V2_CHUNK_SIZE)
    for episode in episodes:
        if shared:
            chunk, index, start = (metadata[episode.number][column] for column in episode_columns(camera))
            file = template.format(video_key=camera.name, chunk_index=chunk, file_index=index)
        else:
            numbers = {"episode_chunk": episode.number // chunk_size, "episode_index": episode.number}
            file, start = template.format(video_key=camera.name, **numbers), 0.0
        check_relative_path(file, f"{path}: video_path of episode {episode.number}")
        files.setdefault(file, []).append(Span(float(start), episode))
    return files


def _read_video(
    file: Path, spans: Sequence[Span], fps: float, camera: Camera, images: UInt8[np.ndarray, "rows S S 3"]
) -> None:
    """Decode one video file.

    Args:
        file: its path.
        spans: the parts of it, sorted.
        fps: frames per second.
        camera: its camera.
        images: the result, written to.
    """
    # A frame belongs to the time step that is nearest to its time.
    first_times = np.array([span.start for span in spans]) - 0.5 / fps
    found, misplaced = [0] * len(spans), {}
    for seconds, frame in iter_frames(file, camera.size, camera.codec):
        index = int(np.searchsorted(first_times, seconds, side="right")) - 1
        if index < 0:
            raise UserError(
                f"{file}: a frame at {seconds:.6g} s, but its first episode, {spans[0].episode.number}, begins at "
                f"{spans[0].start:.6g} s: {FETCH_HINT}."
            )
        span, step = spans[index], found[index]
        expected = span.start + step / fps
        if abs(seconds - expected) > 0.5 / fps:
            misplaced.setdefault(index, (step, seconds, expected))
        if step < span.episode.num_frames:
            images[span.episode.rows.start + step] = resize_area(frame, images.shape[1])
        found[index] += 1
    for index, span in enumerate(spans):
        location, length = f"{file}, episode {span.episode.number}", span.episode.num_frames
        if found[index] != length:
            raise UserError(
                f"{location}: its video has {found[index]} frames from {span.start:.6g} s on, expected {length}, one "
                f"for each of its rows: {FETCH_HINT}."
            )
        if index in misplaced:
            step, seconds, expected = misplaced[index]
            raise UserError(
                f"{location}: frame {step} of its video is at {seconds:.6g} s, expected at {expected:.6g} s, by "
                f"{fps:g} frames per second: {FETCH_HINT}."
            )
