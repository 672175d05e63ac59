"""Videos of episodes: expert and agent side by side from the same initial state, or the agent alone."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from cdred.envs.base import Env
from cdred.envs.registry import make
from cdred.envs.seeding import episode_seed
from cdred.errors import UserError
from cdred.train.agent import Agent
from cdred.types import DemoDataset

Frames = UInt8[np.ndarray, "_ _ _ 3"]
"""A clip: frames, height, width, RGB. Sizes may differ from clip to clip."""

SIZE, EPISODES, FRAMES_PER_SECOND = 240, 2, 20
# Software rendering is slow, about a few frames per second; every second step is enough to see the motion.
RENDER_EVERY = 2


def comparison_video(agent: Agent, demos: DemoDataset | None, path: Path) -> Path:
    """Write a video of the first demonstrated episodes: the expert's recorded actions beside the agent.

    Without demonstrations, the video shows the agent alone.

    Raises:
        UserError: the demonstrations have no episode seeds, or the task cannot be rendered on this machine.
    """
    env = make(agent.spec.task, render_size=SIZE)
    try:
        clips = _agent_clips(env, agent) if demos is None else _paired_clips(env, agent, demos)
    finally:
        env.close()
    return write_video(path, stack_clips(clips), FRAMES_PER_SECOND)


def _agent_clips(env: Env, agent: Agent) -> list[Frames]:
    seeds = [episode_seed(0, "demos", 0, index) for index in range(EPISODES)]
    return [_record_episode(env, seed, _act(agent)) for seed in seeds]


def _paired_clips(env: Env, agent: Agent, demos: DemoDataset) -> list[Frames]:
    seeded = [(demo.seed, demo.action) for demo in demos if demo.seed is not None][:EPISODES]
    if not seeded:
        raise UserError("the demonstrations have no episode seeds, which are needed to replay them.")
    clips = []
    for seed, actions in seeded:
        expert = _record_episode(env, seed, _replay(actions))
        clips.append(side_by_side(expert, _record_episode(env, seed, _act(agent))))
    return clips


def _act(agent: Agent) -> Callable:
    """Return the function from observations to normalized actions of an agent at the start of an episode."""
    return partial(agent.reset().act, normalized=True)


def _replay(actions: np.ndarray) -> Callable:
    remaining = iter(actions)
    return lambda _obs: next(remaining)


def _record_episode(env: Env, seed: int, act: Callable) -> Frames:
    obs, frames, done, count = env.reset(seed), [env.render()], False, 0
    while not done:
        step = env.step(act(obs))
        obs, done, count = step.obs, step.terminated or step.truncated, count + 1
        if count % RENDER_EVERY == 0 or done:
            frames.append(env.render())
    return np.stack(frames)


def write_video(path: Path, frames: UInt8[np.ndarray, "T H W 3"], fps: int | float) -> Path:
    """Write `frames` as H.264 (MPEG-4 part 2 if FFmpeg lacks x264) at `fps` frames per second.

    An odd height or width is padded by one repeated line, as the colour format halves both.

    Raises:
        ValueError: there are no frames.
    """
    import av  # here, because training without rendering must not need FFmpeg

    if not len(frames):
        raise ValueError(f"a video needs at least one frame: {path}")
    _, height, width, _ = frames.shape
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    # faststart writes the index first, so that a browser can play the file while loading it.
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
    """Join two labelled clips horizontally; the shorter one is extended by its last frame."""
    labelled = [_draw_label(clip, label) for clip, label in zip((left, right), labels, strict=True)]
    return np.concatenate(_pad_to_longest(labelled), axis=2)


def stack_clips(clips: Sequence[Frames]) -> Frames:
    """Join clips of equal width vertically; shorter ones are extended by their last frame."""
    return np.concatenate(_pad_to_longest(clips), axis=1)


def _pad_to_longest(clips: Sequence[Frames]) -> list[Frames]:
    longest = max(map(len, clips))
    return [np.pad(clip, ((0, longest - len(clip)), (0, 0), (0, 0), (0, 0)), mode="edge") for clip in clips]


def _draw_label(clip: Frames, label: str) -> Frames:
    """Draw white text on a dark rectangle in the upper left corner of all frames."""
    from PIL import Image, ImageDraw, ImageFont

    size = max(11, clip.shape[1] // 18)
    font, margin = ImageFont.load_default(size), size // 2
    left, top, right, bottom = (int(edge) for edge in font.getbbox(label))
    mask = Image.new("L", (right - left + 2 * margin, bottom - top + 2 * margin))
    ImageDraw.Draw(mask).text((margin - left, margin - top), label, fill=255, font=font)
    alpha = np.asarray(mask, np.float32)[: clip.shape[1], : clip.shape[2], None] / 255
    labelled = clip.copy()
    corner = labelled[:, : alpha.shape[0], : alpha.shape[1]]
    corner[:] = np.rint(corner * 0.45 * (1 - alpha) + 255 * alpha).astype(np.uint8)
    return labelled
