import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cdred.data.rescale import rescale_actions
from cdred.data.validate import validate_demos
from cdred.errors import UserError
from cdred.types import DemoDataset, Trajectory


def dataset(*actions, **provenance):
    def trajectory(action):
        steps = len(action)
        action = np.asarray(action, np.float32)
        return Trajectory(np.zeros((steps + 1, 1), np.float32), action, np.zeros(steps, np.float32), False, True)

    return DemoDataset("", tuple(map(trajectory, actions)), provenance)


def test_undeclared_bounds_are_observed_extremes():
    rescaled = rescale_actions(dataset([[0.0, 5.0], [10.0, 5.0]], [[20.0, 5.0]]), "here")
    np.testing.assert_array_equal(rescaled[0].action, [[-1, 0], [0, 0]])
    np.testing.assert_array_equal(rescaled[1].action, [[1, 0]])
    assert rescaled.provenance["actions_rescaled"] == {
        "low": [0.0, 5.0],
        "high": [20.0, 5.0],
        "from": "the smallest and the largest action",
    }


def test_declared_bounds_are_used_and_clipped():
    declared = {"action_bounds": {"low": [-0.4], "high": [0.4]}}
    rescaled = rescale_actions(dataset([[0.2], [0.5]], note="x", **declared), "here")
    np.testing.assert_allclose(rescaled[0].action, [[0.5], [1.0]], rtol=1e-6)
    assert rescaled.provenance["note"] == "x"
    assert "action_bounds" not in rescaled.provenance
    assert rescaled.provenance["actions_rescaled"]["from"] == "the bounds that the file declares"


@given(hnp.arrays(np.float32, (6, 2), elements=st.floats(-1e6, 1e6, width=32)))
def test_rescaled_actions_are_valid_and_invertible(action):
    rescaled = rescale_actions(dataset(action[:4], action[4:]), "here")
    validate_demos(rescaled, "here", allow_variable_horizon=True)
    note = rescaled.provenance["actions_rescaled"]
    low, high = np.array(note["low"]), np.array(note["high"])
    unit = np.concatenate([trajectory.action for trajectory in rescaled]).astype(np.float64)
    np.testing.assert_allclose((unit + 1) / 2 * (high - low) + low, action, atol=1e-6 * max(np.ptp(action), 1e-30))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (dataset(np.zeros((3, 0))), "no actions in it to rescale"),
        (dataset([[0.0]], [[0.0, 1.0]]), "differ in size"),
        (dataset([[np.nan], [1.0]]), "not all finite"),
    ],
)
def test_invalid_actions_are_rejected(data, message):
    with pytest.raises(UserError, match=f"^here: .*{message}"):
        rescale_actions(data, "here")
