from dataclasses import replace

import numpy as np
import pytest

from cdred.data.validate import validate_demos
from cdred.errors import UserError
from cdred.types import DemoDataset


def dataset_of(trajectory):
    return DemoDataset("probe/fake", (trajectory,))


def test_valid_demos_are_unchanged(demos, spec, assert_equal):
    assert_equal(validate_demos(demos, "here", spec), demos)


def test_rounding_errors_are_clipped(make_trajectory):
    action = np.full((6, 2), 1 + 5e-7, np.float32)
    assert action.max() > 1
    clipped = validate_demos(dataset_of(make_trajectory(action=action)), "here")
    assert clipped[0].action.max() == 1


INVALID = {
    "one more observation": ({"obs": np.zeros((6, 3))}, r"6 observations for 6 actions, expected 7"),
    "empty": ({"obs": np.zeros((1, 3)), "action": np.zeros((0, 2))}, "no action"),
    "reward length": ({"reward": np.zeros(7)}, r"reward has shape \(7,\), expected \(6,\)"),
    "success length": ({"success": np.zeros(3, bool)}, r"success has shape \(3,\)"),
    "nan observation": ({"obs": np.array([[0.0] * 3] * 6 + [[0, np.nan, 0]])}, r"obs\[6\] is not finite"),
    "infinite action": ({"action": np.full((6, 2), np.inf)}, r"action\[0\] is not finite"),
    "nan reward": ({"reward": np.array([0, 0, np.nan, 0, 0, 0])}, r"reward\[2\] is not finite"),
    "bounds": ({"action": np.full((6, 2), -1.01)}, r"magnitude 1.01, expected \[-1, 1\]"),
    "obs shape": ({"obs": np.zeros((7, 4))}, r"obs has shape \(4,\), expected \(3,\)"),
    "discrete": ({"action": np.zeros(6, np.float32)}, r"one action has shape \(\), expected a vector; discrete"),
    "action shape": ({"action": np.zeros((6, 1))}, r"action has shape \(1,\), expected \(2,\)"),
}


@pytest.mark.parametrize(("fields", "message"), INVALID.values(), ids=INVALID.keys())
def test_invalid_episode_is_named(make_trajectory, spec, fields, message):
    valid = make_trajectory()
    dataset = DemoDataset("probe/fake", (valid, replace(valid, **fields)))
    with pytest.raises(UserError, match=f"here, episode 1: .*{message}"):
        validate_demos(dataset, "here", spec)


def test_without_spec_shapes_must_match_first_episode(make_trajectory):
    first, second = make_trajectory(), make_trajectory(obs=np.zeros((7, 4), np.float32))
    with pytest.raises(UserError, match="as in the first episode"):
        validate_demos(DemoDataset("", (first, second)), "here")


def test_missing_actions_are_rejected_if_required(make_trajectory, spec):
    dataset = dataset_of(make_trajectory(action=np.zeros((6, 0), np.float32)))
    assert len(validate_demos(dataset, "here", spec)) == 1
    with pytest.raises(UserError, match=r"^here: it holds observations only, no actions"):
        validate_demos(dataset, "here", spec, require_actions=True)


def test_mixed_missing_actions_are_rejected(make_trajectory):
    mixed = DemoDataset("", (make_trajectory(), make_trajectory(action=np.zeros((6, 0), np.float32))))
    assert not mixed.has_actions
    with pytest.raises(UserError, match=r"episode 1: one action has shape \(0,\), expected \(2,\)"):
        validate_demos(mixed, "here")


def test_bounds_check_can_be_skipped(make_trajectory):
    wide = dataset_of(make_trajectory(action=np.full((6, 2), 3.0, np.float32)))
    assert validate_demos(wide, "here", check_bounds=False)[0].action.max() == 3
    declared = replace(dataset_of(make_trajectory()), provenance={"action_bounds": {"low": [-2.0], "high": [2.0]}})
    assert len(validate_demos(declared, "here", check_bounds=False)) == 1
    with pytest.raises(UserError, match=r"^here: it declares action bounds"):
        validate_demos(declared, "here")


def test_actions_within_bounds_are_not_copied(make_trajectory):
    trajectory = make_trajectory()
    assert validate_demos(dataset_of(trajectory), "here")[0].action is trajectory.action


def test_empty_dataset_is_rejected(spec):
    with pytest.raises(UserError, match="no trajectory"):
        validate_demos(DemoDataset("probe/fake", ()), "here", spec)


def test_only_other_task_is_rejected(demos, spec):
    with pytest.raises(UserError, match="of probe/other, expected probe/fake"):
        validate_demos(replace(demos, task="probe/other"), "here", spec)
    assert len(validate_demos(replace(demos, task=""), "here", spec)) == 3


def test_too_long_episode_is_rejected(make_trajectory, spec):
    with pytest.raises(UserError, match="7 steps, but episodes of probe/fake end after 6"):
        validate_demos(dataset_of(make_trajectory(7)), "here", spec)


def test_mixed_horizons_are_rejected_by_default(make_trajectory):
    mixed = DemoDataset("", (make_trajectory(5), make_trajectory(6)))
    with pytest.raises(UserError, match="5 to 6 steps long"):
        validate_demos(mixed, "here")
    assert len(validate_demos(mixed, "here", allow_variable_horizon=True)) == 2
