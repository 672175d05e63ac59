"""Markdown table of the results of several runs."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cdred.loggers.progress import MISSING, format_percent
from cdred.report.results import read_result
from cdred.report.statistics import bootstrap_interval, iqm
from cdred.text import plural

COLUMNS = (
    "task",
    "method",
    "seeds",
    "demos",
    "steps",
    "success per seed",
    "mean",
    "random",
    "expert",
    "normalized return per seed",
    "minutes",
)
TEXT_COLUMNS = ("task", "method")


def markdown_table(run_dirs: Sequence[Path]) -> str:
    """Return a row per finished run, in the given order, and below several runs the normalized return of each method.

    `method` is the algorithm, `random` and `expert` are success rates, `steps` are per seed, `minutes` are wall-clock
    time of all seeds together.

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
        str(result.get("algo", MISSING)),
        " ".join(map(str, result.get("seeds") or [])) or MISSING,
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
    """Summarize several runs by method; the interval of a single run would be that of a handful of seeds."""
    scores: dict[str, dict[str, list[float]]] = {}
    runs = Counter(str(result.get("algo", MISSING)) for result in results if _normalized(result))
    for result in results:
        if known := _normalized(result):
            tasks = scores.setdefault(str(result.get("algo", MISSING)), {})
            tasks.setdefault(str(result.get("task", MISSING)), []).extend(known)
    lines = [_method_summary(method, [*tasks.values()]) for method, tasks in scores.items() if runs[method] > 1]
    return ["", "Normalized return, interquartile mean:", "", *lines] if lines else []


def _method_summary(method: str, scores_by_task: Sequence[Sequence[float]]) -> str:
    pooled = [score for scores in scores_by_task for score in scores]
    of = f"- {method}, {plural(len(pooled), 'seed')} on {plural(len(scores_by_task), 'task')}: **{iqm(pooled):.2f}**"
    interval = bootstrap_interval(scores_by_task)
    if interval is None:
        return f"{of} (no interval: a task has one seed)"
    return f"{of} (95 % bootstrap interval {interval[0]:.2f} to {interval[1]:.2f})"


def _normalized(result: dict[str, Any]) -> list[float]:
    return _known((result.get("eval") or {}).get("normalized"))


def _known(values: Sequence[float | None] | None) -> list[float]:
    return [value for value in values or [] if value is not None]
