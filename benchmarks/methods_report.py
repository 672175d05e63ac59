"""Write results/methods.md and its first table into README.md and docs/benchmarks.md, from the runs in results/.

    python benchmarks/methods_report.py

The runs are those that `methods_table.py` exports. A test fails if a page differs from them.
"""

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from methods_table import CONFIRMATION, DEMOS, DEVELOPMENT, METHODS, RESULTS, STEPS, Budget, exported

from cdred.algos.pretrain import CANDIDATES
from cdred.report.statistics import (
    bootstrap_interval,
    improvement_interval,
    iqm,
    mean_improvement,
    mean_interval,
    normalized_score,
)
from cdred.train.selection import PRETRAINED, choose_candidate, standard_error

TASKS = (*DEVELOPMENT, *CONFIRMATION)
BUDGETS = (Budget(DEMOS, STEPS), Budget(DEMOS, 20_000), Budget(1, STEPS), Budget(3, STEPS), Budget(100, 20_000))
ROOT = RESULTS.parent
PAGE = RESULTS / "methods.md"
# Pages that repeat the first table, between these two lines.
PAGES_WITH_TABLE = (ROOT / "README.md", ROOT / "docs" / "benchmarks.md")
BEGIN, END = "<!-- table of benchmarks/methods_report.py -->", "<!-- end of the table -->"
INTRODUCTION = """# Methods compared

Written by `python benchmarks/methods_report.py` from the runs of `python benchmarks/methods_table.py --runs FOLDER`.

All methods have the `cpu` preset: pretraining by BC, the encoder frozen where demonstrations end together, the first
500 steps acted by the pretrained policy, one update per step, and the choice of what acts in the end by detected
successes in 30 episodes. Numbers are success in percent, on DMControl the normalized return in percent (0: random
agent, 100: expert), of 40 unseen episodes per seed without exploration (DMControl: 10): the mean over seeds, and each
seed from 0 on in parentheses. BC is the pretrained policy of CDRED's runs, evaluated from the same initial states.
IQ-Learn + SAC begins with a BC of its own, on raw observations. The preset was chosen with CDRED on the first five
tasks, with seeds 0 1 2. Each run had one core (`taskset`). Runs on other processors differ by rounding: the BC of
walker-walk's seed 2 returns 196 in CDRED's run, and 248 in those of the baselines on its world model.

What acts in the end, per seed: the agent as trained, by its planner if it has one; its policy; or BC, unless one of the
others leads in detected successes by more than one standard error. Where successes cannot be detected, the agent acts.
This rule was set after most of these results were seen; in the runs before it any lead sufficed. Where the lead in such
a run is too small today, the table has BC, with its score of step 0: that is in the same episodes.

Intervals are 95 % bootstrap intervals over seeds; tasks are not resampled. IQM: interquartile mean over all seeds and
tasks that every method of the table has been run on. P(CDRED better): probability that a seed of CDRED scores higher
than a seed of the other method, ties counting half, averaged over the tasks that both have been run on. What more steps
gain is in points, per seed of the shorter and the longer run; the interval is over the seeds of all tasks.
"""


class Scores(NamedTuple):
    """Success, or the normalized return where a task has no success, of every seed: BC's and the final agent's."""

    bc: list[float]
    agent: list[float]


class MethodScores(NamedTuple):
    """Scores of one method by task, one per seed."""

    name: str
    by_task: dict[str, list[float]]


def main() -> None:
    """Write the pages."""
    for path, text in pages().items():
        path.write_text(text)
        print(path.relative_to(ROOT))


def pages() -> dict[Path, str]:
    """Return the content of each page as it should be."""
    columns = method_scores(BUDGETS[0])
    sections = [INTRODUCTION, *filter(None, map(section, BUDGETS))]
    first = f"{BEGIN}\n{score_table(columns, seeds=False)}\n{END}"
    return {PAGE: "\n".join(sections)} | {path: _replaced(path.read_text(), first, path) for path in PAGES_WITH_TABLE}


def section(budget: Budget) -> str:
    """Return the tables of a budget; an empty text if nothing has been run with it."""
    columns = method_scores(budget)
    if not columns:
        return ""
    demos = f"{budget.demos} demonstration" + ("s" if budget.demos > 1 else "")
    return "\n".join(
        [
            f"## {demos}, {budget.steps:,} steps\n",
            score_table(columns),
            "",
            *(f"- {line}" for line in improvements(columns)),
            "",
            *([gain_table(budget), ""] if budget.demos == DEMOS and budget.steps > STEPS else []),
            file_table(budget),
            "",
        ]
    )


def method_scores(budget: Budget) -> list[MethodScores]:
    """Return the scores of BC and of every method with runs of this budget, on the tasks with runs of CDRED."""
    tasks = [task for task in TASKS if exported(task, "cdred", budget).exists()]
    columns = []
    for method, name in METHODS.items():
        done = [task for task in tasks if exported(task, method, budget).exists()]
        columns.append(MethodScores(name, {task: read_scores(task, method, budget).agent for task in done}))
    bc = MethodScores("BC", {task: read_scores(task, "cdred", budget).bc for task in tasks})
    return [column for column in (bc, *columns) if column.by_task]


def score_table(columns: list[MethodScores], *, seeds: bool = True) -> str:
    """Return a Markdown table: a row per task of the first column, and the IQM over the tasks that all columns have."""
    names = [column.name for column in columns]
    rows = [[task, *(_cell(column.by_task.get(task), seeds) for column in columns)] for task in columns[0].by_task]
    common = [task for task in columns[0].by_task if all(task in column.by_task for column in columns)]
    if len(common) > 1:
        scores = [[column.by_task[task] for task in common] for column in columns]
        rows.append([f"IQM, {len(common)} tasks", *map(_iqm_cell, scores)])
    return _markdown(["task", *names], rows)


def improvements(columns: list[MethodScores]) -> list[str]:
    """Return a line per other method: the probability that a seed of CDRED is better, its mean over common tasks."""
    cdred = next(column for column in columns if column.name == METHODS["cdred"]).by_task
    lines = []
    for name, scores in columns:
        pairs = [(cdred[task], scores[task]) for task in scores if task in cdred]
        if name != METHODS["cdred"] and pairs:
            interval = improvement_interval(pairs)
            shown = f"{interval[0]:.2f} to {interval[1]:.2f}" if interval else "no interval"
            tasks = f"{len(pairs)} task" + ("s" if len(pairs) > 1 else "")
            lines.append(f"P(CDRED better than {name}): {mean_improvement(pairs):.2f} ({shown}), {tasks}")
    return lines


def gain_table(budget: Budget) -> str:
    """Return a Markdown table of what more steps gain: a row per task, a column per method.

    The gain of a seed is its score after the steps of the budget minus that after `STEPS`, in points. Only the runs of
    the first seeds are compared; the interval in the last row is over the seeds of all tasks.
    """
    gains: dict[str, dict[str, list[float]]] = {}
    for method, name in METHODS.items():
        for task in TASKS:
            files = [exported(task, method, each) for each in (budget, Budget(budget.demos, STEPS))]
            if all(file.exists() for file in files):
                after, before = (_read_run_scores(file).agent for file in files)
                gains.setdefault(name, {})[task] = np.subtract(after, before).tolist()
    tasks = [task for task in TASKS if any(task in of_method for of_method in gains.values())]
    rows = [[task, *(_gain_cell(of_method.get(task)) for of_method in gains.values())] for task in tasks]
    pooled = [[gain for values in of_method.values() for gain in values] for of_method in gains.values()]
    heads = [f"{name}, {budget.steps:,} minus {STEPS:,} steps" for name in gains]
    return _markdown(["task", *heads], [*rows, ["mean", *map(_mean_gain_cell, pooled)]])


def file_table(budget: Budget) -> str:
    """Return a Markdown table of the runs: commit, what acts in the end per seed, files."""
    rows = []
    for task in TASKS:
        for method, name in METHODS.items():
            for file in result_files(task, method, budget):
                document = json.loads(file.with_suffix(".json").read_text())
                result, link = document["result"], file.relative_to(RESULTS)
                acts = " ".join(acting(document)).replace("pretrained", "BC")
                files = f"[csv]({link}) [json]({link.with_suffix('.json')})"
                shown_seeds = " ".join(map(str, result["seeds"]))
                rows.append([task, name, shown_seeds, acts, f"`{result['commit'][:7]}`", files])
    return _markdown(["task", "method", "seeds", "acts in the end", "commit", "files"], rows)


def read_scores(task: str, method: str, budget: Budget) -> Scores:
    """Read the exported runs of all seeds."""
    runs = [_read_run_scores(file) for file in result_files(task, method, budget)]
    return Scores([score for run in runs for score in run.bc], [score for run in runs for score in run.agent])


def result_files(task: str, method: str, budget: Budget) -> list[Path]:
    """Return the CSV files of the exported runs, that of the first seeds first; none if there is none of these."""
    first = exported(task, method, budget)
    return [first, *sorted(first.parent.glob(f"{first.stem}-seeds-*.csv"))] if first.exists() else []


def _read_run_scores(path: Path) -> Scores:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    document = json.loads(path.with_suffix(".json").read_text())
    reference, last = document["result"]["eval"], max(int(row["step"]) for row in rows)

    def score(row: dict[str, str]) -> float:
        if row["success"]:
            return float(row["success"])
        return normalized_score(float(row["return"]), reference["random_return"], reference["expert_return"])

    bc, agent = ([score(row) for row in rows if int(row["step"]) == step] for step in (0, last))
    # The pretrained policy was evaluated at step 0 in the episodes of the last evaluation.
    acts = zip(acting(document), bc, agent, strict=True)
    return Scores(bc, [before if name == CANDIDATES[PRETRAINED] else after for name, before, after in acts])


def acting(document: dict[str, Any]) -> list[str]:
    """Return what acts in the end, per seed, by today's rule.

    Runs that recorded no standard error chose the candidate of the most detected successes, however small its lead;
    where it is too small today, the pretrained policy acts.
    """
    selection, acted = document.get("selection"), document["result"]["acting"]
    if selection is None or "standard_error" in selection:
        return acted
    success = np.array([selection[f"{name}_detected_success"] for name in CANDIDATES])
    error = standard_error(success, document["config"]["pretrain"]["selection_episodes"])
    keeps_bc = choose_candidate(success, error) == PRETRAINED
    return [CANDIDATES[PRETRAINED] if keeps else name for keeps, name in zip(keeps_bc, acted, strict=True)]


def _cell(scores: list[float] | None, seeds: bool) -> str:
    if scores is None:
        return ""
    each = f" ({' '.join(map(_percent, scores))})" if seeds else ""
    return f"{_percent(float(np.mean(scores)))}{each}"


def _iqm_cell(scores_by_task: list[list[float]]) -> str:
    value, interval = iqm([score for scores in scores_by_task for score in scores]), bootstrap_interval(scores_by_task)
    shown = f" ({_percent(interval[0])} to {_percent(interval[1])})" if interval else ""
    return f"{_percent(value)}{shown}"


def _gain_cell(gains: list[float] | None) -> str:
    return "" if gains is None else f"{_points(float(np.mean(gains)))} ({' '.join(map(_points, gains))})"


def _mean_gain_cell(gains: list[float]) -> str:
    interval = mean_interval(gains)
    shown = f" ({_points(interval[0])} to {_points(interval[1])})" if interval else ""
    return f"{_points(float(np.mean(gains)))}{shown}"


def _points(difference: float) -> str:
    return f"{round(100 * difference):+d}"


def _percent(score: float) -> str:
    return str(round(100 * score))


def _markdown(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _replaced(text: str, table: str, path: Path) -> str:
    before, found_begin, rest = text.partition(BEGIN)
    _, found_end, after = rest.partition(END)
    if not (found_begin and found_end):
        raise SystemExit(f"{path} has no lines {BEGIN} and {END}, between which the table is written.")
    return before + table + after


if __name__ == "__main__":
    main()
