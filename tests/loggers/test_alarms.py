"""Alarms begin where the table says, are said once, and are shown."""

import io
import math

import pytest
from rich.console import Console

from cdred.loggers.alarms import ALARMS, Watch, by_seed, levels
from cdred.loggers.dashboard import render
from cdred.loggers.progress import Progress
from cdred.loggers.terminal import Terminal

GOOD = {
    "reward_margin": 0.6,
    "novelty_expert": 0.1,
    "novelty_validation": 0.15,
    "mean_abs_q": 2.0,
    "open_loop_fvu": 0.1,
}
BY_NAME = {alarm.name: alarm for alarm in ALARMS}


@pytest.mark.parametrize(
    ("name", "healthy", "ill"),
    [
        ("reward", {"reward_margin": 0.01}, {"reward_margin": 0.0}),
        ("reward", {"reward_margin": 1.0}, {"reward_margin": -0.3}),
        ("density", {"novelty_validation": 0.29}, {"novelty_validation": 0.31}),
        ("critics", {"mean_abs_q": 19.0}, {"mean_abs_q": 21.0}),
        ("dynamics", {"open_loop_fvu": 0.49}, {"open_loop_fvu": 0.51}),
        ("dynamics", {"open_loop_fvu": None}, {"open_loop_fvu": math.nan}),
    ],
)
def test_an_alarm_begins_at_its_threshold(name, healthy, ill):
    assert [alarm.name for alarm in ALARMS if alarm.raised(GOOD | healthy, GOOD)] == []
    assert [alarm.name for alarm in ALARMS if alarm.raised(GOOD | ill, GOOD)] == [name]


def test_what_is_not_known_raises_no_alarm():
    assert not any(alarm.raised({}, {}) for alarm in ALARMS)
    # Critics that have just begun grow by any factor.
    assert not BY_NAME["critics"].raised({"mean_abs_q": 9.0}, {"mean_abs_q": 1e-3})
    assert not BY_NAME["critics"].raised({"mean_abs_q": 1e6}, {})


def test_an_alarm_is_said_when_it_begins_and_again_only_after_it_has_ended():
    watch, ill = Watch([3, 4]), GOOD | {"open_loop_fvu": 0.7}
    assert watch.update([GOOD, GOOD]) == []
    (said,) = watch.update([GOOD, ill])
    assert said.startswith("health, seed 4, dynamics: ")
    assert "Try " in said
    assert [[alarm.name for alarm in row] for row in watch.active] == [[], ["dynamics"]]
    assert watch.update([GOOD, ill]) == []
    assert watch.update([GOOD, GOOD]) == []
    assert len(watch.update([GOOD, ill])) == 1


def test_levels_of_a_metrics_file_reach_one_where_the_alarm_begins():
    lines = [
        {"step": s, "kind": "diagnostics", "mean_abs_q": [1.0, c], "reward_margin": [0.5, 0.0]}
        for s, c in ((1, 2.0), (2, 40.0))
    ]
    assert levels(BY_NAME["critics"], lines) == [[None, None], [0.1, 2.0]]
    assert levels(BY_NAME["reward"], lines) == [[0.5, 1.0]] * 2
    assert by_seed({"step": 3, "kind": "diagnostics"}) == []


def test_the_terminal_says_an_alarm_once_and_the_panel_shows_it_beside_the_healthy_seed():
    file, progress = io.StringIO(), Progress("task", 1000, [0, 1], True)
    sink = Terminal("task", 1000, [0, 1], True, console=Console(file=file))
    report = {name: [value, value] for name, value in GOOD.items()} | {"reward_margin": [0.5, -0.2]}
    for step in (100, 200):
        sink.log(step, report, "diagnostics")
        progress.update(step, report, "health")
    sink.close()
    assert file.getvalue().count("health, seed 1, reward: ") == 1
    assert "seed 0" not in file.getvalue()
    console = Console(file=io.StringIO(), width=110, record=True)
    console.print(render(progress, 110))
    row = next(line for line in console.export_text().splitlines() if "alarm" in line)
    assert row.split() == ["alarm", "good", "reward"]
    many = Progress("task", 1000, range(40), True)
    many.update(1, {"reward_margin": [0.5] * 38 + [-1.0] * 2}, "health")
    console.print(render(many, 60))
    assert "2 alarms" in console.export_text()
