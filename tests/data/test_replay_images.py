"""Camera images in the replay buffer: stored once, stacked when they are sampled."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.data.replay_buffer import ReplayBuffer, Transition, from_trajectories, replay_bytes
from cdred.types import STACKED_IMAGES, EnvSpec, ImageObs, Trajectory

SIZE, HORIZON, CAPACITY = 32, 2, 16
SPEC = EnvSpec("probe/images", (1,), 1, 100, image_size=SIZE)
TERMINATING = EnvSpec("probe/images", (1,), 1, 100, image_size=SIZE, can_terminate=True)


def code(episode, step):
    return 10 * episode + step


def image(episode, step):
    return np.full((SIZE, SIZE, 3), code(episode, step), np.uint8)


def observation(episode, step):
    """Return what an agent observes: the step as vector, and the last images."""
    images = [image(episode, max(step - back, 0)) for back in range(STACKED_IMAGES - 1, -1, -1)]
    return ImageObs(np.array([code(episode, step)], np.float32), np.stack(images))


def fill(spec, lengths, terminated=False):
    """Return a buffer of one environment after episodes of these lengths."""
    rows = []
    for episode, length in enumerate(lengths):
        for step in range(length):
            done = step + 1 == length
            now, then = observation(episode, step), observation(episode, step + 1)
            rows.append(Transition(now, np.zeros(1, np.float32), np.float32(0), then, done and terminated, done, False))
    block = jax.tree.map(lambda *xs: jnp.asarray(np.stack(xs)[:, None]), *rows)
    return jax.jit(ReplayBuffer.add)(ReplayBuffer.init(spec, 1, CAPACITY, HORIZON), block)


def sampled(buffer, num=200):
    index = buffer.index(HORIZON)
    return buffer.sample(index, jax.random.key(0), num, HORIZON)


def assert_stacked(segments):
    """Compare every image of every segment with the definition, by the vector beside it."""
    for state, stack, absorbing in zip(segments.obs.state, segments.obs.image, segments.absorbing, strict=True):
        for t in range(HORIZON + 1):
            if absorbing[t]:
                continue
            episode, step = divmod(int(state[t, 0]), 10)
            np.testing.assert_array_equal(stack[t], observation(episode, step).image)


# The last two fill the ring more than once.
@pytest.mark.parametrize("lengths", [(4,), (5, 6), (6, 6, 6), (9, 9, 9, 4)])
def test_segments_have_the_images_that_the_agent_observed(lengths):
    segments = sampled(fill(SPEC, lengths))
    assert segments.obs.image.dtype == jnp.uint8
    assert_stacked(segments)


def test_every_segment_with_known_images_can_be_drawn():
    buffer = fill(SPEC, (9, 9, 9, 4))
    starts = {int(state[0, 0]) for state in sampled(buffer, 2000).obs.state}
    rows = buffer.episode_step.shape[1]
    # The oldest two rows of the oldest episode lack an earlier image, unless it began there.
    stored = [divmod(int(x), 10) for x in np.asarray(buffer.obs.state[0, :, 0])]
    oldest = (int(buffer.insert_index[0]) + 1) % rows
    age = {pair: (index - oldest) % rows for index, pair in enumerate(stored)}
    lengths = {0: 9, 1: 9, 2: 9, 3: 4}
    expected = {
        code(e, s)
        for (e, s), a in age.items()
        if s + HORIZON <= lengths[e] and a >= min(s, STACKED_IMAGES - 1) and a + HORIZON < rows
    }
    assert starts == expected
    assert len(expected) >= 8


def test_most_recent_segments_have_their_images():
    segments, valid = fill(SPEC, (9, 9, 5)).most_recent(3, HORIZON)
    assert valid.all()
    assert_stacked(segments)


def test_terminated_episodes_continue_in_absorbing_rows():
    segments = sampled(fill(TERMINATING, (4, 3), terminated=True))
    assert segments.absorbing.any()
    assert_stacked(segments)


def test_demonstrations_equal_adding_their_steps():
    lengths = (4, 6)
    demos = [
        Trajectory(
            np.array([[code(e, s)] for s in range(n + 1)], np.float32),
            np.zeros((n, 1), np.float32),
            np.zeros(n, np.float32),
            terminated=False,
            truncated=True,
            image=np.stack([image(e, s) for s in range(n + 1)]),
        )
        for e, n in enumerate(lengths)
    ]
    buffer = from_trajectories(demos, SPEC, HORIZON)
    assert_stacked(sampled(buffer))
    rows = jnp.arange(sum(lengths) + 2)
    stacks = buffer.stacked_obs(0, rows)
    expected = [observation(e, s).image for e, n in enumerate(lengths) for s in range(n + 1)]
    np.testing.assert_array_equal(stacks.image, expected)


def test_each_image_is_stored_once():
    without = EnvSpec("probe/images", (1,), 1, 100)
    assert replay_bytes(SPEC, 2, 50) - replay_bytes(without, 2, 50) == 2 * 50 * 3 * SIZE * SIZE


def test_vmapped_seeds_equal_single_ones():
    buffers = [fill(SPEC, lengths) for lengths in ((5, 6), (9, 4))]
    both = jax.tree.map(lambda *xs: jnp.stack(xs), *buffers)
    draw = partial(ReplayBuffer.sample, batch=5, horizon=HORIZON)
    together = jax.vmap(lambda b: draw(b, b.index(HORIZON), jax.random.key(1)))(both)
    for index, buffer in enumerate(buffers):
        single = draw(buffer, buffer.index(HORIZON), jax.random.key(1))
        jax.tree.map(lambda x, y, i=index: np.testing.assert_array_equal(x[i], y), together, single)


def test_statistics_are_those_of_the_vector():
    mean, variance = fill(SPEC, (4,)).obs_stats()
    values = np.array([code(0, s) for s in range(5)], np.float32)
    np.testing.assert_allclose([mean[0], variance[0]], [values.mean(), values.var()])
