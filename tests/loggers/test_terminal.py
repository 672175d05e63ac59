"""Plain lines in a file, and the dashboard on a terminal."""

import io
import time

import pytest
from rich.console import Console

from cdred.loggers.dashboard import render
from cdred.loggers.progress import Progress
from cdred.loggers.terminal import TerminalLogger

TITLE = "metaworld/reach · cdred · cpu"
REFERENCE = {"expert_return": 4000.0, "random_return": 300.0, "expert_success": 1.0, "random_success": 0.05}
TRAIN = {
    "consistency_loss": [0.25, 0.35],
    "critic_loss": [2.0, float("nan")],
    "reward_loss": [0.1, 0.1],
    "policy_loss": [-1.0, -1.0],
    "grad_norm": [3.0, 5.0],
    "reward_expert": [-0.2, -0.2],
    "reward_agent": [-1.0, -2.0],
    "steps_per_second": 12.5,
    "eta_seconds": 70.0,
    "unknown_metric": [1.0, 2.0],
}


def log_all_kinds(receiver: TerminalLogger | Progress) -> None:
    log = receiver.log if isinstance(receiver, TerminalLogger) else receiver.update
    log(0, REFERENCE, "reference")
    log(250, {"episode_return": [1000.0, 2000.0], "success": [0.5, 1.0], "success_at_end": [0.0, 1.0]}, "rollout")
    log(250, TRAIN, "train")
    log(250, {"episode_return": [3000.0, 3500.0], "success": [0.9, 1.0], "episodes": 20}, "eval")


def render_text(progress: Progress, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, record=True)
    console.print(render(progress, width))
    return console.export_text()


def row(text: str, label: str) -> list[str]:
    """The cells of the first row of the dashboard with this label."""
    return next(line for line in text.splitlines() if line.strip().startswith(label)).split(label)[1].split()


def test_plain_lines_without_a_terminal() -> None:
    file = io.StringIO()
    logger = TerminalLogger(TITLE, 1000, [0, 1], True, console=Console(file=file, width=40))
    logger.message("compiling [act]")
    log_all_kinds(logger)
    logger.close()
    title, message, train, evaluation = file.getvalue().splitlines()
    assert (title, message) == (TITLE, "compiling [act]")
    assert train == (
        " 25 %   250 steps  success 75 %  return 1,500  reward expert −0.200 agent −1.50  "
        "loss dyn 0.300 critic 2.00 reward 0.100  grad 4.00  12.5/s  1 min 10 s left"
    )
    assert evaluation == "evaluation at 250:  success 90 % 100 %  return 3,000 3,500"
    assert "\x1b" not in file.getvalue()


def test_train_line_without_success_or_rollouts() -> None:
    file = io.StringIO()
    logger = TerminalLogger(TITLE, 1000, [0, 1], False, console=Console(file=file))
    logger.log(250, {"loss": 1.0, "reward_agent": -1.0}, "train")
    assert "success" not in file.getvalue()
    assert "return –" in file.getvalue()


def test_train_line_of_an_offline_method() -> None:
    file = io.StringIO()
    logger = TerminalLogger(TITLE, 1000, [0, 1], True, console=Console(file=file))
    metrics = {"loss": [1.0, 3.0], "validation_loss": [4.0, 4.0], "grad_norm": 5.0}
    logger.log(250, metrics | {"steps_per_second": 10.0, "eta_seconds": 75.0}, "train")
    line = file.getvalue().splitlines()[-1]
    assert line == " 25 %   250 steps  loss 2.00 validation 4.00  grad 5.00  10.0/s  1 min 15 s left"


def test_dashboard_on_a_terminal() -> None:
    file = io.StringIO()
    console = Console(file=file, width=110, height=40, force_terminal=True)
    logger = TerminalLogger(TITLE, 1000, [0, 1], True, REFERENCE, console)
    logger.message("compiling act and learn")
    log_all_kinds(logger)
    logger.close()
    logger.close()
    text = file.getvalue()
    assert "compiling act and learn" in text
    assert "Evaluation @ 250" in text
    assert text.rstrip().endswith("\x1b[?25h")  # shows the cursor


@pytest.mark.parametrize("width", [40, 60, 80, 110, 160])
@pytest.mark.parametrize("seeds", [1, 2, 3, 12])
def test_dashboard_fits_its_width(width: int, seeds: int) -> None:
    progress = Progress("a task · x", 10**6, range(seeds), has_success=True)
    progress.update(10**5, {"success": [0.5] * seeds, "episode_return": [-1234.0] * seeds}, "rollout")
    assert max(map(len, render_text(progress, width).splitlines())) <= width


def test_column_per_seed_with_curves_where_they_fit() -> None:
    progress = Progress(TITLE, 1000, [7, 8], True)
    log_all_kinds(progress)
    wide, narrow = render_text(progress, 110), render_text(progress, 70)
    assert all(text in wide for text in ("seed 7", "seed 8", "▅ 50 %", "█ 100 %", "3,500", "nan", "12.5/s", "4,000"))
    assert "unknown_metric" not in wide
    assert "seed 8" in narrow
    assert "▅" not in narrow


def test_many_seeds_are_summarized() -> None:
    progress = Progress(TITLE, 1000, range(12), True)
    progress.update(10, {"grad_norm": [float(i) for i in range(11)] + [float("nan")]}, "train")
    text = render_text(progress, 100)
    assert row(text, "gradient norm") == ["5.00", "0", "10.0"]
    assert all(name in text for name in ("mean", "lowest", "highest"))


def test_dashboard_before_any_report_has_empty_cells() -> None:
    text = render_text(Progress(TITLE, 1000, [0], has_success=False), 100)
    assert "0 of 1,000 steps" in text
    headings = [line.strip() for line in text.splitlines() if line.startswith("  ") and line[2:3].isupper()]
    assert headings == ["Rollouts", "Evaluation", "Learned reward", "Losses"]
    assert row(text, "return") == ["–"] * 3
    for label in ("on expert data", "on agent data", "dynamics", "critic", "reward", "policy", "gradient norm"):
        assert row(text, label) == ["–"]


def test_dashboard_has_success_rows_only_if_the_task_reports_it() -> None:
    without, with_success = (Progress(TITLE, 1000, [0], has_success=has) for has in (False, True))
    for progress in (without, with_success):
        progress.update(10, {"success": [0.25], "episode_return": [5.0]}, "eval")
    labels = [line.split()[0] for line in render_text(without, 100).splitlines() if line.strip()]
    assert labels.count("success") == 0
    assert labels.count("return") == 2
    text = render_text(with_success, 100)
    assert [line.split()[0] for line in text.splitlines() if line.strip()].count("success") == 2
    assert "25 %" in text


def test_dashboard_has_a_clock_that_runs_between_reports() -> None:
    seconds = 10.0
    progress = Progress(TITLE, 1000, [0, 1], True, clock=lambda: seconds)
    drawn = render(progress, 100)
    for seconds, text in ((13.0, "running for 3 s"), (85.0, "running for 1 min 15 s")):  # noqa: B007 (read by the clock)
        console = Console(file=io.StringIO(), width=100, record=True)
        console.print(drawn)
        assert text in console.export_text()


def test_dashboard_is_redrawn_while_nothing_is_reported() -> None:
    file = io.StringIO()
    logger = TerminalLogger(TITLE, 1000, [0], True, console=Console(file=file, force_terminal=True, width=100))
    drawn, deadline = file.getvalue().count("running for"), time.monotonic() + 60
    while file.getvalue().count("running for") == drawn:
        assert time.monotonic() < deadline, "not redrawn"
        time.sleep(0.05)
    logger.close()
