"""Images of a replay buffer in host memory equal those of a buffer on the device, after the same steps."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdred.data.replay_buffer import ReplayBuffer, Transition
from cdred.data.replay_images import (
    add_rows,
    gather_windows,
    host_images,
    image_bytes,
    number_rows,
    stack_window,
    with_images,
    without_images,
    without_pixels,
    write_images,
)
from cdred.types import STACKED_IMAGES, EnvSpec, ImageObs

SEEDS, ENVS, STEPS, HORIZON, SIZE = 2, 2, 4, 2, 1
SPEC = EnvSpec("probe/images", (1,), 1, 100, image_size=SIZE)
TERMINATING = replace(SPEC, can_terminate=True)
TERMINATES, TRUNCATED, FAILS = "terminates", "truncated", "fails"

add_on_device = jax.jit(jax.vmap(ReplayBuffer.add))
add_without = jax.jit(jax.vmap(add_rows))


def random_steps(generator, endings):
    """Return a block of steps that end in this way ("" for one within an episode), with images of noise."""
    shape, pixels = endings.shape, (SIZE, SIZE, 3)
    image = generator.integers(0, 256, (*shape, 2, STACKED_IMAGES, *pixels), np.uint8)
    state = np.zeros((*shape, 1), np.float32)
    return Transition(
        ImageObs(state, image[:, :, :, 0]),
        np.zeros((*shape, 1), np.float32),
        np.zeros(shape, np.float32),
        ImageObs(state, image[:, :, :, 1]),
        endings == TERMINATES,
        endings != "",
        endings == FAILS,
        np.zeros(shape, bool),
    )


def both_buffers(spec, capacity):
    """Return empty buffers of all seeds, with images on the device and in host memory."""

    def empty(spec):
        return jax.tree.map(lambda x: jnp.stack([x] * SEEDS), ReplayBuffer.init(spec, ENVS, capacity, HORIZON))

    image = np.zeros((SEEDS, ENVS, capacity, *spec.image_shape), np.uint8)
    return empty(spec), with_images(empty(without_pixels(spec)), image)


def add_on_host(replay, block):
    image = host_images(replay)
    bare = block._replace(obs=block.obs._replace(image=None), next_obs=block.next_obs._replace(image=None))
    added, rows, sources = add_without(without_images(replay), bare)
    write_images(image, block, np.asarray(rows), np.asarray(sources))
    return with_images(added, image)


def filled(spec, capacity, endings):
    """Return both buffers after blocks of steps `[blocks, S, time, E]` that end in this way."""
    on_device, on_host = both_buffers(spec, capacity)
    generator = np.random.default_rng(0)
    for block_endings in endings:
        block = random_steps(generator, block_endings)
        on_device, on_host = add_on_device(on_device, block), add_on_host(on_host, block)
    return on_device, on_host


def random_endings(generator, blocks, rate, *kinds):
    probabilities = [1 - rate, *[rate / len(kinds)] * len(kinds)]
    return generator.choice(np.array(["", *kinds]), (blocks, SEEDS, STEPS, ENVS), p=probabilities)


# A block writes the smaller ring more than once, and not all rows of the larger one.
@pytest.mark.parametrize(("spec", "capacity"), [(SPEC, 5), (TERMINATING, 5), (TERMINATING, 40)])
@settings(max_examples=20)
@given(blocks=st.integers(1, 12), rate=st.sampled_from([0.0, 0.2, 0.6]), seed=st.integers(0, 1000))
def test_rows_of_both_buffers_are_equal(spec, capacity, blocks, rate, seed):
    kinds = (TERMINATES, TRUNCATED, FAILS) if spec.can_terminate else (TRUNCATED, FAILS)
    endings = random_endings(np.random.default_rng(seed), blocks, rate, *kinds)
    on_device, on_host = filled(spec, capacity, endings)
    jax.tree.map(np.testing.assert_array_equal, on_device, on_host)


def test_images_are_written_in_place():
    _, on_host = both_buffers(TERMINATING, 16)
    image = host_images(on_host)
    block = random_steps(np.random.default_rng(0), np.full((SEEDS, STEPS, ENVS), ""))
    added = add_on_host(on_host, block)
    assert host_images(added) is image
    np.testing.assert_array_equal(image[:, :, 0], block.obs.image[:, 0, :, -1])
    np.testing.assert_array_equal(image[:, :, STEPS], block.next_obs.image[:, -1, :, -1])
    assert not image[:, :, STEPS + 1 :].any()


def test_compiled_functions_get_no_pixels():
    on_device, on_host = both_buffers(TERMINATING, 16)
    assert without_images(on_device) is on_device
    bare = without_images(on_host)
    assert bare.obs.image.shape == (SEEDS, ENVS, 16, 0, 0, 3)
    assert image_bytes(TERMINATING, ENVS, 16) * SEEDS == host_images(on_host).nbytes
    assert image_bytes(EnvSpec("probe/fake", (3,), 2, 100), ENVS, 16) == 0


@pytest.fixture(scope="module")
def wrapped():
    """Buffers whose rings have wrapped around, with episodes of all kinds."""
    return filled(TERMINATING, 16, random_endings(np.random.default_rng(3), 20, 0.3, TERMINATES, TRUNCATED, FAILS))


def segments_of(replay, draw):
    """Return segments of a buffer, their images gathered on the host if these are in its memory."""
    image = host_images(replay)
    if image is None:
        return jax.jit(jax.vmap(draw))(replay)
    segments = jax.jit(jax.vmap(lambda r: draw(number_rows(r))))(without_images(replay))
    return segments._replace(obs=segments.obs._replace(image=gathered(image, segments.obs.image)))


def gathered(image, numbers):
    """Return the images with these numbers `[S, N, rows, K]`, by windows."""
    windows = gather_windows(image, np.asarray(numbers[:, :, 0, -1]), numbers.shape[2])
    assert windows.shape[2] == numbers.shape[2] + STACKED_IMAGES - 1
    return jax.jit(jax.vmap(jax.vmap(partial(stack_window, capacity=image.shape[2]))))(windows, numbers)


def test_sampled_segments_are_equal(wrapped):
    def draw(replay):
        return replay.sample(replay.index(HORIZON), jax.random.key(0), 50, HORIZON)

    on_device, on_host = (segments_of(replay, draw) for replay in wrapped)
    assert len(np.unique(on_device.obs.image)) > 20
    jax.tree.map(np.testing.assert_array_equal, on_device, on_host)


def test_most_recent_segments_are_equal_also_invalid_ones(wrapped):
    valid = jax.vmap(lambda r: r.most_recent(16, HORIZON)[1])(wrapped[0])
    assert 0 < int(valid.sum()) < valid.size
    on_device, on_host = (segments_of(replay, lambda r: r.most_recent(16, HORIZON)[0]) for replay in wrapped)
    jax.tree.map(np.testing.assert_array_equal, on_device, on_host)


@pytest.mark.parametrize("num_rows", [5, 16])
def test_observations_of_recent_rows_are_equal_across_episodes(wrapped, num_rows):
    on_device, on_host = wrapped

    def observed(replay):
        rows = replay.recent_rows(num_rows)
        return jax.vmap(replay.stacked_obs)(jnp.arange(ENVS), rows)

    expected = jax.vmap(observed)(on_device).image
    numbers = jax.vmap(lambda r: observed(number_rows(r)).image)(without_images(on_host))
    np.testing.assert_array_equal(gathered(host_images(on_host), numbers), expected)
