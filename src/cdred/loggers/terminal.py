"""The terminal sink: a live view where there is a terminal, plain lines where there is none."""

import time
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.live import Live
from rich.text import Text

from cdred.loggers.dashboard import QUIET, render
from cdred.loggers.metrics import Metrics
from cdred.loggers.progress import MISSING, Form, Progress, duration, finite, mean, number, ratio

REDRAW_SECONDS = 0.25
TRAIN_KEYS = (
    "reward_expert",
    "reward_agent",
    "consistency_loss",
    "critic_loss",
    "reward_loss",
    "loss",
    "validation_loss",
    "grad_norm",
    "steps_per_second",
)


class Terminal:
    """Shows a run to whoever watches, and keeps a readable log where nobody does.

    Args:
        title: task and settings, parts separated by ` · `; the first part is the task.
        total: steps per seed at which the run ends.
        seeds: the seeds in lockstep, in the order of the per-seed lists.
        has_success: whether the task says if its goal is reached.
        reference: `expert_return`, `random_return`, `expert_success`, `random_success`, as far as known; metrics of
            kind `levels` add to it.
        console: where to write; standard output by default.
    """

    def __init__(
        self,
        title: str,
        total: int,
        seeds: Sequence[int],
        has_success: bool,
        reference: Mapping[str, float | None] | None = None,
        console: Console | None = None,
    ):
        self._console = console or Console()
        self._progress = Progress(title, total, list(seeds), has_success, dict(reference or {}))
        self._drawn = 0.0
        self._live = None
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
            self._draw()
        else:
            self.message(title)

    def log(self, step: int, metrics: Metrics, kind: str) -> None:
        self._progress.update(step, metrics, kind)
        if kind == "diagnostics":
            for text in self._progress.begun:
                self.message(text)
        if self._live is not None:
            if time.monotonic() - self._drawn > REDRAW_SECONDS:
                self._draw()
        elif kind == "train":
            self._write(train_line(self._progress))
        elif kind == "eval":
            self._write(eval_line(self._progress))

    def message(self, text: str) -> None:
        """One line that stays in the scroll-back, above the live view."""
        self._write(text, QUIET if self._live else "")

    def close(self) -> None:
        """Leave the last picture on the screen and give the cursor back."""
        if self._live is not None:
            self._draw()
            self._live.stop()
            self._live = None

    def _draw(self) -> None:
        assert self._live is not None
        self._live.update(render(self._progress, self._console.width), refresh=True)
        self._drawn = time.monotonic()

    def _write(self, text: str, style: str = "") -> None:
        # soft_wrap: a log file has no width, and a line cut in two cannot be searched for.
        self._console.print(Text(text, style=style), soft_wrap=True)


def train_line(progress: Progress) -> str:
    """One log interval as a short line; figures are means over the seeds."""
    value = {key: number(progress.scalar("train", key)) for key in TRAIN_KEYS}
    lives = value["validation_loss"] == MISSING
    return "  ".join(
        [
            f"{ratio(progress.fraction):>5}",
            f"{progress.step:>{len(str(progress.total))}} steps",
            *(_lived(progress, value) if lives else [f"loss {value['loss']} held out {value['validation_loss']}"]),
            f"grad {value['grad_norm']}",
            f"{value['steps_per_second']}/s",
            f"{duration(progress.eta)} left",
        ]
    )


def _lived(progress: Progress, value: Mapping[str, str]) -> list[str]:
    """What a method that acts while it learns has to tell."""
    success = [f"success {_averaged(progress, 'success', ratio)}"] if progress.has_success else []
    expert = "" if value["reward_expert"] == MISSING else f"expert {value['reward_expert']} "
    return [
        *success,
        f"return {_averaged(progress, 'episode_return', number)}",
        f"reward {expert}own {value['reward_agent']}",
        f"loss dyn {value['consistency_loss']} critic {value['critic_loss']} reward {value['reward_loss']}",
    ]


def eval_line(progress: Progress) -> str:
    """An evaluation as a short line; figures per seed."""
    returns = " ".join(number(value) for value in progress.per_seed("eval", "episode_return"))
    successes = " ".join(ratio(value) for value in progress.per_seed("eval", "success"))
    parts = [f"success {successes}"] if progress.has_success else []
    return "  ".join([f"evaluation at {progress.eval_step}:", *parts, f"return {returns}"])


def _averaged(progress: Progress, key: str, form: Form) -> str:
    return form(mean(finite(progress.exploring(key))))
