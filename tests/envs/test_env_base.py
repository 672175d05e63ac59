import numpy as np
import pytest

from cdred.envs.base import Step, raise_render_error, resize_nearest, validate_obs, validate_step
from cdred.errors import UserError
from cdred.types import EnvSpec

SPEC = EnvSpec("probe/any", (2,), 1, 10)


def make_step(obs=(0.0, 1.0), reward=0.5):
    return Step(np.array(obs, np.float32), reward, False, False, False)


def test_finite_step_passes_unchanged():
    step = make_step()
    assert validate_step(SPEC, step) is step


def test_large_finite_observation_passes():
    step = make_step(obs=(3e38, 3e38))
    assert validate_step(SPEC, step) is step


@pytest.mark.parametrize(
    "step", [make_step(obs=(np.nan, 0.0)), make_step(obs=(np.inf, -np.inf)), make_step(reward=float("nan"))]
)
def test_non_finite_step_is_rejected_with_task(step):
    with pytest.raises(FloatingPointError, match="probe/any"):
        validate_step(SPEC, step)


@pytest.mark.parametrize("reward", [float("inf"), 1e300, -4e38])
def test_reward_beyond_float32_is_rejected(reward):
    with pytest.raises(FloatingPointError, match="probe/any: the simulator returned reward"):
        validate_step(SPEC, make_step(reward=reward))
    assert validate_step(SPEC, make_step(reward=3e38)).reward == 3e38


@pytest.mark.parametrize("success", [float("nan"), None, "yes", 2])
def test_non_boolean_success_is_rejected(success):
    with pytest.raises(ValueError, match="probe/any: the simulator returned success"):
        validate_step(SPEC, make_step()._replace(success=success))


@pytest.mark.parametrize("success", [True, np.True_, np.float32(1.0), 0, np.array(False)])
def test_success_types_of_suites_pass(success):
    assert validate_step(SPEC, make_step()._replace(success=success)).success is success


def test_observation_of_wrong_shape_is_rejected():
    with pytest.raises(ValueError, match=r"probe/any.*of shape \(3,\), expected \(2,\)"):
        validate_step(SPEC, make_step(obs=(0.0, 1.0, 2.0)))
    with pytest.raises(ValueError, match=r"of shape \(1, 2\)"):
        validate_obs(SPEC, np.zeros((1, 2), np.float32))


def test_resize_samples_nearest_pixels():
    frame = np.arange(4 * 2 * 3, dtype=np.uint8).reshape(4, 2, 3)
    assert resize_nearest(frame, None) is frame
    np.testing.assert_array_equal(resize_nearest(frame, 2), frame[[0, 2]])


def test_render_error_keeps_its_cause():
    cause = RuntimeError("no GL")
    with pytest.raises(UserError, match="MUJOCO_GL") as caught:
        raise_render_error("metaworld/reach", cause)
    assert caught.value.__cause__ is cause
