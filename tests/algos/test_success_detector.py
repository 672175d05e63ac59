"""Success detector: nearest-neighbour distances to demonstrations, and a threshold that only these set."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.algos.success_detector import DemoStates, SuccessDetector

WINDOW, TOLERANCE = 2, 0.5


def demos(*heights, length=4):
    """Make demonstrations along a line, each at a height of its own, with an empty row after each."""
    latents, episode, step = [], [], []
    for number, height in enumerate(heights):
        latents += [(float(t), height) for t in range(length)] + [(0.0, 0.0)]
        episode += [number] * length + [-1]
        step += [*range(length), -1]
    return DemoStates(*map(jnp.asarray, (latents, episode, step)))


@pytest.fixture(scope="module")
def detector():
    return fit(demos(0.0, 1.0, 3.0))[0]


def fit(states, window=WINDOW):
    return eqx.filter_jit(SuccessDetector.empty(2, window, TOLERANCE).fit)(states)


def test_threshold_is_relative_to_the_extent_of_the_task(detector):
    # From the ends (2 and 3) of the nearest other demonstration, 1 or 2 higher.
    distances = [np.hypot(max(2 - t, 0), height) for height in (1, 1, 2) for t in range(4)]
    assert float(detector.threshold) == pytest.approx(TOLERANCE * np.median(distances), rel=1e-3)


@pytest.mark.parametrize(("heights", "share"), [((0.0, 0.1, 0.2, 0.1), 1.0), ((0.0, 0.1, 0.2, 90.0), 0.75)])
def test_fraction_of_demonstrations_detected_by_the_others(heights, share):
    assert float(fit(demos(*heights))[1]) == share


def test_demonstrations_with_different_ends_detect_none():
    """The same states at other times: each one ends where the others begin."""
    states = demos(0.0, 0.0, 0.0, length=9)
    order = jnp.concatenate([jnp.roll(jnp.arange(9), 3 * i) + 10 * i for i in range(3)])
    rows = jnp.concatenate([jnp.append(order[9 * i : 9 * i + 9], 10 * i + 9) for i in range(3)])
    assert float(fit(states._replace(latents=states.latents[rows]))[1]) == 0.0


def test_demonstrations_that_end_where_they_begin_detect_none():
    """Any other episode from there would be near their ends too."""
    there_and_back = jnp.array([0.0, 1.0, 2.0, 3.0, 4.0, 3.0, 2.0, 1.0, 0.0])
    states = demos(0.0, 0.1, 0.2, length=9)
    latents = states.latents.at[:, 0].set(jnp.tile(jnp.append(there_and_back, 0.0), 3))
    assert float(fit(states._replace(latents=latents))[1]) == 0.0


def test_outlier_does_not_change_the_threshold(detector):
    far, _ = fit(demos(0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 90.0))
    assert float(far.threshold) < float(detector.threshold) * 1.5


@pytest.mark.parametrize(("z", "expected"), [((1.0, 0.0), 1.0), ((2.0, 2.0), 1.0), ((7.0, 0.0), 4.0)])
def test_distance_is_that_of_the_nearest_end(detector, z, expected):
    assert float(detector.distance(jnp.array(z))) == pytest.approx(expected, abs=2e-3)


def test_single_demonstration_is_compared_with_its_own_end():
    detector, detected = fit(demos(0.0, length=9))
    assert float(detected) == 1.0
    assert float(detector.threshold) == pytest.approx(TOLERANCE * 3.0, rel=1e-2)


def test_more_ends_than_are_kept_are_spread_evenly():
    detector, _ = fit(demos(0.0, 1.0, length=4000), window=1500)
    assert {float(height) for height in detector.ends[:, 1]} == {0.0, 1.0}
    assert float(detector.ends[:, 0].min()) >= 2500.0
    assert np.diff(np.asarray(detector.ends[:512, 0])).max() < 7


def detect(detector, rows):
    """Return the rows, given as (z, step, absorbing, final), at which a success is detected."""
    latents, step, absorbing, final = (jnp.asarray(x) for x in zip(*rows, strict=True))
    return np.flatnonzero(eqx.filter_jit(detector.detect)(latents, step, absorbing, final)).tolist()


@pytest.mark.parametrize("near_step", [1, 2, 3])
def test_any_state_after_the_first_decides(detector, near_step):
    near, far = (3.0, 0.0), (50.0, 0.0)
    success = [(near if step == near_step else far, step, False, step == 3) for step in range(4)]
    failure = [(near if step == 0 else far, step, False, step == 3) for step in range(4)]
    assert detect(detector, success + failure) == [3]
    assert detect(detector, failure + success) == [7]


def test_episode_that_began_before_the_first_row(detector):
    near, far = (3.0, 0.0), (50.0, 0.0)
    assert detect(detector, [(near, 7, False, False), (far, 8, False, True), (far, 0, False, True)]) == [1]


def test_short_episode_is_independent_of_the_one_before(detector):
    near_then_far = [((3.0, 0.0), 1, False, False), ((3.0, 0.0), 2, False, True), ((50.0, 0.0), 0, False, True)]
    assert detect(detector, near_then_far) == [1]


def test_running_episode_is_no_success(detector):
    assert detect(detector, [((3.0, 0.0), step, False, False) for step in range(3)]) == []


def test_absorbing_and_empty_rows_are_left_out(detector):
    near, absorbing = (3.0, 0.0), (50.0, 0.0)
    ended = [(near, 0, False, False), (near, 1, False, False), (absorbing, 2, True, False), (absorbing, 3, True, True)]
    assert detect(detector, ended) == [3]
    assert detect(detector, [(near, -1, False, False)] * 2 + [((50.0, 0.0), 0, False, True)]) == []
