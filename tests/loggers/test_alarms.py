"""Thresholds, messages and display of the alarms."""

import io
import math

import pytest
from rich.console import Console

from cdred.config import preset, total_steps
from cdred.loggers.alarms import ALARMS, MIN_STEPS, AlarmMonitor, alarm_levels, split_by_seed
from cdred.loggers.dashboard import render
from cdred.loggers.progress import Progress
from cdred.loggers.terminal import TerminalLogger

GOOD = {
    "reward_margin": 0.6,
    "novelty_expert": 0.1,
    "novelty_validation": 0.15,
    "mean_abs_q": 2.0,
    "open_loop_fvu": 0.1,
}
BY_NAME = {alarm.name: alarm for alarm in ALARMS}


@pytest.mark.parametrize(
    ("name", "below", "above"),
    [
        ("reward", {"reward_margin": 0.01}, {"reward_margin": 0.0}),
        ("reward", {"reward_margin": 1.0}, {"reward_margin": -0.3}),
        ("density", {"novelty_validation": 0.29}, {"novelty_validation": 0.31}),
        ("critics", {"mean_abs_q": 19.0}, {"mean_abs_q": 21.0}),
        ("dynamics", {"open_loop_fvu": 0.49}, {"open_loop_fvu": 0.51}),
        ("dynamics", {"open_loop_fvu": None}, {"open_loop_fvu": math.nan}),
    ],
)
def test_alarm_is_active_above_its_threshold(name, below, above):
    assert [alarm.name for alarm in ALARMS if alarm.is_active(GOOD | below, GOOD)] == []
    assert [alarm.name for alarm in ALARMS if alarm.is_active(GOOD | above, GOOD)] == [name]


def test_unknown_diagnostics_activate_no_alarm():
    assert not any(alarm.is_active({}, {}) for alarm in ALARMS)
    # Newly initialised critics grow by any factor.
    assert not BY_NAME["critics"].is_active({"mean_abs_q": 9.0}, {"mean_abs_q": 1e-3})
    assert not BY_NAME["critics"].is_active({"mean_abs_q": 1e6}, {})


def test_monitor_reports_only_newly_active_alarms():
    monitor, bad = AlarmMonitor([3, 4]), GOOD | {"open_loop_fvu": 0.7}
    assert monitor.update(1000, [GOOD, GOOD]) == []
    (message,) = monitor.update(1100, [GOOD, bad])
    assert message.startswith("alarm, seed 4, dynamics: ")
    assert "Try " in message
    assert [[alarm.name for alarm in row] for row in monitor.active] == [[], ["dynamics"]]
    assert monitor.update(1200, [GOOD, bad]) == []
    # Unknown is not over.
    assert monitor.update(1300, [GOOD, GOOD | {"open_loop_fvu": None}]) == []
    assert [alarm.name for alarm in monitor.active[1]] == ["dynamics"]
    assert monitor.update(1400, [GOOD, bad]) == []
    assert monitor.update(1500, [GOOD, GOOD]) == []
    assert len(monitor.update(1600, [GOOD, bad])) == 1


def test_no_alarm_before_the_networks_have_been_trained():
    monitor, bad = AlarmMonitor([0]), GOOD | {"open_loop_fvu": 0.7, "reward_margin": -1.0}
    assert total_steps(preset("debug")) < MIN_STEPS <= preset("paper").optim.reward_warmup_updates
    assert monitor.update(MIN_STEPS - 20, [bad]) == []
    assert monitor.active == [()]
    assert [message.split(":")[0] for message in monitor.update(MIN_STEPS, [bad])] == [
        "alarm, seed 0, reward",
        "alarm, seed 0, dynamics",
    ]


def test_alarm_levels_of_metrics_lines():
    lines = [
        {"step": s, "kind": "diagnostics", "mean_abs_q": [1.0, q], "reward_margin": [0.5, 0.0]}
        for s, q in ((1, 2.0), (2, 40.0))
    ]
    assert alarm_levels(BY_NAME["critics"], lines) == [[None, None], [0.1, 2.0]]
    assert alarm_levels(BY_NAME["reward"], lines) == [[0.5, 1.0]] * 2
    assert split_by_seed({"step": 3, "kind": "diagnostics"}) == []


def test_names_of_non_finite_metrics_are_no_values_of_seeds():
    line = {"step": 0, "kind": "diagnostics", "reward_margin": [None], "mean_abs_q": [1.0]}
    rows = split_by_seed(line | {"non_finite": ["reward_margin", "open_loop_fvu"]})
    assert rows == [{"reward_margin": None, "mean_abs_q": 1.0}]


def test_terminal_and_dashboard_show_an_alarm():
    file, progress = io.StringIO(), Progress("task", 1000, [0, 1], True)
    logger = TerminalLogger("task", 1000, [0, 1], True, console=Console(file=file))
    report = {name: [value, value] for name, value in GOOD.items()} | {"reward_margin": [0.5, -0.2]}
    for step in (500, 600):
        logger.log(step, report, "diagnostics")
        progress.update(step, report, "diagnostics")
    logger.close()
    assert file.getvalue().count("alarm, seed 1, reward: ") == 1
    assert "seed 0" not in file.getvalue()
    console = Console(file=io.StringIO(), width=110, record=True)
    console.print(render(progress, 110))
    row = next(line for line in console.export_text().splitlines() if "alarm" in line)
    assert row.split() == ["alarm", "none", "reward"]


def test_dashboard_counts_alarms_of_many_seeds():
    progress = Progress("task", 1000, range(40), True)
    progress.update(500, {"reward_margin": [0.5] * 38 + [-1.0] * 2}, "diagnostics")
    console = Console(file=io.StringIO(), width=60, record=True)
    console.print(render(progress, 60))
    assert "2 alarms" in console.export_text()
