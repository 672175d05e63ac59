"""Small datasets with camera images in the layouts of other libraries, in which every frame has its own colour."""

import json
import os
from contextlib import contextmanager

import av
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cdred.data.formats.cameras import encode_png

FPS, SIZE = 10, (24, 32)
TOP, WRIST = "observation.images.top", "observation.images.wrist"


def colour(episode, step):
    """Return the colour of a frame, which no other frame of the first three episodes has within 20."""
    return np.array([25 * step, 80 * episode, 200 - 25 * step], np.uint8)


def frame(episode, step, size=SIZE):
    return np.broadcast_to(colour(episode, step), (*size, 3)).copy()


def frames(episode, steps, size=SIZE):
    return np.stack([frame(episode, step, size) for step in range(steps)])


@contextmanager
def kept_scheduling():
    """Keep the scheduling of this thread: for root, libsvtav1 makes it a real-time one, which starves all others."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


def write_video(path, images, codec="mpeg4", fps=FPS, times=None):
    """Encode images; `times` are in frames, by default 0, 1, ..."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The index comes first, so that the beginning of a truncated file can be decoded.
    with kept_scheduling(), av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width, stream.pix_fmt = *images[0].shape[:2], "yuv420p"
        for time, image in zip(times or range(len(images)), images, strict=True):
            video_frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            video_frame.pts = time
            container.mux(stream.encode(video_frame))
        container.mux(stream.encode())


def write_lerobot(
    path, lengths=(4, 3), cameras=(TOP,), kind="video", version="v3.0", order=1, codec="mpeg4", **feature
):
    """Write a dataset in LeRobot's layout, v3 with all episodes in one video per camera; `feature` adds to cameras.

    Observation t of episode e is (e, t), the action there t. With `order=-1` the rows are reversed.
    """
    episode = np.concatenate([np.full(length, number) for number, length in enumerate(lengths)])
    step = np.concatenate([np.arange(length) for length in lengths])
    columns = {
        "observation.state": pa.array([[float(e), float(t)] for e, t in zip(episode, step, strict=True)]),
        "action": pa.array([[float(t)] for t in step]),
        "episode_index": pa.array(episode),
        "frame_index": pa.array(step),
        "index": pa.array(np.arange(len(step))),
    }
    described = {"dtype": kind, "shape": [*SIZE, 3], "names": ["height", "width", "channels"]} | feature
    features = {
        "observation.state": {"dtype": "float32", "shape": [2], "names": None},
        "action": {"dtype": "float32", "shape": [1], "names": None},
        **dict.fromkeys(cameras, described),
    }
    starts = np.cumsum([0, *lengths])[:-1]
    rows = [{"episode_index": number, "length": length} for number, length in enumerate(lengths)]
    for camera in cameras:
        shift = 2 if camera == WRIST else 0
        images = [frames(number + shift, length) for number, length in enumerate(lengths)]
        if kind == "image":
            encoded = [{"bytes": encode_png(image), "path": None} for image in np.concatenate(images)]
            columns[camera] = pa.array(encoded)
        elif version == "v3.0":
            write_video(path / f"videos/{camera}/chunk-000/file-000.mp4", np.concatenate(images), codec)
            for row, start in zip(rows, starts.tolist(), strict=True):
                row |= {f"videos/{camera}/chunk_index": 0, f"videos/{camera}/file_index": 0}
                row[f"videos/{camera}/from_timestamp"] = start / FPS
        else:
            for number, content in enumerate(images):
                write_video(path / f"videos/chunk-000/{camera}/episode_{number:06d}.mp4", content, codec)
    (path / "data/chunk-000").mkdir(parents=True)
    table = pa.table(columns)
    pq.write_table(table.take(np.arange(len(step))[::order]), path / "data/chunk-000/file-000.parquet")
    video_path = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    if version == "v3.0":
        (path / "meta/episodes/chunk-000").mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), path / "meta/episodes/chunk-000/file-000.parquet")
    else:
        (path / "meta").mkdir()
        (path / "meta/episodes.jsonl").write_text("\n".join(map(json.dumps, rows)))
        video_path = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    info = {"codebase_version": version, "fps": FPS, "features": features, "video_path": video_path}
    (path / "meta/info.json").write_text(json.dumps(info))
    return path


def edit_info(path, change):
    """Apply `change` to the content of a dataset's `meta/info.json`."""
    info = json.loads((path / "meta/info.json").read_text())
    change(info)
    (path / "meta/info.json").write_text(json.dumps(info))


def write_robomimic(path, cameras=("agentview_image",), steps=4, next_obs=True, convert=lambda images: images):
    """Write two demonstrations in robomimic's layout, with a vector (episode, step); `convert` changes the images."""
    with h5py.File(path, "w") as file:
        for episode in (0, 1):
            group = file.create_group(f"data/demo_{episode}")
            vectors = np.stack([np.full(steps + 1, episode), np.arange(steps + 1)], axis=1).astype(np.float64)
            arrays = {"state": vectors}
            for index, camera in enumerate(cameras):
                arrays[camera] = convert(frames(episode + 2 * index, steps + 1))
            for key, values in arrays.items():
                group[f"obs/{key}"] = values[:-1]
                if next_obs:
                    group[f"next_obs/{key}"] = values[1:]
            group["actions"] = np.full((steps, 1), 0.5)
    return path
