"""Camera images of demonstrations: which a task needs, and what they must look like."""

import shlex
from dataclasses import replace

import numpy as np

from cdred.data.formats.cameras import RENDER_HINT, ImageRequest, describe_size
from cdred.errors import UserError
from cdred.types import DemoDataset, EnvSpec, Trajectory


def match_images(dataset: DemoDataset, source: str, spec: EnvSpec) -> DemoDataset:
    """Return demonstrations with what a task observes of them: images, the vector beside them, or both.

    Raises:
        UserError: the task has images, and an episode has none, or of another size.
    """
    if spec.image_size is None:
        return replace(dataset, trajectories=tuple(replace(trajectory, image=None) for trajectory in dataset))
    for index, trajectory in enumerate(dataset):
        if trajectory.image is None or trajectory.image.shape[1:] != spec.image_shape:
            got = "no images" if trajectory.image is None else f"images of {trajectory.image.shape[1:]}"
            raise UserError(
                f"{source}, episode {index}: {got}, expected images of {spec.image_shape}, as in {spec.task}: "
                f"`cdred demos render SRC DST --task {shlex.quote(spec.task)}` renders episodes that have a seed."
            )
    if spec.obs_shape == (0,):
        return replace(dataset, trajectories=tuple(map(_without_state, dataset)))
    return dataset


def _without_state(trajectory: Trajectory) -> Trajectory:
    return replace(trajectory, obs=np.zeros((len(trajectory) + 1, 0), np.float32))


def check_requested(dataset: DemoDataset, source: str, request: ImageRequest | None) -> None:
    """Check that demonstrations have the images that were asked for without a task.

    Raises:
        UserError: an episode has none, or of another size.
    """
    if request is None or request.size is None:
        return
    for index, trajectory in enumerate(dataset):
        if trajectory.image is None:
            raise UserError(f"{source}, episode {index}: no images in it; {RENDER_HINT}.")
        if trajectory.image.shape[1:3] != (request.size, request.size):
            raise UserError(
                f"{source}, episode {index}: images of {describe_size(trajectory.image.shape[1:])}, and those of "
                f"recordings by cdred are not resized to {request.size} x {request.size}: omit the size, or render "
                "the episodes again with `cdred demos render SRC DST --image-size SIZE`."
            )


def check_images(trajectory: Trajectory, location: str) -> None:
    """Check number, layout and type of an episode's images, if it has any.

    Raises:
        UserError: they are not RGB images in bytes, channels last, one per observation.
    """
    image = trajectory.image
    if image is None:
        return
    hint = ""
    if image.ndim == 4 and image.shape[1] == 3 != image.shape[3]:
        hint = " The channels seem to come first: store np.moveaxis(image, 1, -1)."
    elif image.dtype.kind == "f":
        hint = " Store bytes from 0 to 255, for example (255 * image).round().astype(np.uint8)."
    if image.ndim != 4 or image.shape[3] != 3 or image.shape[1] != image.shape[2] or image.dtype != np.uint8:
        raise UserError(
            f"{location}: images of shape {image.shape} and type {image.dtype}, expected square RGB images "
            f"[T + 1, H, H, 3] of uint8.{hint}"
        )
    if len(image) != len(trajectory) + 1:
        raise UserError(
            f"{location}: {len(image)} images for {len(trajectory)} actions, expected {len(trajectory) + 1}, one per "
            "observation, the final one included."
        )
