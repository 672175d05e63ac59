"""Scores that compare runs: normalized return, interquartile mean, and how sure of it one can be."""

from collections.abc import Sequence

import numpy as np
from scipy import stats


def normalized(episode_return: float, random: float, expert: float) -> float:
    """0 at the random agent's return, 1 at the expert's; NaN where those two agree and nothing can be said."""
    return (episode_return - random) / (expert - random) if expert != random else float("nan")


def iqm(scores: Sequence[float]) -> float:
    """Interquartile mean: of the middle half, so that one lucky or failed run does not carry it (arXiv 2108.13264)."""
    return float(stats.trim_mean(scores, 0.25))


def probability_of_improvement(scores: Sequence[float], others: Sequence[float]) -> float:
    """How often a run of the first beats one of the second, ties counting half (arXiv 2108.13264)."""
    one, other = np.asarray(scores)[:, None], np.asarray(others)[None]
    return float(np.mean((one > other) + 0.5 * (one == other)))


def bootstrap_interval(scores_by_task: Sequence[Sequence[float]], resamples: int = 2000) -> tuple[float, float]:
    """95 % percentile interval of the IQM over all runs, drawing seeds anew within each task.

    Tasks stay as they are: the interval says what other seeds would give, not other tasks. SciPy's bootstrap refuses a
    task with a single seed, which here only adds no width.

    Args:
        scores_by_task: per task, one score per seed.
        resamples: how many drawings; always the same ones.
    """
    rng = np.random.default_rng(0)
    drawn = [rng.choice(np.asarray(scores), (resamples, len(scores))) for scores in scores_by_task]
    low, high = np.percentile(stats.trim_mean(np.concatenate(drawn, axis=1), 0.25, axis=1), (2.5, 97.5))
    return float(low), float(high)
