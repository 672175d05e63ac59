"""State of a run as reported so far, for terminal and dashboard, and the formatting of its numbers."""

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

from cdred.loggers.alarms import AlarmMonitor
from cdred.loggers.metrics import Metrics

Values = list[float | None]
Formatter = Callable[[float | None], str]

MISSING = "–"
RECENT = 10
"""Rollout reports over which episode metrics are averaged: one report covers few episodes and is noisy."""


@dataclass
class Progress:
    """Latest metrics of each kind, history of the rollout metrics, and progress of a run.

    Args:
        title: task and settings, parts separated by ` · `.
        total: steps per seed at which the run ends.
        seeds: in the order of the per-seed lists.
        has_success: the task reports success.
        reference: `expert_return`, `random_return`, `expert_success`, `random_success`, as far as known.

    Attributes:
        step: largest step reported so far.
        eval_step: step of the last evaluation.
        latest: latest value of each metric, by kind.
        new_alarms: messages of the alarms that became active with the last diagnostics.
        clock: returns seconds.
        rollouts: per metric, the reported values of each seed.
    """

    title: str
    total: int
    seeds: Sequence[int]
    has_success: bool
    reference: dict[str, float | None] = field(default_factory=dict)
    step: int = 0
    eval_step: int | None = None
    latest: dict[str, Metrics] = field(default_factory=lambda: defaultdict(dict))
    new_alarms: list[str] = field(default_factory=list)
    clock: Callable[[], float] = time.monotonic
    rollouts: dict[str, deque[Values]] = field(default_factory=lambda: defaultdict(partial(deque, maxlen=2000)))

    def __post_init__(self):
        self._started = self.clock()
        self.alarm_monitor = AlarmMonitor(self.seeds)

    def update(self, step: int, metrics: Metrics, kind: str) -> None:
        """Take a report, as `Logger.log`."""
        self.step = max(self.step, step)
        self.latest[kind] = {**self.latest[kind], **metrics}
        if kind == "rollout":
            for key, value in metrics.items():
                self.rollouts[key].append(broadcast_to_seeds(value, len(self.seeds)))
        if kind == "diagnostics":
            lists = {key: broadcast_to_seeds(value, len(self.seeds)) for key, value in metrics.items()}
            rows = [{key: values[i] for key, values in lists.items()} for i in range(len(self.seeds))]
            self.new_alarms = self.alarm_monitor.update(step, rows)
        if kind == "eval":
            self.eval_step = step
        if kind == "reference":
            self.reference |= metrics

    def per_seed(self, kind: str, key: str) -> Values:
        """Return the latest value of each seed; a scalar applies to every seed, an unknown key gives None for each."""
        return broadcast_to_seeds(self.latest[kind].get(key), len(self.seeds))

    def history(self, key: str) -> list[list[float]]:
        """Return the finite values of a rollout metric so far, per seed."""
        rows = self.rollouts.get(key, ())
        return [finite(row[seed] for row in rows) for seed in range(len(self.seeds))]

    def recent_rollouts(self, key: str) -> Values:
        """Return the mean of a rollout metric over its last `RECENT` finite values, per seed."""
        return [mean(values[-RECENT:]) for values in self.history(key)]

    def scalar(self, kind: str, key: str) -> float | None:
        """Return the mean of the latest value over the seeds."""
        return mean(finite(self.per_seed(kind, key)))

    @property
    def fraction(self) -> float:
        """Completed fraction of the run."""
        return min(1.0, self.step / max(1, self.total))

    @property
    def time_left(self) -> str:
        """The time left in words, `over ...` before the time of evaluations is known."""
        eta, minimum = (self.scalar("train", key) for key in ("eta_seconds", "min_eta_seconds"))
        if eta is None and minimum is not None:
            return f"over {format_duration(minimum)} left"
        return f"{format_duration(eta)} left"

    @property
    def elapsed(self) -> float:
        """Seconds since the run was started or resumed."""
        return self.clock() - self._started


def broadcast_to_seeds(value: Any, num_seeds: int) -> Values:
    """Return a scalar or a per-seed sequence of any array library as `num_seeds` Python numbers."""
    values = list(value) if getattr(value, "ndim", 1) and hasattr(value, "__iter__") else [value] * num_seeds
    return [None if item is None else float(item) for item in values]


def finite(values: Iterable[float | None]) -> list[float]:
    """Return the values that are neither None, NaN nor infinite."""
    return [value for value in values if value is not None and math.isfinite(value)]


def mean(values: Sequence[float]) -> float | None:
    """Return the mean, or None of an empty sequence."""
    return sum(values) / len(values) if values else None


def format_number(value: float | None) -> str:
    """Format with about three significant digits, in a narrow range of widths so that columns stay aligned."""
    if value is None:
        return MISSING
    if not math.isfinite(value):
        return str(value)
    for minimum, spec in ((1000, ",.0f"), (100, ".0f"), (10, ".1f"), (0.995, ".2f"), (0.001, ".3f")):
        if abs(value) >= minimum:
            return format(value, spec).replace("-", "−")
    return format(value, ".0e").replace("-", "−") if value else "0"


def format_percent(value: float | None) -> str:
    """Format a fraction, e.g. 0.5 as `50 %`."""
    return MISSING if value is None else f"{value:.0%}".replace("%", " %")


def format_duration(seconds: float | None) -> str:
    """Format as `12 s`, `3 min 40 s` or `1 h 04 min`."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def sparkline(values: Sequence[float], low: float, high: float, width: int = 8) -> str:
    """Return a curve of at most `width` characters between `low` and `high`, each the mean of a bin of `values`."""
    marks, num_bins = "▁▂▃▄▅▆▇█", min(width, len(values))
    edges = [round(i * len(values) / max(1, num_bins)) for i in range(num_bins + 1)]
    means = [sum(values[start:end]) / (end - start) for start, end in pairwise(edges)]
    heights = [(value - low) / max(high - low, 1e-9) for value in means]
    return "".join(marks[min(7, max(0, int(height * 8)))] for height in heights)
