import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cdred.action_units import denormalize_actions
from cdred.data.rescale import ActionBounds, rescale_actions, to_task_units
from cdred.data.validate import validate_demos
from cdred.errors import UserError
from cdred.types import DemoDataset, EnvSpec, Trajectory


def dataset(*actions, **provenance):
    def trajectory(action):
        steps = len(action)
        action = np.asarray(action, np.float32)
        return Trajectory(np.zeros((steps + 1, 1), np.float32), action, np.zeros(steps, np.float32), False, True)

    return DemoDataset("", tuple(map(trajectory, actions)), provenance)


def bounds(low, high):
    return {"low": low, "high": high}


DECLARED = {"action_bounds": bounds([-0.4], [0.4])}
# Its bounds are not symmetric.
THRUST = EnvSpec("gym/Thrust-v0", (1,), 1, 100, action_low=(-0.5,), action_high=(3.0,))
NORMALIZED = EnvSpec("probe/fake", (1,), 1, 100)


def test_declared_bounds_are_used_and_what_exceeds_them_is_clipped_and_counted():
    rescaled = rescale_actions(dataset([[0.2], [0.5]], note="x", **DECLARED), "here")
    np.testing.assert_allclose(rescaled[0].action, [[0.5], [1.0]], rtol=1e-6)
    assert rescaled.provenance == {
        "note": "x",
        "action_bounds": bounds([-1.0], [1.0]),
        "actions_rescaled": bounds([-0.4], [0.4]) | {"from": "the bounds that the file declares", "clipped_steps": 1},
    }


def test_range_of_the_data_is_never_taken_for_the_bounds():
    with pytest.raises(UserError, match=r"^here: it does not declare the bounds .*--task.*--action-low"):
        rescale_actions(dataset([[0.0], [2.3]]), "here")


def test_given_bounds_replace_declared_ones():
    given = ActionBounds.given(-0.5, [3.0])
    rescaled = rescale_actions(dataset([[-0.5], [1.25], [3.0]], **DECLARED), "here", given)
    assert rescaled[0].action.ravel().tolist() == [-1.0, 0.0, 1.0]
    assert rescaled.provenance["actions_rescaled"] == {
        **bounds([-0.5], [3.0]),
        "from": "--action-low and --action-high",
        "clipped_steps": 0,
    }


def test_one_given_number_holds_for_all_components():
    rescaled = rescale_actions(dataset([[1.0, 3.0]]), "here", ActionBounds.given([0.0], [4.0, 3.0]))
    assert rescaled[0].action.tolist() == [[-0.5, 1.0]]


def test_bounds_of_the_task_are_used_where_the_file_declares_none():
    task = ActionBounds.of_task(THRUST)
    rescaled = rescale_actions(dataset([[1.25]]), "here", task=task)
    assert rescaled[0].action.tolist() == [[0.0]]
    assert rescaled.provenance["actions_rescaled"]["from"] == "the bounds of gym/Thrust-v0"
    with pytest.raises(UserError, match=r"component 0 is 3\.5 at step 1, beyond the bounds of gym/Thrust-v0"):
        rescale_actions(dataset([[0.0], [3.5]]), "here", task=task)
    with pytest.raises(UserError, match=r"declares action bounds \[-0\.4, 0\.4\], but .*Thrust-v0 are \[-0\.5, 3\]"):
        rescale_actions(dataset([[0.0]], **DECLARED), "here", task=task)


@given(hnp.arrays(np.float32, (6, 2), elements=st.floats(-1e6, 1e6, width=32)))
def test_rescaled_actions_are_valid_and_invertible(action):
    given = ActionBounds.given([-1e6, -2e6], [1e6, 3e6])
    rescaled = rescale_actions(dataset(action[:4], action[4:]), "here", given)
    validate_demos(rescaled, "here", allow_variable_horizon=True)
    unit = np.concatenate([trajectory.action for trajectory in rescaled])
    np.testing.assert_allclose(denormalize_actions(unit, given.low, given.high), action, atol=0.5)


@pytest.mark.parametrize(
    ("data", "given", "message"),
    [
        (dataset(np.zeros((3, 0))), (0, 1), "no actions in it to rescale"),
        (dataset([[0.0]], [[0.0, 1.0]]), (0, 1), "differ in size"),
        (dataset([[np.nan], [1.0]]), (0, 1), "not all finite"),
        (dataset([[0.0]]), ([0, 0], [1, 1]), "have 1 components, but --action-low and --action-high have 2 and 2"),
        (dataset([[0.0]]), (1, 0), "the lower below the upper, got"),
        (dataset([[0.0]]), (0, np.inf), "must be finite"),
    ],
)
def test_invalid_actions_and_bounds_are_rejected(data, given, message):
    with pytest.raises(UserError, match=f"^here: .*{message}"):
        rescale_actions(data, "here", ActionBounds.given(*given))


def test_actions_in_the_units_of_the_task_are_rescaled_if_the_file_says_so():
    own = dataset([[1.25]], action_bounds=bounds([-0.5], [3.0]))
    assert to_task_units(own, "here", THRUST)[0].action.tolist() == [[0.0]]
    normalized = dataset([[0.5]], action_bounds=bounds([-1.0], [1.0]))
    assert to_task_units(normalized, "here", THRUST) is normalized
    converted = rescale_actions(dataset([[1.25]]), "here", task=ActionBounds.of_task(THRUST))
    assert to_task_units(converted, "here", THRUST) is converted


def test_actions_of_unknown_units_are_refused_where_the_units_differ():
    unknown = dataset([[0.5]])
    assert to_task_units(unknown, "here", NORMALIZED) is unknown
    with pytest.raises(UserError, match=r"^here: it does not state the units .*\[-0\.5, 3\].*--action-low -1"):
        to_task_units(unknown, "here", THRUST)


def test_actions_rescaled_from_other_bounds_than_the_tasks_are_refused():
    other = rescale_actions(dataset([[0.2]], **DECLARED), "here")
    assert to_task_units(other, "here", NORMALIZED) is other
    with pytest.raises(UserError, match=r"rescaled from \[-0\.4, 0\.4\], but the bounds of gym/Thrust-v0"):
        to_task_units(other, "here", THRUST)
