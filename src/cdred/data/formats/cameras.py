"""Camera images of demonstration files: the choice of a camera, the check of its images, and their size.

Images are read only if they are asked for (`ImageRequest`). They are resized while they are read, so that those of one
episode at most are in memory in the size of the file.
"""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import UInt8

from cdred.data.formats.common import sanitize_text
from cdred.data.formats.obs_keys import ArrayInfo
from cdred.data.formats.safety import check_fits_memory
from cdred.errors import UserError
from cdred.resizing import resize_area

# Keys of the provenance: the images of a dataset, how they came about; and the cameras of the file that was read.
IMAGES_KEY, CAMERAS_KEY = "images", "cameras"
# Name of the images, and of the vector beside them, in files that cdred writes.
IMAGE, STATE = "image", "state"
# Bytes of images that are read before they are resized.
BLOCK_BYTES = 16 * 2**20
# More than twice the pixels of 8K video.
MAX_PIXELS = 2**26
FLOAT_HINT = "store bytes from 0 to 255, for example (255 * image).round().astype(np.uint8)"
CHOICE_HINT = "choose one with `cdred demos convert SRC DST --camera NAME --image-size SIZE` (in Python camera=NAME)"
RENDER_HINT = "`cdred demos render SRC DST` renders episodes that have a seed"


@dataclass(frozen=True)
class ImageRequest:
    """Camera images to read with the observations.

    Attributes:
        size: height and width that they are resized to; None for those of recordings by cdred only, as they are.
        camera: name of the camera; None if the file has only one.
    """

    size: int | None = None
    camera: str | None = None


class ImageArray(ArrayInfo, Protocol):
    """Stored images `[T, H, W, C]`, such as an `h5py.Dataset`."""

    def __getitem__(self, rows: slice, /) -> Any: ...


class EncodedImages:
    """Images that are stored as the bytes of PNG or JPEG files.

    Args:
        encoded: one image per row.
        shape: shape of an image, as the file's metadata declare it.
        location: file and name, for messages.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, encoded: Any, shape: tuple[int, ...], location: str):
        self._encoded, self._location = encoded, location
        self.shape = (len(encoded), *shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> list[np.ndarray]:
        return [decode_image(bytes(image), self.shape[1:], self._location) for image in self._encoded[rows]]


def decode_image(encoded: bytes, shape: tuple[int, ...], location: str) -> np.ndarray:
    """Decode the bytes of a PNG or JPEG file.

    Args:
        encoded: content of the file.
        shape: the shape that it must have, `[H, W, 3]`, `[H, W, 1]` or `[H, W]`.
        location: where it is stored, for messages.

    Raises:
        UserError: it is no such file, damaged, or of another size or number of channels.
    """
    from PIL import Image

    check_pixels(shape[0], shape[1], location)
    try:
        with Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG")) as image:
            stored = (image.height, image.width, len(image.getbands()))
            if image.mode in ("RGB", "L") and stored == (*shape, 1)[:3]:
                return np.asarray(image).reshape(shape)
            description = f"a {image.mode} image of {stored[0]} x {stored[1]}"
    # Pillow raises almost any exception on damaged files.
    except Exception as error:
        raise UserError(
            f"{location}: an image cannot be decoded as PNG or JPEG ({sanitize_text(error)}): fetch or record it again."
        ) from error
    raise UserError(f"{location}: {description}, expected shape {shape}, as its metadata declare.")


def encode_png(image: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """Encode an image as the bytes of a PNG file, without loss."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def is_camera(array: ArrayInfo) -> bool:
    """Return True if an array with one row per time step holds images that can be read: RGB or grey, in bytes."""
    return array.dtype == np.uint8 and _layout(array.shape[1:]) is not None


def _layout(shape: tuple[int, ...]) -> str | None:
    """Return the layout of images of a shape; None if they are neither RGB nor grey."""
    if len(shape) not in (2, 3) or 0 in shape:
        return None
    if len(shape) == 2:
        return "HW"
    return "HWC" if shape[2] in (1, 3) else "CHW" if shape[0] == 3 else None


def requested_camera(
    arrays: Mapping[str, ArrayInfo], request: ImageRequest | None, location: str, *, is_ours: bool = False
) -> str | None:
    """Return the name of the camera to read; None if no images are asked for.

    Args:
        arrays: all observations of a file by name, each `[T, ...]`.
        request: the images that are asked for.
        location: file or episode, for messages.
        is_ours: cdred wrote the file, with images named `IMAGE`, if it has any.

    Raises:
        UserError: there is no such camera, none, several to choose from, or its images are of another kind.
    """
    if request is None or (request.size is None and not is_ours):
        return None
    if is_ours and request.camera is None:
        return IMAGE if IMAGE in arrays else None
    if request.camera is not None:
        _check_named(arrays, request.camera, location)
        return request.camera
    cameras = [name for name, array in arrays.items() if is_camera(array)]
    if not cameras:
        raise UserError(
            f"{location}: no camera images in it, expected RGB images (H, W, 3) of uint8 (available: "
            f"{_format_images(arrays)}); {RENDER_HINT}."
        )
    if len(cameras) > 1:
        raise UserError(
            f"{location}: it has {len(cameras)} cameras, {_format_images({name: arrays[name] for name in cameras})}: "
            f"{CHOICE_HINT}."
        )
    return cameras[0]


def _check_named(arrays: Mapping[str, ArrayInfo], camera: str, location: str) -> None:
    name = sanitize_text(camera)
    if camera not in arrays:
        raise UserError(f"{location}: no camera '{name}' in it (available: {_format_images(arrays)}).")
    _check_kind(arrays[camera], f"{location}: '{name}'")


def _format_images(arrays: Mapping[str, ArrayInfo]) -> str:
    images = {key: array for key, array in arrays.items() if len(array.shape) >= 3}
    return sanitize_text(
        ", ".join(f"{key} {tuple(array.shape[1:])} {array.dtype}" for key, array in images.items()) or "no images"
    )


def _check_kind(array: ArrayInfo, location: str) -> None:
    if is_camera(array):
        return
    hint = f": {FLOAT_HINT}" if np.dtype(array.dtype).kind == "f" and _layout(array.shape[1:]) else ""
    raise UserError(
        f"{location} holds images of shape {tuple(array.shape[1:])} and type {array.dtype}, expected RGB images "
        f"(H, W, 3), or (3, H, W), of uint8{hint}."
    )


def read_resized(
    array: ImageArray, size: int, location: str, rows: slice = slice(None)
) -> UInt8[np.ndarray, "T size size 3"]:
    """Read rows of an array of images, a block at a time, and resize them.

    Args:
        array: `[T, H, W, 3]`, `[T, 3, H, W]`, or grey `[T, H, W, 1]` or `[T, H, W]`, uint8.
        size: height and width of the result.
        location: file, episode and name of the camera, for messages.
        rows: the rows to read.

    Raises:
        UserError: images of another kind, or more than fit into memory.
    """
    _check_kind(array, location)
    start, stop, _ = rows.indices(array.shape[0])
    images = allocate_images(max(stop - start, 0), size, location)
    channels_first = _layout(array.shape[1:]) == "CHW"
    for index, image in enumerate(_iter_rows(array, start, stop)):
        images[index] = resize_area(np.moveaxis(image, 0, -1) if channels_first else image, size)
    return images


def _iter_rows(array: ImageArray, start: int, stop: int) -> Iterator[np.ndarray]:
    rows = max(BLOCK_BYTES // int(np.prod(array.shape[1:])), 1)
    for first in range(start, stop, rows):
        yield from array[first : min(first + rows, stop)]


def allocate_images(num: int, size: int, location: str) -> UInt8[np.ndarray, "num size size 3"]:
    """Return an uninitialized array of images.

    Raises:
        UserError: they do not fit into memory.
    """
    check_fits_memory(num * size * size * 3, location)
    return np.empty((num, size, size, 3), np.uint8)


def check_pixels(height: int, width: int, location: str) -> None:
    """Check that images are not so large that decoding one would exhaust the memory.

    Raises:
        UserError: they have more than `MAX_PIXELS` pixels.
    """
    if not 0 < height * width <= MAX_PIXELS:
        raise UserError(f"{location}: images of {height} x {width} pixels, expected {MAX_PIXELS:,} pixels at most.")


def cameras_provenance(arrays: Mapping[str, ArrayInfo]) -> dict[str, object]:
    """Return the cameras of a file for a dataset's provenance; empty if there are none."""
    cameras = {name: describe_size(array.shape[1:]) for name, array in arrays.items() if is_camera(array)}
    return {CAMERAS_KEY: cameras} if cameras else {}


def images_provenance(array: ArrayInfo, camera: str, size: int) -> dict[str, object]:
    """Return what was read of a camera for a dataset's provenance."""
    moved = {"channels": "first, moved last"} if _layout(array.shape[1:]) == "CHW" else {}
    stored = describe_size(array.shape[1:])
    return {IMAGES_KEY: {"camera": camera, "stored_size": stored, **moved, "resized_to": describe_size((size, size))}}


def describe_size(shape: tuple[int, ...]) -> str:
    """Return height and width of images of a shape as text."""
    height, width = shape[1:] if _layout(shape) == "CHW" else shape[:2]
    return f"{height} x {width}"


def target_size(request: ImageRequest | None, array: ArrayInfo, *, is_ours: bool = False) -> int:
    """Return the height and width to resize the images of a camera to; those of files that cdred wrote are kept."""
    return array.shape[1] if is_ours or request is None or request.size is None else request.size
