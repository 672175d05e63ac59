"""Plain lines in a file, a live view on a terminal."""

import io

import pytest
from rich.console import Console

from cdred.loggers.dashboard import render
from cdred.loggers.progress import Progress
from cdred.loggers.terminal import Terminal

TITLE = "metaworld/reach · cdred · cpu"
LEVELS = {"expert_return": 4000.0, "random_return": 300.0, "expert_success": 1.0, "random_success": 0.05}
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
    "never_heard_of": [1.0, 2.0],
}


def tell(sink: Terminal | Progress) -> None:
    log = sink.log if isinstance(sink, Terminal) else sink.update
    log(0, LEVELS, "levels")
    log(250, {"episode_return": [1000.0, 2000.0], "success": [0.5, 1.0], "success_at_end": [0.0, 1.0]}, "episode")
    log(250, TRAIN, "train")
    log(250, {"episode_return": [3000.0, 3500.0], "success": [0.9, 1.0], "episodes": 20}, "eval")


def shown(progress: Progress, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, record=True)
    console.print(render(progress, width))
    return console.export_text()


def test_plain_lines_without_a_terminal() -> None:
    file = io.StringIO()
    sink = Terminal(TITLE, 1000, [0, 1], True, console=Console(file=file, width=40))
    sink.message("compiling [act]")
    tell(sink)
    sink.close()
    title, message, train, evaluation = file.getvalue().splitlines()
    assert (title, message) == (TITLE, "compiling [act]")
    assert train == (
        " 25 %   250 steps  success 75 %  return 1,500  reward expert −0.200 own −1.50  "
        "loss dyn 0.300 critic 2.00 reward 0.100  grad 4.00  12.5/s  1 min 10 s left"
    )
    assert evaluation == "evaluation at 250:  success 90 % 100 %  return 3,000 3,500"
    assert "\x1b" not in file.getvalue()


def test_plain_lines_without_success_or_episodes() -> None:
    file = io.StringIO()
    sink = Terminal(TITLE, 1000, [0, 1], False, console=Console(file=file))
    sink.log(250, {"loss": 1.0}, "train")
    assert "success" not in file.getvalue()
    assert "return –" in file.getvalue()


def test_a_line_of_a_method_that_only_watches() -> None:
    file = io.StringIO()
    sink = Terminal(TITLE, 1000, [0, 1], True, console=Console(file=file))
    metrics = {"loss": [1.0, 3.0], "validation_loss": [4.0, 4.0], "grad_norm": 5.0}
    sink.log(250, metrics | {"steps_per_second": 10.0, "eta_seconds": 75.0}, "train")
    line = file.getvalue().splitlines()[-1]
    assert line == " 25 %   250 steps  loss 2.00 held out 4.00  grad 5.00  10.0/s  1 min 15 s left"


def test_live_view_on_a_terminal() -> None:
    file = io.StringIO()
    sink = Terminal(TITLE, 1000, [0, 1], True, LEVELS, Console(file=file, width=110, height=40, force_terminal=True))
    sink.message("compiling act and learn")
    tell(sink)
    sink.close()
    sink.close()
    text = file.getvalue()
    assert "compiling act and learn" in text
    assert "Evaluation @ 250" in text
    assert text.rstrip().endswith("\x1b[?25h")  # the cursor is back


@pytest.mark.parametrize("width", [40, 60, 80, 110, 160])
@pytest.mark.parametrize("seeds", [1, 2, 3, 12])
def test_the_view_fits_its_width(width: int, seeds: int) -> None:
    progress = Progress("a task · x", 10**6, range(seeds), has_success=True)
    progress.update(10**5, {"success": [0.5] * seeds, "episode_return": [-1234.0] * seeds}, "episode")
    assert max(map(len, shown(progress, width).splitlines())) <= width


def test_a_column_per_seed_with_a_curve_where_there_is_room() -> None:
    progress = Progress(TITLE, 1000, [7, 8], True)
    tell(progress)
    wide, narrow = shown(progress, 110), shown(progress, 70)
    assert all(text in wide for text in ("seed 7", "seed 8", "▅ 50 %", "█ 100 %", "3,500", "nan", "12.5/s", "4,000"))
    assert "never_heard_of" not in wide
    assert "seed 8" in narrow
    assert "▅" not in narrow


def test_many_seeds_are_summarised() -> None:
    progress = Progress(TITLE, 1000, range(12), True)
    progress.update(10, {"grad_norm": [float(i) for i in range(11)] + [float("nan")]}, "train")
    text = shown(progress, 100)
    assert all(part in text for part in ("mean", "lowest", "highest", "5.00", "10.0"))


def test_before_anything_is_known() -> None:
    text = shown(Progress(TITLE, 1000, [0], has_success=False), 100)
    assert "0 of 1,000 steps" in text
    assert "success" not in text
