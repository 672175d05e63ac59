import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cdred.data.rescale_actions import rescaled
from cdred.data.validate import validated
from cdred.errors import UserError
from cdred.types import DemoDataset, Trajectory


def dataset(*actions, **provenance):
    def trajectory(action):
        steps = len(action)
        action = np.asarray(action, np.float32)
        return Trajectory(np.zeros((steps + 1, 1), np.float32), action, np.zeros(steps, np.float32), False, True)

    return DemoDataset("", tuple(map(trajectory, actions)), provenance)


def test_the_smallest_and_largest_action_of_all_episodes_become_the_bounds():
    done = rescaled(dataset([[0.0, 5.0], [10.0, 5.0]], [[20.0, 5.0]]), "here")
    np.testing.assert_array_equal(done[0].action, [[-1, 0], [0, 0]])
    np.testing.assert_array_equal(done[1].action, [[1, 0]])
    assert done.provenance["actions_rescaled"] == {
        "low": [0.0, 5.0],
        "high": [20.0, 5.0],
        "from": "the smallest and the largest action",
    }


def test_declared_bounds_come_first_and_what_is_beyond_them_is_clipped():
    declared = {"action_bounds": {"low": [-0.4], "high": [0.4]}}
    done = rescaled(dataset([[0.2], [0.5]], note="x", **declared), "here")
    np.testing.assert_allclose(done[0].action, [[0.5], [1.0]], rtol=1e-6)
    assert done.provenance["note"] == "x"
    assert "action_bounds" not in done.provenance
    assert done.provenance["actions_rescaled"]["from"] == "the bounds that the file declares"


@given(hnp.arrays(np.float32, (6, 2), elements=st.floats(-1e6, 1e6, width=32)))
def test_rescaled_actions_are_valid_ordered_as_before_and_can_be_taken_back(action):
    done = rescaled(dataset(action[:4], action[4:]), "here")
    validated(done, "here", allow_variable_horizon=True)
    note = done.provenance["actions_rescaled"]
    low, high = np.array(note["low"]), np.array(note["high"])
    unit = np.concatenate([one.action for one in done]).astype(np.float64)
    np.testing.assert_allclose((unit + 1) / 2 * (high - low) + low, action, atol=1e-6 * max(np.ptp(action), 1e-30))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (dataset(np.zeros((3, 0))), "no actions in it to rescale"),
        (dataset([[0.0]], [[0.0, 1.0]]), "differ in size"),
        (dataset([[np.nan], [1.0]]), "not all finite"),
    ],
)
def test_what_cannot_be_rescaled_is_refused(data, says):
    with pytest.raises(UserError, match=f"^here: .*{says}"):
        rescaled(data, "here")
