"""The judge of episodes: nearest-neighbour distances to demonstrations, and a threshold set by these alone."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.algos.judge import DemoStates, Judge

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
def judge():
    return fit(demos(0.0, 1.0, 3.0))[0]


def fit(states, window=WINDOW):
    return eqx.filter_jit(Judge.empty(2, window, TOLERANCE).fit)(states)


def test_threshold_is_relative_to_the_extent_of_the_task(judge):
    # From the ends (2 and 3) of the nearest other demonstration, 1 or 2 higher.
    distances = [np.hypot(max(2 - t, 0), height) for height in (1, 1, 2) for t in range(4)]
    assert float(judge.threshold) == pytest.approx(TOLERANCE * np.median(distances), rel=1e-3)


@pytest.mark.parametrize(("heights", "share"), [((0.0, 0.1, 0.2, 0.1), 1.0), ((0.0, 0.1, 0.2, 90.0), 0.75)])
def test_share_of_demonstrations_that_end_alike(heights, share):
    assert float(fit(demos(*heights))[1]) == share


def test_demonstrations_that_end_anywhere_do_not_end_alike():
    """The same states at other times: each one ends where the others begin."""
    states = demos(0.0, 0.0, 0.0, length=9)
    order = jnp.concatenate([jnp.roll(jnp.arange(9), 3 * i) + 10 * i for i in range(3)])
    rows = jnp.concatenate([jnp.append(order[9 * i : 9 * i + 9], 10 * i + 9) for i in range(3)])
    assert float(fit(states._replace(latents=states.latents[rows]))[1]) == 0.0


def test_outlier_does_not_change_the_threshold(judge):
    far, _ = fit(demos(0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 90.0))
    assert float(far.threshold) < float(judge.threshold) * 1.5


@pytest.mark.parametrize(("z", "expected"), [((1.0, 0.0), 1.0), ((2.0, 2.0), 1.0), ((7.0, 0.0), 4.0)])
def test_distance_is_that_of_the_nearest_end(judge, z, expected):
    assert float(judge.distance(jnp.array(z))) == pytest.approx(expected, abs=2e-3)


def test_single_demonstration_is_its_own_measure():
    judge, alike = fit(demos(0.0, length=9))
    assert float(alike) == 1.0
    assert float(judge.threshold) == pytest.approx(TOLERANCE * 3.0, rel=1e-2)


def test_more_ends_than_are_kept_are_spread_evenly():
    judge, _ = fit(demos(0.0, 1.0, length=4000), window=1500)
    assert {float(height) for height in judge.ends[:, 1]} == {0.0, 1.0}
    assert float(judge.ends[:, 0].min()) >= 2500.0
    assert np.diff(np.asarray(judge.ends[:512, 0])).max() < 7


def passes(judge, rows):
    """Judge rows given as (z, step, absorbing, final)."""
    latents, step, absorbing, final = (jnp.asarray(x) for x in zip(*rows, strict=True))
    return np.flatnonzero(eqx.filter_jit(judge.passes)(latents, step, absorbing, final)).tolist()


def test_episodes_are_judged_by_their_last_steps(judge):
    near, far = (3.0, 0.0), (50.0, 0.0)
    ends_near = [(far, 0, False, False), (near, 1, False, False), (far, 2, False, True)]
    ends_far = [(near, 0, False, False), (far, 1, False, False), (far, 2, False, True)]
    assert passes(judge, ends_near + ends_far) == [2]
    assert passes(judge, ends_far + ends_near) == [5]


def test_short_episode_is_judged_by_itself_alone(judge):
    near_then_far = [((3.0, 0.0), 0, False, False), ((3.0, 0.0), 1, False, True), ((50.0, 0.0), 0, False, True)]
    assert passes(judge, near_then_far) == [1]


def test_running_episode_is_not_judged(judge):
    assert passes(judge, [((3.0, 0.0), step, False, False) for step in range(3)]) == []


def test_absorbing_and_empty_rows_are_left_out(judge):
    near, absorbing = (3.0, 0.0), (50.0, 0.0)
    ended = [(near, 0, False, False), (near, 1, False, False), (absorbing, 2, True, False), (absorbing, 3, True, True)]
    assert passes(judge, ended) == [3]
    assert passes(judge, [(near, -1, False, False)] * 2 + [((50.0, 0.0), 0, False, True)]) == []
