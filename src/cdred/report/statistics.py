"""Statistics that compare runs: normalized score, interquartile mean and its bootstrap confidence interval."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

Interval = tuple[float, float]


def normalized_score(episode_return: float, random: float, expert: float) -> float:
    """Return 0 for the random policy's return, 1 for the expert's, linear in between; NaN if these two are equal."""
    return (episode_return - random) / (expert - random) if expert != random else float("nan")


def iqm(scores: Sequence[float]) -> float:
    """Return the interquartile mean: the mean of the middle half, robust to outlier runs (arXiv 2108.13264)."""
    return float(_iqm(np.asarray(scores, float)))


def probability_of_improvement(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the probability that a run of `x` scores higher than a run of `y`; ties count half (arXiv 2108.13264)."""
    x_column, y_row = np.asarray(x)[:, None], np.asarray(y)[None]
    return float(np.mean((x_column > y_row) + 0.5 * (x_column == y_row)))


def mean_improvement(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> float:
    """Return the mean over tasks of the probability of improvement of x over y, of the scores (x, y) per task."""
    return float(np.mean([probability_of_improvement(x, y) for x, y in pairs]))


def improvement_interval(
    pairs: Sequence[tuple[Sequence[float], Sequence[float]]], resamples: int = 2000
) -> Interval | None:
    """Return the 95 % percentile bootstrap interval of `mean_improvement`, resampling seeds within each task.

    Args:
        pairs: per task, the scores (x, y), one per seed.
        resamples: number of bootstrap samples, drawn with a fixed seed.

    Returns:
        The interval; None where a task has fewer than two scores, of which the bootstrap would take one for certain.
    """
    if _too_few([scores for pair in pairs for scores in pair]):
        return None
    rng = np.random.default_rng(0)
    samples = [mean_improvement([(_resample(rng, x), _resample(rng, y)) for x, y in pairs]) for _ in range(resamples)]
    low, high = np.percentile(samples, (2.5, 97.5))
    return float(low), float(high)


def difference_interval(x: Sequence[float], y: Sequence[float], resamples: int = 2000) -> Interval | None:
    """Return the 95 % percentile bootstrap interval of mean(x) - mean(y), resampling both.

    Returns:
        The interval; None as of `improvement_interval`.
    """
    if _too_few([x, y]):
        return None
    rng = np.random.default_rng(0)
    means = [rng.choice(np.asarray(scores), (resamples, len(scores))).mean(axis=1) for scores in (x, y)]
    low, high = np.percentile(means[0] - means[1], (2.5, 97.5))
    return float(low), float(high)


def mean_interval(values: Sequence[float], resamples: int = 2000) -> Interval | None:
    """Return the 95 % percentile bootstrap interval of the mean; None as of `improvement_interval`."""
    if _too_few([values]):
        return None
    samples = np.random.default_rng(0).choice(np.asarray(values), (resamples, len(values)))
    low, high = np.percentile(samples.mean(axis=1), (2.5, 97.5))
    return float(low), float(high)


def _resample(rng: np.random.Generator, scores: Sequence[float]) -> list[float]:
    return rng.choice(np.asarray(scores), len(scores)).tolist()


def _too_few(scores_by_task: Sequence[Sequence[float]]) -> bool:
    return min(map(len, scores_by_task), default=0) < 2


def bootstrap_interval(scores_by_task: Sequence[Sequence[float]], resamples: int = 2000) -> Interval | None:
    """Return the 95 % percentile bootstrap interval of the IQM over all runs, resampling seeds within each task.

    Tasks are not resampled: the interval covers the choice of seeds, not of tasks.

    Args:
        scores_by_task: per task, one score per seed.
        resamples: number of bootstrap samples, drawn with a fixed seed.

    Returns:
        The interval; None as of `improvement_interval`.
    """
    if _too_few(scores_by_task):
        return None
    rng = np.random.default_rng(0)
    samples = [rng.choice(np.asarray(scores), (resamples, len(scores))) for scores in scores_by_task]
    low, high = np.percentile(_iqm(np.concatenate(samples, axis=1)), (2.5, 97.5))
    return float(low), float(high)


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Return Spearman's rank correlation of x and y; NaN if one of them is constant."""
    from scipy.stats import spearmanr  # here: it takes a second, which a training need not wait for

    return float(np.asarray(spearmanr(x, y))[0])


def performance_profile(scores: Sequence[float], thresholds: Sequence[float]) -> Float64[np.ndarray, " N"]:
    """Return the fraction of runs that score more than each of N thresholds (arXiv 2108.13264)."""
    return np.mean(np.asarray(scores, float)[None] > np.asarray(thresholds, float)[:, None], axis=1)


def _iqm(scores: Float64[np.ndarray, "*batch N"]) -> Float64[np.ndarray, "*batch"]:
    """Return the interquartile mean over the last axis."""
    from scipy.stats import trim_mean  # here: it takes a second, which a training need not wait for

    return trim_mean(scores, 0.25, axis=-1)
