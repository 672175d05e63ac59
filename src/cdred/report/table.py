"""Markdown table of the results of several runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cdred.loggers.progress import MISSING, format_percent
from cdred.report.results import read_result
from cdred.report.statistics import bootstrap_interval, iqm

COLUMNS = (
    "task",
    "demos",
    "steps",
    "success per seed",
    "mean",
    "random",
    "expert",
    "normalized return per seed",
    "minutes",
)
TEXT_COLUMNS = ("task",)


def markdown_table(run_dirs: Sequence[Path]) -> str:
    """Return a row per finished run, in the given order, and below several runs their joint normalized return.

    `random` and `expert` are success rates, `steps` are per seed, `minutes` are wall-clock time of all seeds together.

    Raises:
        UserError: a folder has no readable result.
    """
    results = [read_result(run_dir) for run_dir in run_dirs]
    rules = ["---" if column in TEXT_COLUMNS else "---:" for column in COLUMNS]
    lines = [_line(COLUMNS), _line(rules), *(_line(_cells(result)) for result in results)]
    return "\n".join([*lines, *_summary(results)]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(result: dict[str, Any]) -> list[str]:
    scores = result.get("eval") or {}
    success, seconds = _known(scores.get("success")), result.get("wall_seconds")
    return [
        str(result.get("task", MISSING)),
        str(result.get("demos", MISSING)),
        f"{result['steps']:,}" if "steps" in result else MISSING,
        ", ".join(map(format_percent, success)) or MISSING,
        f"**{format_percent(sum(success) / len(success))}**" if success else MISSING,
        format_percent(scores.get("random_success")),
        format_percent(scores.get("expert_success")),
        ", ".join(f"{score:.2f}" for score in _known(scores.get("normalized"))) or MISSING,
        f"{seconds / 60:.0f}" if seconds is not None else MISSING,
    ]


def _summary(results: Sequence[dict[str, Any]]) -> list[str]:
    """Summarize several runs; the interval of a single run would be that of a handful of seeds."""
    scores = [known for result in results if (known := _known((result.get("eval") or {}).get("normalized")))]
    if len(scores) < 2:
        return []
    pooled = [score for run_scores in scores for score in run_scores]
    low, high = bootstrap_interval(scores)
    return [
        "",
        f"Normalized return, interquartile mean over {len(pooled)} seeds of {len(scores)} runs: "
        f"**{iqm(pooled):.2f}** (95 % bootstrap interval {low:.2f} to {high:.2f}).",
    ]


def _known(values: Sequence[float | None] | None) -> list[float]:
    return [value for value in values or [] if value is not None]
