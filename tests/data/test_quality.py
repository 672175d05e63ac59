import re
from dataclasses import replace

import numpy as np
import pytest

from cdred.data.demonstrations import bundled_demos, inspect_demos, load_demos
from cdred.data.quality import (
    SELECTED_KEY,
    SKIPPED_KEY,
    bad_episodes,
    failed_episodes,
    find_faults,
    format_indices,
    format_selection,
    is_fit,
    select_best,
    skip_bad_episodes,
)
from cdred.errors import UserError
from cdred.types import DemoDataset

ALWAYS, NEVER = np.ones(6, bool), np.zeros(6, bool)


@pytest.fixture
def make_demos(make_trajectory):
    """Return a function that builds one episode per item, a dict of its fields or its steps."""

    def build(*items, **provenance):
        episodes = [
            make_trajectory(item, index) if isinstance(item, int) else make_trajectory(**{"index": index} | item)
            for index, item in enumerate(items)
        ]
        return DemoDataset("probe/fake", tuple(episodes), provenance)

    return build


def of_return(value, steps=6):
    return {"steps": steps, "reward": np.full(steps, value / steps, np.float32), "success": None}


def found(dataset, *kinds):
    """Return kind, severity, episodes and components of the findings of some kinds, by default of all."""
    return [
        (finding.kind, finding.severity, finding.episodes, finding.components)
        for finding in find_faults(dataset)
        if not kinds or finding.kind in kinds
    ]


def test_good_demos_have_no_findings(make_demos):
    assert find_faults(make_demos(*[{}] * 8)) == []
    assert find_faults(make_demos(6)) == []


@pytest.mark.parametrize(
    ("returns", "failed"),
    [
        ([111, 3100, 3150, 3207, 3120, 3090], [0]),
        ([-150, -140, -160, -145, -900, -155], [4]),
        ([1, 1, 0, 1, 1, 0, 1], [2, 5]),
        ([0, 10, 10.1], [0]),
        # A wide spread, less than a quarter below the median, too few to compare, better than the others.
        ([100, 200, 300, 400, 500, 600], []),
        ([77, 100, 100, 100, 101], []),
        ([1, 1000], []),
        ([100, 100, 100, 5000], []),
        # No rewards, or mostly none.
        ([0, 0, 0, 0], []),
        ([0, 0, 0, 0, -1], []),
    ],
)
def test_returns_far_below_the_others_are_failures(make_demos, returns, failed):
    dataset = make_demos(*map(of_return, returns))
    assert failed_episodes(dataset) == failed
    assert found(dataset, "failure") == ([("failure", "warning", tuple(failed), ())] if failed else [])


def test_unknown_returns_are_no_failures(make_demos):
    unknown = {"reward": None, "success": None}
    assert failed_episodes(make_demos(*[unknown] * 3)) == []
    assert failed_episodes(make_demos(unknown, *map(of_return, (100, 100, 0, 100)))) == [3]


def test_success_flags_precede_returns(make_demos):
    low = of_return(1) | {"success": ALWAYS}
    failure = of_return(3000) | {"success": NEVER}
    dataset = make_demos(low, failure, *[of_return(3000) | {"success": ALWAYS}] * 3)
    assert failed_episodes(dataset) == [1]
    (finding,) = find_faults(dataset)
    assert finding.message == "4 of 5 episodes succeed (80%), not episode 1"


@pytest.mark.parametrize(
    ("flags", "severity"),
    [((1, 0, 0, 1, 0, 0, 0, 1, 0, 0), "warning"), ((0, 1), "warning"), ((0, 0, 0), "unfit"), ((None, 0), "warning")],
)
def test_set_without_success_is_unfit(make_demos, flags, severity):
    dataset = make_demos(*[{"success": None if flag is None else np.full(6, bool(flag))} for flag in flags])
    failed = tuple(index for index, flag in enumerate(flags) if flag == 0)
    assert found(dataset) == [("failure", severity, failed, ())]
    assert is_fit(find_faults(dataset)) == (severity == "warning")


def test_failures_without_flags_are_named_beside_flagged_ones(make_demos):
    dataset = make_demos({"success": NEVER}, *map(of_return, (100, 100, 0, 100)))
    assert found(dataset) == [("failure", "warning", (0,), ()), ("failure", "warning", (3,), ())]


def test_identical_episodes_are_grouped(make_demos):
    dataset = make_demos(*[{"index": seed} for seed in (0, 1, 2, 1, 0, 1)])
    findings = find_faults(dataset)
    assert found(dataset) == [("duplicate", "warning", (0, 4), ()), ("duplicate", "warning", (1, 3, 5), ())]
    assert bad_episodes(findings) == {3: ["duplicate"], 4: ["duplicate"], 5: ["duplicate"]}
    assert is_fit(findings)


def test_same_observations_with_other_actions_are_no_duplicates(make_demos, make_trajectory):
    obs = make_trajectory().obs
    assert found(make_demos({"obs": obs}, {"obs": obs})) == []


@pytest.mark.parametrize(("noise", "near"), [(1e-6, True), (3e-3, True), (0.1, False)])
def test_noisy_copy_is_a_near_duplicate(make_demos, make_trajectory, noise, near):
    original = make_trajectory(index=2)
    noisy = (original.obs + noise * np.sin(np.arange(21)).reshape(7, 3)).astype(np.float32)
    dataset = make_demos({}, {}, {}, {"obs": noisy, "action": original.action})
    assert found(dataset) == ([("near_duplicate", "warning", (2, 3), ())] if near else [])
    assert not bad_episodes(find_faults(dataset))


def test_trimmed_copy_is_a_near_duplicate(make_demos, make_trajectory):
    long = make_trajectory(12)
    short = {"obs": long.obs[:9], "action": long.action[:8], "reward": long.reward[:8], "success": ALWAYS[:1].repeat(8)}
    dataset = make_demos({"index": 5}, {"obs": long.obs, "action": long.action, "steps": 12}, short)
    assert found(dataset) == [("near_duplicate", "warning", (1, 2), ())]


@pytest.mark.parametrize(("key", "kind"), [("obs", "constant_observation"), ("action", "constant_action")])
def test_components_that_never_change_are_named(make_demos, key, kind):
    def set_components(value, *components):
        episodes = []
        for trajectory in make_demos({}, {}):
            array = getattr(trajectory, key).copy()
            array[:, components] = value
            episodes.append(replace(trajectory, **{key: array}))
        return DemoDataset("", tuple(episodes))

    assert found(set_components(0.0, 1)) == [(kind, "warning", (), (1,))]
    assert found(set_components(1.0, 0)) == [(kind, "warning", (), (0,))]
    # One unit in the last place, in turns, is rounding.
    rows = len(getattr(make_demos({})[0], key))
    rounding = np.resize(np.float32([[0.5], [np.nextafter(np.float32(0.5), np.float32(1))]]), (rows, 1))
    assert found(set_components(rounding, 1)) == [(kind, "warning", (), (1,))]
    everything = set_components(0.5, *range(3 if key == "obs" else 2))
    assert found(everything, kind) == [(kind, "unfit", (), (0, 1, 2) if key == "obs" else (0, 1))]


def test_component_constant_within_each_episode_only_is_accepted(make_demos):
    first, second = make_demos({}, {})
    first.obs[:, 1], second.obs[:, 1] = 0.0, 1e-3
    assert found(DemoDataset("", (first, second))) == []


@pytest.mark.parametrize(
    ("bounds", "values", "saturated"),
    [
        (None, [1, -1, 1, 0, 0.2, -1], True),
        (None, [1, -1, 0.9995, 0, 0.2, 0.3], True),
        (None, [1, -1, 0.9, 0, 0.2, 0.3], False),
        ({"low": [-2, -2], "high": [2, 2]}, [1, -1, 1, 1, 1, -1], False),
        ({"low": [-1, -2], "high": [1, 2]}, [2, 2, 2, -2, 0, 0], True),
        # Neither declared nor in [-1, 1]: the bounds are unknown.
        (None, [2, 2, 2, -2, 0, 0], False),
    ],
)
def test_actions_mostly_at_a_bound_are_saturated(make_demos, make_trajectory, bounds, values, saturated):
    action = make_trajectory().action.copy()
    action[:, 1] = values
    dataset = make_demos({"action": action}, **({"action_bounds": bounds} if bounds else {}))
    assert found(dataset) == ([("saturated_action", "warning", (), (1,))] if saturated else [])


@pytest.mark.parametrize(
    ("steps", "short", "fields"),
    [
        ((20, 20, 20, 9), (3,), {}),
        ((20, 19, 3, 21, 5), (2, 4), {}),
        ((20, 20, 20, 10), (), {}),
        ((20, 20, 20, 9), (), {"terminated": True}),
        ((20, 20, 20, 9), (), {"success": True}),
        # The common length is not short.
        ((9, 9, 9, 20, 21, 22, 23), (), {}),
    ],
)
def test_short_episodes_without_an_end_are_cut_short(make_demos, steps, short, fields):
    dataset = make_demos(
        *[
            of_return(1, num) | fields | ({"success": np.ones(num, bool)} if "success" in fields else {})
            for num in steps
        ]
    )
    assert found(dataset) == ([("cut_short", "warning", short, ())] if short else [])
    assert list(bad_episodes(find_faults(dataset))) == list(short)


def test_reason_of_rejection_makes_the_set_unfit(make_demos):
    (finding,) = find_faults(make_demos({}), "why")
    assert (finding.kind, finding.severity, finding.message) == ("invalid", "unfit", "why")


def test_demos_without_actions_are_examined(make_demos):
    dataset = make_demos({"action": np.zeros((6, 0), np.float32)}, {"action": np.zeros((6, 0), np.float32)})
    assert found(dataset) == []
    assert found(DemoDataset("", (dataset[0], dataset[0]))) == [("duplicate", "warning", (0, 1), ())]


@pytest.mark.parametrize("task", bundled_demos())
def test_bundled_demos_are_fit(task):
    path = bundled_demos()[task]
    findings = find_faults(*inspect_demos(path))
    assert is_fit(findings)
    assert not bad_episodes(findings)
    assert failed_episodes(load_demos(path)) == []


def test_indices_are_formatted_as_runs():
    assert format_indices([]) == ""
    assert format_indices([0, 4, 5, 6, 9]) == "0, 4-6, 9"
    assert format_indices(range(0, 60, 2)) == "0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22 and 18 more"


@pytest.mark.parametrize(
    ("returns", "num", "chosen"),
    [
        ([111, 3100, 3150, 3207, 3120, 3090], 1, [1]),
        ([111, 3100, 3150, 3207, 3120, 3090], 3, [1, 2, 3]),
        ([111, 3100, 3150, 3207, 3120, 3090], 6, [0, 1, 2, 3, 4, 5]),
        # Of the failed ones that of highest return, in the order of the file.
        ([5, 100, 7, 100, 6, 100, 100, 100], 7, [1, 2, 3, 4, 5, 6, 7]),
        # Without failures the first ones, not those of highest return.
        ([100, 200, 300], 2, [0, 1]),
        ([0, 0, 0], 2, [0, 1]),
    ],
)
def test_failed_episodes_are_chosen_last(make_demos, returns, num, chosen):
    dataset = make_demos(*map(of_return, returns), expert="me")
    best = select_best(dataset, num)
    assert [index for index, trajectory in enumerate(dataset) if any(trajectory is kept for kept in best)] == chosen
    selected = best.provenance[SELECTED_KEY]
    assert (selected["indices"], selected["of"]) == (chosen, len(returns))
    assert (best.task, best.provenance["expert"]) == (dataset.task, "me")


def test_successes_are_chosen_first_whatever_their_return(make_demos):
    flags = (0, 0, 1, 0, 1, 1)
    dataset = make_demos(*[of_return(10 - flag) | {"success": np.full(6, bool(flag))} for flag in flags])
    assert select_best(dataset, 2).provenance[SELECTED_KEY] == {"indices": [2, 4], "of": 6, "failed": [0, 1, 3]}
    assert format_selection(select_best(dataset, 2)) == "episodes 2, 4 of 6 (failed: 0-1, 3)"
    assert format_selection(dataset) == ""


def test_failed_episodes_of_unknown_return_are_not_ranked(make_demos):
    dataset = make_demos({"success": NEVER, "reward": None}, {"success": ALWAYS}, {"success": NEVER})
    message = "2 of 3 episodes were requested, but only 1 did not fail.*1 of them have no rewards.*at most 1, or all"
    with pytest.raises(UserError, match=message):
        select_best(dataset, 2)
    assert [select_best(dataset, num).provenance[SELECTED_KEY]["indices"] for num in (1, 3)] == [[1], [0, 1, 2]]


@pytest.mark.parametrize("task", bundled_demos())
def test_bundled_demos_are_chosen_from_the_first(task):
    dataset = load_demos(bundled_demos()[task])
    assert select_best(dataset, 10).trajectories == dataset.trajectories[:10]


def not_finite(shape, step):
    array = np.zeros(shape, np.float32)
    array[step] = np.nan
    return array


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"obs": not_finite((7, 3), 2)}, r"obs\[2\] is not finite \(3 NaN"),
        ({"action": not_finite((6, 2), 5)}, r"action\[5\] is not finite"),
        ({"reward": not_finite(6, 0)}, r"reward\[0\] is not finite"),
        ({"obs": np.zeros((6, 3), np.float32)}, "6 observations for 6 actions, expected 7"),
        ({"reward": np.zeros(5, np.float32)}, r"reward has shape \(5,\), expected \(6,\)"),
        ({"action": np.zeros((0, 2), np.float32)}, "no action in it"),
        ({"obs": np.zeros((7, 4), np.float32)}, r"have shapes \(\(4,\), \(2,\)\), most episodes \(\(3,\), \(2,\)\)"),
        ({"success": NEVER}, "^failure$"),
        ({"index": 1}, "^duplicate$"),
        ({"index": 1, "success": NEVER}, "^failure, duplicate$"),
    ],
)
@pytest.mark.parametrize("place", [0, 3])
def test_bad_episode_is_skipped_and_named(make_demos, bad, reason, place):
    items = [{"index": seed} for seed in (0, 1, 2)]
    # Of duplicates the first is kept.
    if "index" in bad and place == 0:
        items, place = [{"index": 0}, {"index": 1}], 2
    items.insert(place, {"index": 9} | bad)
    dataset = make_demos(*items, expert="me")
    good, reasons = skip_bad_episodes(dataset, "here")
    assert list(reasons) == [place]
    assert re.search(reason, reasons[place])
    kept = [trajectory for index, trajectory in enumerate(dataset) if index != place]
    assert all(a is b for a, b in zip(good, kept, strict=True))
    assert good.provenance == {
        "expert": "me",
        SKIPPED_KEY: {"of": len(items), "reasons": {str(place): reasons[place]}},
    }


def test_good_demos_are_unchanged_by_skipping(make_demos):
    dataset = make_demos({}, {}, {}, expert="me")
    assert skip_bad_episodes(dataset, "here") == (dataset, {})


def test_indices_of_skipped_episodes_are_those_of_the_file(make_demos):
    damaged = {"obs": not_finite((7, 3), 2)}
    items = (damaged | of_return(1e9), of_return(10), damaged, of_return(1), *[of_return(10)] * 2)
    _, reasons = skip_bad_episodes(make_demos(*items), "here")
    assert list(reasons) == [0, 2, 3]
    assert reasons[3] == "failure"


def test_nothing_good_is_refused(make_demos):
    with pytest.raises(UserError, match=r"here: no good episode among 2; episode 0: .*not finite"):
        skip_bad_episodes(make_demos({"obs": not_finite((7, 3), 0)}, {"success": NEVER}), "here")
    with pytest.raises(UserError, match="here: no good episode among 0"):
        skip_bad_episodes(DemoDataset("", ()), "here")
