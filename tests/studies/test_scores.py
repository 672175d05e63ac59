"""Statistics of the runs of a study, by known answers."""

from dataclasses import replace

import pytest

from cdred.report.statistics import difference_interval, rank_correlation
from cdred.studies.scores import Curve, drop_from_peak, rows, steps_to_threshold
from cdred.studies.study import TrainingStudy
from cdred.studies.training import draw_scores, score_table

STUDY = TrainingStudy("Is it?", lambda _: (), "cdred", 0.9)


def curve(scores, label="cdred", seed=0, task="metaworld/reach", **changes):
    steps = [500 * index for index in range(len(scores))]
    fields = {"kind": "success", "gradient_norm": (1.0, 4.0), "minutes": 12.0, "acting": None}
    fields |= {"signals": {"reward_margin": [None] + [0.5] * (len(scores) - 1)}} | changes
    return Curve(task=task, label=label, seed=seed, steps=steps, scores=scores, **fields)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.0, 0.9, 0.9, 0.9], 500),
        ([0.95, 0.2, 0.9, 1.0, 0.9, 0.1], 1000),
        # Two in a row may be luck.
        ([0.0, 1.0, 1.0, 0.5, 1.0, 1.0], None),
        ([1.0, 1.0], None),
    ],
)
def test_threshold_counts_if_held_for_three_evaluations(scores, expected):
    assert steps_to_threshold(curve(scores), 0.9) == expected


def test_drop_is_from_the_highest_score():
    assert drop_from_peak(curve([0.2, 0.9, 0.4])) == pytest.approx(0.5)
    assert drop_from_peak(curve([0.2, 0.4])) == 0


def test_data_has_every_evaluation():
    assert rows([curve([0.25, 0.5], seed=3)]) == [
        ("metaworld/reach", "cdred", 3, "success", 0, 0.25),
        ("metaworld/reach", "cdred", 3, "success", 500, 0.5),
    ]


def cells(table, label):
    line = next(line for line in table.splitlines() if f"| {label} |" in line)
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_table_says_difference_or_that_none_is_seen():
    ours = [curve([0.5, 1.0, 1.0, 1.0], seed=s) for s in range(3)]
    worse = [curve([0.0, 0.0, 0.0, 0.1 * s], "iqmpc", s, signals={}) for s in range(3)]
    same = [curve([0.0, 0.0, 1.0, score], "gail", s) for s, score in enumerate((0.9, 1.0, 1.0))]
    table = score_table(STUDY, {"metaworld/reach": {"cdred": ours, "iqmpc": worse, "gail": same}})
    assert cells(table, "cdred")[3:] == [
        "1.00 1.00 1.00", "1.00 (1.00 to 1.00)", "–", "–", "3 of 3, median 500", "0.00", "1 / 4", "0.5", "12"
    ]  # fmt: skip
    iqmpc = cells(table, "iqmpc")
    assert iqmpc[3:5] == ["0.00 0.10 0.20", "0.10 (0.00 to 0.20)"]
    assert iqmpc[5].startswith("-0.90 (-1.00 to -0.8")
    assert iqmpc[6:8] == ["0.00 (0.00 to 0.00)", "0 of 3"]
    assert iqmpc[10] == "–"
    assert cells(table, "gail")[5].startswith("no difference seen: -0.03 (-0.10 to 0.00)")


def test_reference_is_one_of_the_same_task():
    others = {"metaworld/reach": {"cdred": [curve([0.0, 1.0])]}, "dmc/walker-walk": {"bc": [curve([0.0, 1.0], "bc")]}}
    assert cells(score_table(STUDY, others), "bc")[5:7] == ["–", "–"]


def test_label_with_a_reference_of_its_own_is_compared_with_it():
    study = replace(STUDY, references={"gail": "iqmpc"})
    curves = {name: [curve([0.0, score], name, s) for s in range(3)] for name, score in
              (("cdred", 1.0), ("iqmpc", 0.2), ("gail", 0.6))}  # fmt: skip
    table = score_table(study, {"metaworld/reach": curves})
    assert cells(table, "gail")[5] == "+0.40 (0.40 to 0.40), to iqmpc"
    assert cells(table, "iqmpc")[5] == "-0.80 (-0.80 to -0.80)"


def test_figure_has_two_panels_per_task():
    curves = {"cdred": [curve([0.5, 1.0]), curve([0.4, 0.9], seed=1)], "bc": [curve([0.5, 0.5], "bc")]}
    figure = draw_scores(STUDY, {"metaworld/reach": curves, "metaworld/push": curves})
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["metaworld/reach", "At the end", "metaworld/push", "At the end"]
    assert [text.get_text() for text in figure.axes[1].get_yticklabels()] == ["cdred", "bc"]


def test_figure_shows_a_signal_against_steps():
    curves = {"cdred": [curve([0.5, 1.0, 1.0])], "bc": [curve([0.5, 0.5, 0.5], "bc", signals={})]}
    figure = draw_scores(replace(STUDY, signal="reward_margin"), {"metaworld/reach": curves})
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["metaworld/reach", "At the end", "During training"]
    # Only the method that has it; unknown before training.
    points, line = figure.axes[2].lines
    for drawn in (points, line):
        assert list(drawn.get_xdata()) == [0, 500, 1000]
        assert list(drawn.get_ydata()) == [pytest.approx(float("nan"), nan_ok=True), 0.5, 0.5]


def test_difference_interval_of_separate_and_equal_scores():
    low, high = difference_interval([1.0, 1.1, 1.2], [0.0, 0.1, 0.2])
    assert 0.8 < low < 1.0 < high < 1.2
    low, high = difference_interval([0.0, 1.0, 2.0], [0.0, 1.0, 2.0])
    assert low < 0 < high
    assert difference_interval([1.0], [0.0, 1.0]) is None


def test_rank_correlation_sees_order_only():
    assert rank_correlation([1, 10, 100], [0, 1, 2]) == pytest.approx(1)
    assert rank_correlation([1, 10, 100], [3, 2, 1]) == pytest.approx(-1)
