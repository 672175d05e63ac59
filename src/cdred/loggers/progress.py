"""What a run has told so far, in the form that a view of it needs, and how its numbers are written."""

import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

from cdred.loggers.alarms import Watch
from cdred.loggers.metrics import Metrics

Values = list[float | None]
Form = Callable[[float | None], str]

MISSING = "–"
RECENT = 10
"""Episode batches over which the exploring figures are averaged: one batch is a handful of episodes, and noisy."""


@dataclass
class Progress:
    """The latest metrics of each kind, the history of the exploring episodes, and how far the run is.

    Args:
        title: task and settings, parts separated by ` · `.
        total: steps per seed at which the run ends.
        seeds: the seeds in lockstep, in the order of the per-seed lists.
        has_success: whether the task says if its goal is reached.
        reference: `expert_return`, `random_return`, `expert_success`, `random_success`, as far as known.
    """

    title: str
    total: int
    seeds: Sequence[int]
    has_success: bool
    reference: dict[str, float | None] = field(default_factory=dict)
    step: int = 0
    eval_step: int | None = None
    latest: dict[str, Metrics] = field(default_factory=lambda: defaultdict(dict))
    begun: list[str] = field(default_factory=list)
    episodes: dict[str, deque[Values]] = field(default_factory=lambda: defaultdict(partial(deque, maxlen=2000)))

    def __post_init__(self):
        self.watch = Watch(self.seeds)

    def update(self, step: int, metrics: Metrics, kind: str) -> None:
        self.step = max(self.step, step)
        self.latest[kind] = {**self.latest[kind], **metrics}
        if kind == "rollout":
            for key, value in metrics.items():
                self.episodes[key].append(spread(value, len(self.seeds)))
        if kind == "diagnostics":
            told = {key: spread(value, len(self.seeds)) for key, value in metrics.items()}
            self.begun = self.watch.update([{key: row[i] for key, row in told.items()} for i in range(len(self.seeds))])
        if kind == "eval":
            self.eval_step = step
        if kind == "reference":
            self.reference |= metrics

    def per_seed(self, kind: str, key: str) -> Values:
        """The latest value per seed; a scalar counts for every seed, an unknown key is None for each."""
        return spread(self.latest[kind].get(key), len(self.seeds))

    def history(self, key: str) -> list[list[float]]:
        """Per seed, the finite values of every exploring batch so far."""
        rows = self.episodes.get(key, ())
        return [finite(row[seed] for row in rows) for seed in range(len(self.seeds))]

    def exploring(self, key: str) -> Values:
        """Per seed, the mean over the last `RECENT` batches."""
        return [mean(values[-RECENT:]) for values in self.history(key)]

    def scalar(self, kind: str, key: str) -> float | None:
        """The latest value, averaged over the seeds if there is one for each."""
        return mean(finite(self.per_seed(kind, key)))

    @property
    def fraction(self) -> float:
        return min(1.0, self.step / max(1, self.total))

    @property
    def eta(self) -> float | None:
        """Seconds left, as reported or by the reported speed; None while neither is known."""
        reported, speed = (self.scalar("train", key) for key in ("eta_seconds", "steps_per_second"))
        if reported is None and speed:
            return (self.total - self.step) / speed
        return reported


def spread(value: Any, count: int) -> Values:
    """A scalar or a per-seed sequence of any array library as `count` Python numbers."""
    values = list(value) if getattr(value, "ndim", 1) and hasattr(value, "__iter__") else [value] * count
    return [None if item is None else float(item) for item in values]


def finite(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]


def mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def number(value: float | None) -> str:
    """About three significant digits, in the narrow range of widths that keeps a column calm."""
    if value is None:
        return MISSING
    if not math.isfinite(value):
        return str(value)
    for floor, form in ((1000, ",.0f"), (100, ".0f"), (10, ".1f"), (0.995, ".2f"), (0.001, ".3f")):
        if abs(value) >= floor:
            return format(value, form).replace("-", "−")
    return format(value, ".0e").replace("-", "−") if value else "0"


def ratio(value: float | None) -> str:
    return MISSING if value is None else f"{value:.0%}".replace("%", " %")


def duration(seconds: float | None) -> str:
    """`12 s`, `3 min 40 s`, `1 h 04 min`."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def sparkline(values: Sequence[float], low: float, high: float, width: int = 8) -> str:
    """A curve of at most `width` characters, each the mean of its share of `values`, between `low` and `high`."""
    marks, count = "▁▂▃▄▅▆▇█", min(width, len(values))
    edges = [round(i * len(values) / max(1, count)) for i in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    heights = [(value - low) / max(high - low, 1e-9) for value in means]
    return "".join(marks[min(7, max(0, int(height * 8)))] for height in heights)
