"""Batches of segments that updates and diagnostics draw from the replay buffers of one seed."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Self

import jax
from jaxtyping import Array, Bool, Int, Key, PyTree

from cdred.algos.base import Selected
from cdred.data.replay_buffer import ReplayBuffer
from cdred.data.replay_images import number_rows, stack_window
from cdred.nn.image_encoder import random_shift
from cdred.types import ImageObs, Segment


class UpdateKeys(NamedTuple):
    """Keys of one update: of its batches, by buffer, and of its noise."""

    expert: Key[Array, ""]
    agent: Key[Array, ""]
    validation: Key[Array, ""]
    selected: Key[Array, ""]
    noise: Key[Array, ""]

    @classmethod
    def split(cls, key: Key[Array, ""]) -> Self:
        """Derive them from the key of the update."""
        expert, agent, noise = jax.random.split(key, 3)
        return cls(expert, agent, jax.random.fold_in(key, 3), jax.random.fold_in(key, 4), noise)


def diagnostics_keys(key: Key[Array, ""]) -> tuple[Key[Array, ""], Key[Array, ""], Key[Array, ""], Key[Array, ""]]:
    """Derive the keys of expert, agent and validation batch, and of noise, from the key of diagnostics."""
    expert, agent, validation = jax.random.split(key, 3)
    return expert, agent, validation, jax.random.fold_in(key, 3)


class AgentWindows(NamedTuple):
    """What belongs to the agent's segments where the images of its buffer are in host memory.

    That is the number of the first row of each segment, or the windows of images that start there
    (`replay_images.gather_windows`). All are None where the images are on the device.

    Attributes:
        sampled: of a batch.
        selected: of a batch from the selected episodes; None without self-imitation.
        recent: of the most recent segments; None in an update.
    """

    sampled: PyTree = None
    selected: PyTree = None
    recent: PyTree = None


NO_WINDOWS = AgentWindows()
"""Windows where the images are on the device."""


class Sampler(NamedTuple):
    """Draws batches of segments.

    Attributes:
        batch_size: segments per batch.
        horizon: transitions per segment.
        image_shift: largest random shift of camera images, in pixels; None where there are none.
        self_imitation: segments of selected episodes are drawn as well.
    """

    batch_size: int
    horizon: int
    image_shift: int | None
    self_imitation: bool

    def batches(
        self, replay: ReplayBuffer | None, *, augment: bool = False, windows: PyTree = None
    ) -> Callable[[Key[Array, ""]], Segment | None]:
        """Make a function that draws a batch from a buffer, or returns None without a buffer.

        Args:
            replay: the buffer.
            augment: shift camera images at random.
            windows: as in `AgentWindows`, of the batch that is drawn.
        """
        if replay is None:
            return lambda _: None
        replay = _numbered(replay, windows)
        index = replay.index(self.horizon)
        return lambda key: self._sample(replay, index, key, augment, windows)

    def selected_batches(
        self, replay: ReplayBuffer, *, augment: bool = False, windows: PyTree = None
    ) -> Callable[[Key[Array, ""]], Selected | None]:
        """Make a function that draws a batch from the selected episodes, or returns None without self-imitation."""
        if not self.self_imitation:
            return lambda _: None
        replay = _numbered(replay, windows)
        index = replay.selected_index(self.horizon)
        return lambda key: Selected(self._sample(replay, index, key, augment, windows), index[-1] > 0)

    def most_recent(self, replay: ReplayBuffer, windows: PyTree = None) -> tuple[Segment, Bool[Array, " N"]]:
        """Return about as many of the last segments as a batch has, and a mask of the valid ones."""
        num_envs, capacity = replay.episode_step.shape
        num = max(1, self.batch_size // num_envs)
        segments, valid = _numbered(replay, windows).most_recent(num, self.horizon)
        return _with_images(segments, windows, capacity), valid

    def _sample(
        self, replay: ReplayBuffer, index: Int[Array, " rows"], key: Key[Array, ""], augment: bool, windows: PyTree
    ) -> Segment:
        segments = replay.sample(index, key, self.batch_size, self.horizon)
        segments = _with_images(segments, windows, replay.episode_step.shape[1])
        if not (augment and self.image_shift and isinstance(segments.obs, ImageObs)):
            return segments
        image = segments.obs.image
        flat = image.reshape(-1, *image.shape[2:])
        shifted = random_shift(flat, jax.random.fold_in(key, 1), self.image_shift).reshape(image.shape)
        return segments._replace(obs=segments.obs._replace(image=shifted))


def _numbered(replay: ReplayBuffer, windows: PyTree) -> ReplayBuffer:
    return replay if windows is None else number_rows(replay)


def _with_images(segments: Segment, windows: PyTree, capacity: int) -> Segment:
    """Replace the numbers of rows by the images of windows, if given."""
    if windows is None:
        return segments
    assert isinstance(segments.obs, ImageObs)
    image = jax.vmap(partial(stack_window, capacity=capacity))(windows, segments.obs.image)
    return segments._replace(obs=segments.obs._replace(image=image))
