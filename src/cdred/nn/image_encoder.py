"""Encoder of camera images, and the random shift that they are augmented by."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt8

from cdred.nn.layers import MLP
from cdred.nn.precision import round_mantissa
from cdred.types import STACKED_IMAGES, ImageObs, Precision

CHANNELS = 32
# Added to the standard deviations that images are divided by; pixels are within [-0.5, 0.5].
STD_EPS = 0.01


class ConvSpec(NamedTuple):
    """Square kernel of a convolution without padding, and its stride."""

    kernel: int
    stride: int

    def out_size(self, size: int) -> int:
        """Return the height and width of the output for an input of `size`."""
        return (size - self.kernel) // self.stride + 1


def conv_specs(size: int) -> tuple[ConvSpec, ...]:
    """Return the convolutions for images of `size` pixels: those of TD-MPC2 for 64 (arXiv 2310.16828).

    The third one has stride 1 where stride 2 would leave less than the last one's kernel.
    """
    first = ConvSpec(7, 2), ConvSpec(5, 2)
    left = _out_size(first, size)
    third = ConvSpec(3, 2 if ConvSpec(3, 2).out_size(left) >= 3 else 1)
    return (*first, third, ConvSpec(3, 1))


def _out_size(specs: Sequence[ConvSpec], size: int) -> int:
    for spec in specs:
        size = spec.out_size(size)
    return size


class Conv(eqx.Module):
    """Convolution of `[H, W, in]` without padding, with bias; LeCun-normal weights."""

    kernel: Float[Array, "k k in out"]
    bias: Float[Array, " out"]
    stride: int = eqx.field(static=True)
    precision: Precision = eqx.field(static=True)

    def __init__(self, in_channels: int, spec: ConvSpec, *, precision: Precision = "float32", key: Key[Array, ""]):
        shape = (spec.kernel, spec.kernel, in_channels, CHANNELS)
        self.kernel = jax.nn.initializers.lecun_normal(in_axis=(0, 1, 2))(key, shape, jnp.float32)
        self.bias = jnp.zeros(CHANNELS)
        self.stride, self.precision = spec.stride, precision

    def __call__(self, x: Float[Array, "H W in"]) -> Float[Array, "h w out"]:
        x, kernel = round_mantissa(x, self.precision), round_mantissa(self.kernel, self.precision)
        matmuls, convolve = partial(matmul_convolution, stride=self.stride), partial(convolution, stride=self.stride)
        # On CPUs XLA's convolutions are 15 times slower than matrix products in a loop of a compiled program.
        output = jax.lax.platform_dependent(x, kernel, cpu=matmuls, default=convolve)
        return output + self.bias[None, None]


def convolution(
    x: Float[Array, "H W in"], kernel: Float[Array, "k k in out"], *, stride: int
) -> Float[Array, "h w out"]:
    """Convolve without padding."""
    output = jax.lax.conv_general_dilated(
        x[None],
        kernel,
        (stride, stride),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=jax.lax.Precision.HIGHEST,
    )
    return output[0]


def matmul_convolution(
    x: Float[Array, "H W in"], kernel: Float[Array, "k k in out"], *, stride: int
) -> Float[Array, "h w out"]:
    """Compute `convolution` as a sum of k matrix products, one per row of the kernel.

    The columns of each window are copied side by side, its rows are not: k times the memory of the input, not k^2.
    """
    size, in_channels, out_channels = len(kernel), *kernel.shape[2:]
    height, width = (ConvSpec(size, stride).out_size(n) for n in x.shape[:2])
    columns = [x[:, j : j + (width - 1) * stride + 1 : stride] for j in range(size)]
    windows = jnp.concatenate(columns, axis=-1)
    weights = kernel.reshape(size, size * in_channels, out_channels)
    output = jnp.zeros((height, width, out_channels))
    for i in range(size):
        rows = windows[i : i + (height - 1) * stride + 1 : stride]
        output += jnp.matmul(rows, weights[i], precision="highest")
    return output


class ImageEncoder(eqx.Module):
    """Encoder h of stacked images, with or without a vector beside them.

    Four convolutions with ReLU; their flattened output and the vector are the input of `mlp`.

    Attributes:
        convolutions: all of them.
        mlp: from features to latent.
        standardize: give every colour channel of the stacked images mean 0 and standard deviation 1. Without it they
            are within [-0.5, 0.5], as in TD-MPC2, and what moves in front of a constant background is learned slowly.
    """

    convolutions: tuple[Conv, ...]
    mlp: MLP
    standardize: bool = eqx.field(static=True)

    def __init__(
        self,
        image_size: int,
        state_dim: int,
        hidden_dims: Sequence[int],
        latent_dim: int,
        *,
        simnorm_group: int,
        layer_norm: bool = True,
        standardize: bool = False,
        precision: Precision = "float32",
        key: Key[Array, ""],
    ):
        *conv_keys, mlp_key = jax.random.split(key, 5)
        specs = conv_specs(image_size)
        channels = (3 * STACKED_IMAGES, *(CHANNELS for _ in specs))
        self.convolutions = tuple(
            Conv(channels[i], spec, precision=precision, key=conv_keys[i]) for i, spec in enumerate(specs)
        )
        self.mlp = MLP(
            CHANNELS * _out_size(specs, image_size) ** 2 + state_dim,
            hidden_dims,
            latent_dim,
            simnorm_group=simnorm_group,
            layer_norm=layer_norm,
            precision=precision,
            key=mlp_key,
        )
        self.standardize = standardize

    def __call__(self, obs: ImageObs) -> Float[Array, " Z"]:
        """Encode an observation with a (normalised) vector `[n]` and images `[K, H, W, 3]`."""
        images = obs.image.astype(jnp.float32) / 255.0 - 0.5
        if self.standardize:
            images = standardized(images)
        x = jnp.concatenate(list(images), axis=-1)
        for convolution in self.convolutions:
            x = jax.nn.relu(convolution(x))
        return self.mlp(jnp.concatenate([x.reshape(-1), obs.state]))


def standardized(images: Float[Array, "K H W C"]) -> Float[Array, "K H W C"]:
    """Give each channel mean 0 and standard deviation 1 over all images and pixels; a constant channel becomes 0."""
    mean = partial(jnp.mean, axis=(0, 1, 2), keepdims=True)
    centred = images - mean(images)
    return centred / (jnp.sqrt(mean(centred * centred)) + STD_EPS)


def random_shift(images: UInt8[Array, "N K H W C"], key: Key[Array, ""], pixels: int) -> UInt8[Array, "N K H W C"]:
    """Shift every stack of images by up to `pixels` in both directions; the border is repeated (arXiv 2107.09645).

    Rows and columns are gathered by index, which `jax.vmap` turns into one gather, and nothing is padded.
    """
    rows, columns = images.shape[-3:-1]
    shifts = jax.random.randint(key, (len(images), 2), -pixels, pixels + 1)

    def shift(image: UInt8[Array, "K H W C"], offset) -> UInt8[Array, "K H W C"]:
        row = jnp.clip(jnp.arange(rows) + offset[0], 0, rows - 1)
        column = jnp.clip(jnp.arange(columns) + offset[1], 0, columns - 1)
        return image[:, row][:, :, column]

    return jax.vmap(shift)(images, shifts)
