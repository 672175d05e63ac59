"""Resizing of camera images, the same for those that an environment observes and those in demonstrations."""

import numpy as np
from jaxtyping import UInt8


def resize_area(image: np.ndarray, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Resize an image `[H, W]`, `[H, W, 1]` or `[H, W, 3]` by the means of the areas that its pixels cover, to RGB.

    The whole image becomes a square, without cropping: the aspect ratio is not kept.
    """
    from PIL import Image

    image = image.reshape(*image.shape[:2], -1)
    image = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BOX))
