"""Image encoder: published sizes, convolutions and shifts against their plain definitions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.nn.image_encoder import (
    Conv,
    ConvSpec,
    ImageEncoder,
    conv_specs,
    convolution,
    matmul_convolution,
    random_shift,
    standardized,
)
from cdred.types import ImageObs

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 3, 40, 40, 3), dtype=np.uint8)


def encoder(size, state_dim=0):
    return ImageEncoder(size, state_dim, (16,), 16, simnorm_group=8, key=jax.random.key(0))


def feature_sizes(size):
    sizes = []
    for spec in conv_specs(size):
        size = spec.out_size(size)
        sizes.append(size)
    return sizes


def test_sizes_of_64_pixels_are_those_of_td_mpc2():
    assert conv_specs(64) == ((7, 2), (5, 2), (3, 2), (3, 1))
    assert feature_sizes(64) == [29, 13, 6, 4]
    assert encoder(64).mlp.hidden[0].linear.weight.shape == (512, 16)
    assert encoder(64).convolutions[0].kernel.shape == (7, 7, 9, 32)


@pytest.mark.parametrize("size", [32, 40, 48, 84, 256])
def test_every_size_leaves_features(size):
    features = feature_sizes(size)[-1]
    assert features >= 1
    obs = ImageObs(jnp.ones(2), jnp.zeros((3, size, size, 3), jnp.uint8))
    model = encoder(size, state_dim=2)
    assert model.mlp.hidden[0].linear.weight.shape[0] == 32 * features**2 + 2
    # SimNorm: every group of 8 sums to 1.
    np.testing.assert_allclose(model(obs).reshape(2, 8).sum(axis=1), 1.0, rtol=1e-5)


def test_standardised_images_are_encoded_regardless_of_brightness_and_contrast():
    model, plain = (
        ImageEncoder(32, 0, (16,), 16, simnorm_group=8, standardize=flag, key=jax.random.key(0))
        for flag in (True, False)
    )
    dark = np.random.default_rng(3).integers(0, 100, (3, 32, 32, 3), dtype=np.uint8)
    bright = 2 * dark + np.array([5, 20, 50], np.uint8)
    latents = [[encode(ImageObs(jnp.zeros(0), jnp.asarray(i))) for i in (dark, bright)] for encode in (model, plain)]
    assert np.abs(latents[0][0] - latents[0][1]).max() < 0.02 < np.abs(latents[1][0] - latents[1][1]).max()
    # In the same images a channel has its own mean and standard deviation.
    channels = (dark / 255.0 - 0.5).reshape(-1, 3)
    expected = (channels - channels.mean(axis=0)) / (channels.std(axis=0) + 0.01)
    standardised = standardized(jnp.asarray(dark, jnp.float32) / 255.0 - 0.5)
    np.testing.assert_allclose(standardised.reshape(-1, 3), expected, atol=1e-5)


def test_image_of_one_colour_is_finite_when_standardised():
    model = ImageEncoder(32, 0, (16,), 16, simnorm_group=8, standardize=True, key=jax.random.key(0))
    assert np.isfinite(model(ImageObs(jnp.zeros(0), jnp.full((3, 32, 32, 3), 200, jnp.uint8)))).all()


@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_is_its_definition(stride):
    conv = Conv(2, ConvSpec(3, stride), key=jax.random.key(1))
    x = np.random.default_rng(1).normal(size=(8, 8, 2)).astype(np.float32)
    size = ConvSpec(3, stride).out_size(8)
    expected = np.zeros((size, size, 32))
    for row, column in np.ndindex(size, size):
        window = x[row * stride : row * stride + 3, column * stride : column * stride + 3]
        expected[row, column] = np.tensordot(window, np.asarray(conv.kernel), 3)
    np.testing.assert_allclose(conv(jnp.asarray(x)), expected, atol=1e-5)


@pytest.mark.parametrize(("kernel", "stride", "shape"), [(7, 2, (31, 34)), (5, 2, (13, 13)), (3, 1, (3, 8))])
def test_matrix_products_are_a_convolution(kernel, stride, shape):
    """Values and gradients of both implementations, of which each device has one, are equal up to rounding."""
    keys = jax.random.split(jax.random.key(4), 3)
    x, weights = jax.random.normal(keys[0], (2, *shape, 5)), jax.random.normal(keys[1], (2, kernel, kernel, 5, 6))
    size = [ConvSpec(kernel, stride).out_size(n) for n in shape]
    factors = jax.random.normal(keys[2], (2, *size, 6))

    def results(function):
        convolved, pull_back = jax.vjp(jax.vmap(partial(function, stride=stride)), x, weights)
        return convolved, pull_back(factors)

    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), *map(results, (matmul_convolution, convolution))
    )


def test_rounded_convolution_differs_from_exact_one_by_rounding():
    exact, rounded = (Conv(2, ConvSpec(3, 1), precision=p, key=jax.random.key(1)) for p in ("float32", "bfloat16"))
    x = jax.random.normal(jax.random.key(2), (8, 8, 2))
    difference = np.abs(exact(x) - rounded(x)).max()
    assert 1e-5 < difference < 0.05


def test_encoding_depends_on_every_image_and_the_state():
    model, image = encoder(32, state_dim=1), jnp.asarray(IMAGES[0, :, :32, :32])
    z = model(ImageObs(jnp.zeros(1), image))
    assert not np.array_equal(z, model(ImageObs(jnp.ones(1), image)))
    for index in range(3):
        changed = image.at[index].set(255 - image[index])
        assert not np.array_equal(z, model(ImageObs(jnp.zeros(1), changed)))
    assert not np.array_equal(z, model(ImageObs(jnp.zeros(1), image[::-1])))


def test_shift_is_a_crop_of_the_image_with_a_repeated_border():
    key, pixels = jax.random.key(3), 3
    shifted = np.asarray(random_shift(jnp.asarray(IMAGES), key, pixels))
    offsets = np.asarray(jax.random.randint(key, (5, 2), -pixels, pixels + 1))
    assert len(np.unique(offsets)) > 2
    pad = [(0, 0), (pixels, pixels), (pixels, pixels), (0, 0)]
    for image, result, (row, column) in zip(IMAGES, shifted, offsets, strict=True):
        padded = np.pad(image, pad, mode="edge")
        row, column = row + pixels, column + pixels
        np.testing.assert_array_equal(result, padded[:, row : row + 40, column : column + 40])
    assert shifted.dtype == np.uint8


def test_shift_by_nothing_changes_nothing():
    np.testing.assert_array_equal(random_shift(jnp.asarray(IMAGES), jax.random.key(0), 0), IMAGES)


def test_vmapped_shifts_equal_single_ones():
    keys = jax.random.split(jax.random.key(4), 2)
    images = jnp.stack([jnp.asarray(IMAGES), 255 - jnp.asarray(IMAGES)])
    together = jax.jit(jax.vmap(lambda x, k: random_shift(x, k, 3)))(images, keys)
    for index in range(2):
        np.testing.assert_array_equal(together[index], random_shift(images[index], keys[index], 3))
