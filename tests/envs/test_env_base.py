import numpy as np
import pytest

from cdred.envs.base import Step, checked, checked_obs, raise_render_error, resize_nearest
from cdred.errors import UserError
from cdred.types import EnvSpec

SPEC = EnvSpec("probe/any", (2,), 1, 10)


def step(obs=(0.0, 1.0), reward=0.5):
    return Step(np.array(obs, np.float32), reward, False, False, False)


def test_a_finite_step_passes_unchanged():
    one = step()
    assert checked(SPEC, one) is one


def test_large_but_finite_observations_pass():
    one = step(obs=(3e38, 3e38))
    assert checked(SPEC, one) is one


@pytest.mark.parametrize("broken", [step(obs=(np.nan, 0.0)), step(obs=(np.inf, -np.inf)), step(reward=float("nan"))])
def test_a_step_that_is_not_finite_is_refused_by_name(broken):
    with pytest.raises(FloatingPointError, match="probe/any"):
        checked(SPEC, broken)


@pytest.mark.parametrize("reward", [float("inf"), 1e300, -4e38])
def test_a_reward_that_would_be_infinite_where_it_is_stored_is_refused(reward):
    with pytest.raises(FloatingPointError, match="probe/any: the simulator returned reward"):
        checked(SPEC, step(reward=reward))
    assert checked(SPEC, step(reward=3e38)).reward == 3e38


@pytest.mark.parametrize("success", [float("nan"), None, "yes", 2])
def test_a_success_that_is_neither_true_nor_false_is_refused(success):
    with pytest.raises(ValueError, match="probe/any: the simulator returned success"):
        checked(SPEC, step()._replace(success=success))


@pytest.mark.parametrize("success", [True, np.True_, np.float32(1.0), 0, np.array(False)])
def test_a_success_as_suites_write_it_passes(success):
    assert checked(SPEC, step()._replace(success=success)).success is success


def test_an_observation_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"probe/any.*of shape \(3,\), not \(2,\)"):
        checked(SPEC, step(obs=(0.0, 1.0, 2.0)))
    with pytest.raises(ValueError, match=r"of shape \(1, 2\)"):
        checked_obs(SPEC, np.zeros((1, 2), np.float32))


def test_resizing_samples_the_nearest_pixel_and_none_leaves_the_frame():
    frame = np.arange(4 * 2 * 3, dtype=np.uint8).reshape(4, 2, 3)
    assert resize_nearest(frame, None) is frame
    np.testing.assert_array_equal(resize_nearest(frame, 2), frame[[0, 2]])


def test_a_failed_render_keeps_its_cause():
    cause = RuntimeError("no GL")
    with pytest.raises(UserError, match="MUJOCO_GL") as caught:
        raise_render_error("metaworld/reach", cause)
    assert caught.value.__cause__ is cause
