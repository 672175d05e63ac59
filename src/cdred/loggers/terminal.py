"""Terminal logger: a live dashboard on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.live import Live
from rich.text import Text

from cdred.console import OptionalOutput, SafeConsole
from cdred.loggers.dashboard import QUIET, render
from cdred.loggers.metrics import Metrics
from cdred.loggers.progress import (
    MISSING,
    Formatter,
    Progress,
    finite,
    format_number,
    format_percent,
    mean,
)

REDRAW_SECONDS = 0.25
NOTICE = "the run goes on, and writes its metrics to metrics.jsonl in the run folder."
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


class TerminalLogger:
    """Logger that shows a run on a terminal, or writes a readable log where the output is not a terminal.

    Args:
        title: task and settings, parts separated by ` · `; the first part is the task.
        total: steps per seed at which the run ends.
        seeds: in the order of the per-seed lists.
        has_success: the task reports success.
        reference: `expert_return`, `random_return`, `expert_success`, `random_success`, as far as known; metrics of
            kind `reference` are added.
        console: output; by default standard output, without which the run goes on if it is closed.
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
        self._console = console or SafeConsole(file=sys.stdout and OptionalOutput(sys.stdout, NOTICE))
        self._progress = Progress(title, total, list(seeds), has_success, dict(reference or {}))
        self._drawn_at = 0.0
        self._live = None
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            # Redrawn for its clock, which shows that a compilation is still running.
            self._live = Live(console=self._console, refresh_per_second=1)
            self._live.start()
            self._draw()
        else:
            self.message(title)

    def log(self, step: int, metrics: Metrics, kind: str) -> None:
        """Show a report, as `Logger.log`."""
        self._progress.update(step, metrics, kind)
        if kind == "diagnostics":
            for text in self._progress.new_alarms:
                self.message(text)
        if self._live is not None:
            if time.monotonic() - self._drawn_at > REDRAW_SECONDS:
                self._draw()
        elif kind == "train":
            self._write(train_line(self._progress))
        elif kind == "eval":
            self._write(eval_line(self._progress))

    def message(self, text: str) -> None:
        """Write a line that stays in the scroll-back, above the dashboard."""
        self._write(text, QUIET if self._live else "")

    def close(self) -> None:
        """Leave the last dashboard on the screen and restore the cursor."""
        if self._live is not None:
            self._draw()
            self._live.stop()
            self._live = None

    def _draw(self) -> None:
        assert self._live is not None
        self._live.update(render(self._progress, self._console.width), refresh=True)
        self._drawn_at = time.monotonic()

    def _write(self, text: str, style: str = "") -> None:
        # soft_wrap keeps each message on one line of a log file, so that it can be searched for.
        self._console.print(Text(text, style=style), soft_wrap=True)


class NullLogger:
    """Logger with the interface of `TerminalLogger` that discards everything."""

    def log(self, step: int, metrics: Metrics, kind: str) -> None:
        """Ignore a report."""

    def message(self, text: str) -> None:
        """Ignore a message."""

    def close(self) -> None:
        """Do nothing."""


def train_line(progress: Progress) -> str:
    """Format one log interval as a short line of means over the seeds."""
    values = {key: format_number(progress.scalar("train", key)) for key in TRAIN_KEYS}
    if values["reward_agent"] == MISSING:
        validation = "" if values["validation_loss"] == MISSING else f" validation {values['validation_loss']}"
        fields = [f"loss {values['loss']}{validation}"]
    else:
        fields = _online_fields(progress, values)
    return "  ".join(
        [
            f"{format_percent(progress.fraction):>5}",
            f"{progress.step:>{len(str(progress.total))}} steps",
            *fields,
            f"grad {values['grad_norm']}",
            f"{values['steps_per_second']}/s",
            progress.time_left,
        ]
    )


def _online_fields(progress: Progress, values: Mapping[str, str]) -> list[str]:
    """Format the fields of methods that interact with the environment."""
    success = [f"success {_seed_mean(progress, 'success', format_percent)}"] if progress.has_success else []
    expert = "" if values["reward_expert"] == MISSING else f"expert {values['reward_expert']} "
    return [
        *success,
        f"return {_seed_mean(progress, 'episode_return', format_number)}",
        f"reward {expert}agent {values['reward_agent']}",
        f"loss dyn {values['consistency_loss']} critic {values['critic_loss']} reward {values['reward_loss']}",
    ]


def eval_line(progress: Progress) -> str:
    """Format an evaluation as a short line of per-seed values."""
    returns = " ".join(format_number(value) for value in progress.per_seed("eval", "episode_return"))
    successes = " ".join(format_percent(value) for value in progress.per_seed("eval", "success"))
    parts = [f"success {successes}"] if progress.has_success else []
    return "  ".join([f"evaluation at {progress.eval_step}:", *parts, f"return {returns}"])


def _seed_mean(progress: Progress, key: str, formatter: Formatter) -> str:
    return formatter(mean(finite(progress.recent_rollouts(key))))
