"""Selection of what is read of observations that are named arrays: vectors to join, and a camera."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from cdred.data.formats.cameras import (
    IMAGE,
    ImageArray,
    ImageRequest,
    cameras_provenance,
    images_provenance,
    is_camera,
    read_resized,
    requested_camera,
    target_size,
)
from cdred.data.formats.common import sanitize_text
from cdred.data.formats.obs_keys import (
    Parts,
    concat_obs,
    format_shapes,
    joined_parts,
    obs_provenance,
    select_obs_keys,
)
from cdred.errors import UserError


class Selection(NamedTuple):
    """Arrays to read of an episode's observations.

    Attributes:
        arrays: all arrays by name, each `[time, ...]`.
        vectors: those that can be joined, without the images that are read.
        keys: names of the vectors to join, in that order; none where images are all that is observed.
        camera: name of the images to read; None if none are.
        size: height and width that the images are resized to; 0 without a camera.
    """

    arrays: Mapping[str, ImageArray]
    vectors: Mapping[str, ImageArray]
    keys: tuple[str, ...]
    camera: str | None
    size: int

    @property
    def parts(self) -> Parts:
        """Names and widths of the vectors."""
        return joined_parts(self.vectors, self.keys)

    def read_vectors(self, read: Callable[[str], np.ndarray], rows: int, location: str) -> np.ndarray:
        """Join the vectors to `[time, sum of sizes]`.

        Args:
            read: returns the array of a name as float32, `[time, ...]`.
            rows: number of time steps, used if there are no vectors.
            location: file or episode, for messages.

        Raises:
            UserError: the arrays differ in their number of time steps.
        """
        if not self.keys:
            return np.zeros((rows, 0), np.float32)
        return concat_obs(self.vectors, self.keys, read, location)

    def read_images(self, location: str, rows: slice = slice(None)) -> UInt8[np.ndarray, "time size size 3"] | None:
        """Read the camera's images, resized; None without a camera.

        Args:
            location: file or episode, for messages.
            rows: time steps to read.

        Raises:
            UserError: images of another kind, or more than fit into memory.
        """
        if self.camera is None:
            return None
        return read_resized(self.arrays[self.camera], self.size, f"{location}: '{sanitize_text(self.camera)}'", rows)

    def provenance(self, obs_keys: Sequence[str] | None, *, is_ours: bool = False) -> dict[str, object]:
        """Return what is read, and the cameras, for a dataset's provenance.

        Args:
            obs_keys: names of vectors given by the user.
            is_ours: cdred wrote the file, and its provenance says where the images are from.
        """
        vectors = obs_provenance(self.vectors, self.keys, obs_keys)
        if is_ours:
            return vectors
        images = {} if self.camera is None else images_provenance(self.arrays[self.camera], self.camera, self.size)
        return vectors | cameras_provenance(self.arrays) | images


def select_obs(
    arrays: Mapping[str, ImageArray],
    obs_keys: Sequence[str] | None,
    images: ImageRequest | None,
    location: str,
    *,
    is_ours: bool = False,
) -> Selection:
    """Select what is read of an episode.

    Args:
        arrays: all arrays by name, each `[time, ...]`.
        obs_keys: names of vectors given by the user; None for all.
        images: the images that are asked for.
        location: file or episode, for messages.
        is_ours: cdred wrote the file, with images named `IMAGE`, if it has any.

    Raises:
        UserError: an unknown name, no array that can be used, or the choice of a camera is open.
    """
    camera = requested_camera(arrays, images, location, is_ours=is_ours)
    omitted = IMAGE if is_ours else camera
    vectors = {name: array for name, array in arrays.items() if name != omitted}
    if obs_keys is None and camera is None and vectors and all(map(is_camera, vectors.values())):
        raise UserError(
            f"{location}: all of its observations are images, {format_shapes(vectors)}: observe them with --obs pixels "
            "(cdred train), or read them with --image-size SIZE (cdred demos convert)."
        )
    beside_images = camera is not None or len(vectors) < len(arrays)
    keys = select_obs_keys(vectors, obs_keys, location, beside_images=beside_images)
    size = 0 if camera is None else target_size(images, arrays[camera], is_ours=is_ours)
    return Selection(arrays, vectors, keys, camera, size)
