import numpy as np
import pytest

from cdred.envs.base import Step, checked, no_picture, resized
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


def test_resizing_samples_the_nearest_pixel_and_none_leaves_the_frame():
    frame = np.arange(4 * 2 * 3, dtype=np.uint8).reshape(4, 2, 3)
    assert resized(frame, None) is frame
    np.testing.assert_array_equal(resized(frame, 2), frame[[0, 2]])


def test_a_failed_render_keeps_its_cause():
    cause = RuntimeError("no GL")
    with pytest.raises(UserError, match="MUJOCO_GL") as caught:
        no_picture("metaworld/reach", cause)
    assert caught.value.__cause__ is cause
