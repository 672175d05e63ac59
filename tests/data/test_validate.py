from dataclasses import replace

import numpy as np
import pytest

from cdred.data.validate import validated
from cdred.errors import UserError
from cdred.types import DemoDataset


def one_of(trajectory):
    return DemoDataset("probe/fake", (trajectory,))


def test_valid_demonstrations_pass_unchanged(demos, spec, assert_equal):
    assert_equal(validated(demos, "here", spec), demos)


def test_rounding_beyond_the_bounds_is_clipped(make_trajectory):
    action = np.full((6, 2), 1 + 5e-7, np.float32)
    assert action.max() > 1
    clipped = validated(one_of(make_trajectory(action=action)), "here")
    assert clipped[0].action.max() == 1


BROKEN = {
    "one more observation": ({"obs": np.zeros((6, 3))}, r"6 observations for 6 actions, expected 7"),
    "empty": ({"obs": np.zeros((1, 3)), "action": np.zeros((0, 2))}, "no action"),
    "reward length": ({"reward": np.zeros(7)}, r"reward has shape \(7,\), expected \(6,\)"),
    "success length": ({"success": np.zeros(3, bool)}, r"success has shape \(3,\)"),
    "nan observation": ({"obs": np.array([[0.0] * 3] * 6 + [[0, np.nan, 0]])}, r"obs\[6\] is not finite"),
    "infinite action": ({"action": np.full((6, 2), np.inf)}, r"action\[0\] is not finite"),
    "nan reward": ({"reward": np.array([0, 0, np.nan, 0, 0, 0])}, r"reward\[2\] is not finite"),
    "bounds": ({"action": np.full((6, 2), -1.01)}, r"1.01 in magnitude, expected \[-1, 1\]"),
    "obs shape": ({"obs": np.zeros((7, 4))}, r"obs has shape \(4,\), expected \(3,\)"),
    "discrete": ({"action": np.zeros(6, np.float32)}, r"one action has shape \(\), expected a vector; discrete"),
    "action shape": ({"action": np.zeros((6, 1))}, r"action has shape \(1,\), expected \(2,\)"),
}


@pytest.mark.parametrize(("fields", "says"), BROKEN.values(), ids=BROKEN.keys())
def test_what_is_wrong_is_named_with_its_place(make_trajectory, spec, fields, says):
    good = make_trajectory()
    dataset = DemoDataset("probe/fake", (good, replace(good, **fields)))
    with pytest.raises(UserError, match=f"here, episode 1: .*{says}"):
        validated(dataset, "here", spec)


def test_without_a_spec_shapes_must_agree_with_the_first(make_trajectory):
    first, other = make_trajectory(), make_trajectory(obs=np.zeros((7, 4), np.float32))
    with pytest.raises(UserError, match="as in the first episode"):
        validated(DemoDataset("", (first, other)), "here")


def test_observations_alone_pass_unless_actions_are_needed(make_trajectory, spec):
    seen = one_of(make_trajectory(action=np.zeros((6, 0), np.float32)))
    assert len(validated(seen, "here", spec)) == 1
    with pytest.raises(UserError, match=r"^here: it holds observations only, no actions"):
        validated(seen, "here", spec, require_actions=True)


def test_an_episode_without_actions_among_others_is_refused(make_trajectory):
    mixed = DemoDataset("", (make_trajectory(), make_trajectory(action=np.zeros((6, 0), np.float32))))
    assert not mixed.has_actions
    with pytest.raises(UserError, match=r"episode 1: one action has shape \(0,\), expected \(2,\)"):
        validated(mixed, "here")


def test_bounds_may_be_left_to_later(make_trajectory):
    wide = one_of(make_trajectory(action=np.full((6, 2), 3.0, np.float32)))
    assert validated(wide, "here", bounded=False)[0].action.max() == 3
    declared = replace(one_of(make_trajectory()), provenance={"action_bounds": {"low": [-2.0], "high": [2.0]}})
    assert len(validated(declared, "here", bounded=False)) == 1
    with pytest.raises(UserError, match=r"^here: it declares actions between other bounds"):
        validated(declared, "here")


def test_what_is_within_bounds_is_not_copied(make_trajectory):
    one = make_trajectory()
    assert validated(one_of(one), "here")[0].action is one.action


def test_no_trajectory_is_refused(spec):
    with pytest.raises(UserError, match="no trajectory"):
        validated(DemoDataset("probe/fake", ()), "here", spec)


def test_another_task_is_refused_and_an_unnamed_one_is_not(demos, spec):
    with pytest.raises(UserError, match="of probe/other, not of probe/fake"):
        validated(replace(demos, task="probe/other"), "here", spec)
    assert len(validated(replace(demos, task=""), "here", spec)) == 3


def test_episodes_longer_than_the_tasks_are_refused(make_trajectory, spec):
    with pytest.raises(UserError, match="7 steps, but episodes of probe/fake end after 6"):
        validated(one_of(make_trajectory(7)), "here", spec)


def test_mixed_horizons_are_refused_unless_meant(make_trajectory):
    mixed = DemoDataset("", (make_trajectory(5), make_trajectory(6)))
    with pytest.raises(UserError, match="5 to 6 steps long"):
        validated(mixed, "here")
    assert len(validated(mixed, "here", allow_variable_horizon=True)) == 2
