"""What a sweep makes of its finished runs: exported results, a table of scores, and aggregate figures."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cdred.config import RunConfig, preset
from cdred.config_file import differences
from cdred.loggers.progress import MISSING, format_percent
from cdred.report.aggregate import aggregate, common_tasks, draw_aggregate
from cdred.report.result_files import write_result_files
from cdred.run_folder import finished_result
from cdred.sweep.plan import SweepRun
from cdred.text import plural

# Kinds of scores, the first that a task reports counts, and their names.
KINDS = {"success": "success", "normalized": "normalized return", "return": "return"}

# Scores of seeds by method and setting, and by task.
ScoresByLabel = dict[str, dict[str, list[float]]]


def collect(runs: Sequence[SweepRun], folder: Path) -> str:
    """Export the finished runs, write `table.md` and the aggregate figures, and return the table.

    `aggregate.json` and `aggregate.png` are over the tasks of which every method has a score; without such a task, old
    ones are removed.

    Args:
        runs: all runs of the sweep.
        folder: folder of the results.
    """
    finished = [(run, result) for run in runs if (result := finished_result(run.folder, run.config)) is not None]
    for run, _ in finished:
        path = folder / run.result_stem.with_name(f"{run.result_stem.name}.csv")
        write_result_files(run.folder, run.config, path, train_command(run.config))
    table = score_table(runs, finished)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(table)
    _write_aggregate(task_scores(finished), folder)
    return table


def _write_aggregate(scores: ScoresByLabel, folder: Path) -> None:
    numbers, figure = folder / "aggregate.json", folder / "aggregate.png"
    if not common_tasks(scores):
        numbers.unlink(missing_ok=True)
        figure.unlink(missing_ok=True)
        return
    statistics = aggregate(scores)
    numbers.write_text(json.dumps(statistics, indent=1) + "\n")
    draw_aggregate(scores, statistics).savefig(figure, dpi=100)


def score_table(runs: Sequence[SweepRun], finished: Sequence[tuple[SweepRun, dict[str, Any]]]) -> str:
    """Return a Markdown table of the mean scores, with the numbers of finished runs and of all: a row per task."""
    labels = list(dict.fromkeys(run.label for run in runs))
    lines = [["task", "score", *labels], ["---", "---", *["---:"] * len(labels)]]
    for task in dict.fromkeys(run.config.task for run in runs):
        of_task = [(run.label, result) for run, result in finished if run.config.task == task]
        # One for the whole row: what has no demonstrations, such as TD-MPC2, has no score of an expert to normalize by.
        kind = next((key for key in KINDS if of_task and all(_known(result, key) for _, result in of_task)), MISSING)
        cells = []
        for label in labels:
            results = [result for of_label, result in of_task if of_label == label]
            planned = sum((run.config.task, run.label) == (task, label) for run in runs)
            mean = _mean(kind, [score for result in results for score in _scores(result, kind)])
            cells.append(f"{mean} ({len(results)}/{planned})")
        lines.append([task, KINDS.get(kind, kind), *cells])
    text = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([*text, "", "Means over seeds; in parentheses the finished runs of all runs.", ""])


def mean_score(result: dict[str, Any]) -> str:
    """Describe the mean score of a run: success, normalized return, or return."""
    kind = score_kind(result)
    scores = _scores(result, kind)
    return f"{KINDS[kind]} {_mean(kind, scores)} over {plural(len(scores), 'seed')}"


def score_kind(result: dict[str, Any]) -> str:
    """Return the kind of a run's scores: `success` if the task reports it, `normalized` if it is known, or `return`."""
    return next((kind for kind in KINDS if _known(result, kind)), "return")


def _scores(result: dict[str, Any], kind: str) -> list[float]:
    """Return the known scores of the seeds of a run."""
    return [float(score) for score in (result.get("eval") or {}).get(kind) or [] if score is not None]


def _known(result: dict[str, Any], kind: str) -> bool:
    return len(_scores(result, kind)) > 0


def _mean(kind: str, scores: Sequence[float]) -> str:
    if not scores:
        return MISSING
    mean = float(np.mean(scores))
    return format_percent(mean) if kind == "success" else f"{mean:.2f}" if kind == "normalized" else f"{mean:,.1f}"


def task_scores(finished: Sequence[tuple[SweepRun, dict[str, Any]]]) -> ScoresByLabel:
    """Return the scores of all seeds by method and setting, and by task.

    Returns that cannot be normalized are left out, as they are not comparable between tasks.
    """
    scores: ScoresByLabel = {}
    for run, result in finished:
        if (kind := score_kind(result)) != "return":
            scores.setdefault(run.label, {}).setdefault(run.config.task, []).extend(_scores(result, kind))
    return scores


def train_command(config: RunConfig) -> str:
    """Return the `cdred train` command that repeats a run: the settings that differ from its preset, without `out`."""
    changed = {name: value for name, (value, _) in differences(config, preset(config.preset)).items()}
    shown = {"algo": config.algo, "preset": config.preset, "seeds": config.seeds} | changed
    words = ["cdred", "train", config.task]
    for name, value in shown.items():
        if name not in ("task", "out"):
            words += _option(name.replace("_", "-"), value)
    return shlex.join(words)


def _option(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        group, _, last = name.rpartition(".")
        return [f"--{name}" if value else f"--{group}{'.' * bool(group)}no-{last}"]
    return [f"--{name}", *map(str, value if isinstance(value, tuple) else [value])]
