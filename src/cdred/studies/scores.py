"""Evaluations of the runs of a study, and statistics of them."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cdred.report.results import RunResults, Series, read_run
from cdred.report.statistics import normalized_score
from cdred.sweep.collect import score_kind
from cdred.sweep.plan import SweepRun

# Evaluations in a row that have to reach a threshold, so that a lucky one does not count.
HELD = 3
# Metrics that need no reward of the environment, by kind of line.
SIGNALS = {
    "train": ("bc_loss", "consistency_loss", "critic_loss", "policy_entropy", "q_pi", "reward_agent", "reward_expert"),
    "diagnostics": (
        "detected_success",
        "dynamics_error_ratio",
        "novelty_expert",
        "open_loop_fvu",
        "q_gradient_share",
        "reward_margin",
    ),
}


class Curve(NamedTuple):
    """Evaluations of one seed.

    Attributes:
        task: the task.
        label: method and setting.
        seed: the seed.
        kind: `success`, `normalized` (return) or `return`.
        steps: steps at which it was evaluated.
        scores: the scores.
        gradient_norm: mean and maximum of the gradient's norm.
        minutes: of all seeds of the run, with compiling and evaluations.
        acting: what acts at the end, by name in `pretrain.CANDIDATES`; None without pretraining.
        signals: metrics of `SIGNALS` at each evaluation, their last values until then; None where there is none.
    """

    task: str
    label: str
    seed: int
    kind: str
    steps: Sequence[int]
    scores: Sequence[float]
    gradient_norm: tuple[float, float] | None
    minutes: float
    acting: str | None
    signals: Mapping[str, Sequence[float | None]]

    @property
    def final(self) -> float:
        """Last score."""
        return self.scores[-1]

    @property
    def reward_margin(self) -> float | None:
        """Last value of that metric; None if the method has none."""
        return self.signals["reward_margin"][-1] if "reward_margin" in self.signals else None


COLUMNS = ("task", "label", "seed", "kind", "step", "score")


def rows(curves: Iterable[Curve]) -> list[tuple[Any, ...]]:
    """Return the data of a study, of `COLUMNS`."""
    return [
        (curve.task, curve.label, curve.seed, curve.kind, step, round(score, 6))
        for curve in curves
        for step, score in zip(curve.steps, curve.scores, strict=True)
    ]


def read_curves(run: SweepRun) -> Iterator[Curve]:
    """Return the evaluations of each seed of a finished run."""
    results = read_run(run.folder)
    kind = score_kind(results.metadata)
    key = "success" if kind == "success" else "episode_return"
    series, references = results.series("eval", key), results.reference_scores
    acting = results.metadata["acting"]
    for index, seed in enumerate(run.config.seeds):
        scores = [float(score) for score in series.values[:, index]]
        if kind == "normalized":
            ends = references["random_return"], references["expert_return"]
            scores = [normalized_score(score, *ends) for score in scores]
        yield Curve(
            run.config.task,
            run.label,
            seed,
            kind,
            series.steps.tolist(),
            scores,
            _gradient_norm(results, index),
            results.metadata["wall_seconds"] / 60,
            None if acting is None else acting[index],
            _signals(results, series.steps, index),
        )


def _signals(results: RunResults, steps: np.ndarray, index: int) -> dict[str, list[float | None]]:
    """Return the metrics of `SIGNALS` that the run has."""
    return {
        signal: [_latest(series, step, index) for step in steps]
        for kind, names in SIGNALS.items()
        for signal in names
        if len(series := results.series(kind, signal))
    }


def _latest(series: Series, step: int, index: int) -> float | None:
    """Return the last value of a metric until a step; None if there is none, or it is not finite."""
    row = int(np.searchsorted(series.steps, step, side="right")) - 1
    value = float(series.values[row, index]) if row >= 0 else math.nan
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _gradient_norm(results: RunResults, index: int) -> tuple[float, float] | None:
    mean, largest = (results.series("train", key) for key in ("grad_norm", "grad_norm_max"))
    if not len(mean) or not len(largest):
        return None
    return float(np.nanmean(mean.values[:, index])), float(np.nanmax(largest.values[:, index]))


def steps_to_threshold(curve: Curve, threshold: float) -> int | None:
    """Return the first step from which `HELD` evaluations in a row reach a score; None if there is none."""
    reached = [score >= threshold for score in curve.scores]
    for index in range(len(reached) - HELD + 1):
        if all(reached[index : index + HELD]):
            return curve.steps[index]
    return None


def drop_from_peak(curve: Curve) -> float:
    """Return by how much the last score is below the highest."""
    return max(curve.scores) - curve.final
