"""Runs of a page: what they are called, their state and their final scores."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from cdred.config import AlgoName, RunConfig, total_steps
from cdred.config_file import read_config
from cdred.errors import UserError
from cdred.loggers.alarms import Alarm, AlarmMonitor, split_by_seed
from cdred.loggers.progress import finite, mean
from cdred.report.results import RunResults, read_run

UNKNOWN = "unknown"
Scores = list[float | None]


@dataclass(frozen=True)
class Run:
    """A run on the page.

    Attributes:
        results: content of its folder.
        config: its settings; None if they cannot be read.
        config_problem: why they cannot be read; empty if they can.
        method: its name among the runs of its task.
        anchor: id of its section.
        style: number of the colour and marker of its method.
        folders: all of its folders, if it is several runs of different seeds (`seed_groups`); otherwise empty.
    """

    results: RunResults
    config: RunConfig | None
    config_problem: str
    method: str = ""
    anchor: str = ""
    style: int = 0
    folders: tuple[Path, ...] = ()

    @property
    def metadata(self) -> dict[str, Any]:
        """Content of `result.json`, or of `config.yaml` before the run has finished."""
        return self.results.metadata

    @property
    def task(self) -> str:
        """Name of its task, or of its folder."""
        return str(self.metadata.get("task") or self.results.folder.name)

    @property
    def algo(self) -> str:
        """Its algorithm."""
        return str(self.metadata.get("algo") or UNKNOWN)

    @cached_property
    def finished(self) -> bool:
        """It has a result."""
        return isinstance(self.metadata.get("eval"), dict)

    @property
    def planned_steps(self) -> int | None:
        """Steps per seed at which it ends; None if its settings cannot be read."""
        return total_steps(self.config) if self.config else None

    @property
    def state(self) -> str:
        """Its state in words, with its last step."""
        planned = f" of {self.planned_steps:,}" if self.planned_steps is not None else ""
        progress = f"step {self.results.last_step:,}{planned}"
        if not self.finished:
            return f"unfinished, {progress}"
        steps = self.metadata.get("steps")
        if self.planned_steps and isinstance(steps, int) and steps < self.planned_steps:
            return f"continued, {progress}; scores of step {steps:,}"
        return "finished"

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """Its seeds; counted from 0 if they are unknown."""
        lists = [
            len(v) for line in self.results.lines for k, v in line.items() if isinstance(v, list) and k != "non_finite"
        ]
        return tuple(self.metadata.get("seeds") or range(max(lists, default=0)))

    def scores(self, key: str) -> Scores:
        """Return a score of the final evaluation, `success`, `normalized` or `return`, per seed; None if unknown."""
        values = _list((self.metadata.get("eval") or {}).get(key))
        return [finite([value])[0] if finite([value]) else None for value in values]

    def reference(self, who: str, key: str) -> float | None:
        """Return a score of `expert` or `random`; a normalized one is 1 or 0 by definition."""
        if key == "normalized":
            return {"expert": 1.0, "random": 0.0}[who] if finite(self.scores(key)) else None
        known = finite([self.results.reference_scores.get(f"{who}_{key}")])
        return known[0] if known else None

    def pretrained(self, key: str) -> float | None:
        """Return the mean score of the pretrained policy; None if unknown, or if there was no pretraining."""
        if key != "normalized":
            return self.results.pretrained_score("episode_return" if key == "return" else key)
        low, high = (self.reference(who, "return") for who in ("random", "expert"))
        score = self.results.pretrained_score("episode_return")
        if low is None or high is None or score is None or high == low:
            return None
        return (score - low) / (high - low)

    @cached_property
    def alarms(self) -> list[tuple[int, str]]:
        """Steps and messages of the alarms that became active."""
        return self._monitored[0]

    @cached_property
    def active_alarms(self) -> list[tuple[int, Alarm]]:
        """Seeds and alarms that are active at the last report."""
        return self._monitored[1]

    @cached_property
    def _monitored(self) -> tuple[list[tuple[int, str]], list[tuple[int, Alarm]]]:
        monitor, messages = AlarmMonitor(self.seeds), []
        for line in self.diagnostics:
            rows = split_by_seed(line)
            if len(rows) == len(self.seeds):
                messages += [(line["step"], text) for text in monitor.update(line["step"], rows)]
        active = zip(self.seeds, monitor.active, strict=True)
        return messages, [(seed, alarm) for seed, alarms in active for alarm in alarms]

    @property
    def diagnostics(self) -> list[dict[str, Any]]:
        """Lines of diagnostics in the metrics file."""
        return [line for line in self.results.lines if line["kind"] == "diagnostics"]

    @cached_property
    def demos_record(self) -> dict[str, Any]:
        """Content of `demonstrations.json`; empty if it is missing or damaged."""
        try:
            record = json.loads((self.results.folder / "demonstrations.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return record if isinstance(record, dict) else {}


def _list(value: Any) -> list:
    return value if isinstance(value, list) else [] if value is None else [value]


def read_run_folders(folders: Iterable[Path]) -> list[Run]:
    """Read run folders.

    Raises:
        UserError: a folder is not that of a run, or its result or metrics are damaged.
    """
    return [_read(folder) for folder in folders]


def name_runs(runs: Sequence[Run]) -> list[Run]:
    """Give each run a name among those of its task, an anchor, and the style of its method.

    Methods are in the order of `AlgoName`, so that their colours do not depend on the order of the folders.
    """
    tasks = list(dict.fromkeys(run.task for run in runs))
    named = [(run, _method(run, runs)) for run in runs]
    rank = {algo: index for index, algo in enumerate(get_args(AlgoName))}
    methods = sorted({(rank.get(run.algo, len(rank)), method) for run, method in named})
    styles = {method: index for index, (_, method) in enumerate(methods)}
    named.sort(key=lambda pair: (tasks.index(pair[0].task), styles[pair[1]]))
    return [
        replace(run, method=method, anchor=f"run-{index}", style=styles[method])
        for index, (run, method) in enumerate(named, 1)
    ]


def _read(folder: Path) -> Run:
    results = read_run(folder)
    try:
        return Run(results, read_config(folder / "config.yaml"), "")
    except UserError as error:
        return Run(results, None, str(error))


def _method(run: Run, runs: Sequence[Run]) -> str:
    """Return the algorithm, with the folder's name if another run of the task has the same one."""
    equal = Counter((other.task, other.algo) for other in runs)
    if max(count for (_, algo), count in equal.items() if algo == run.algo) == 1:
        return run.algo
    folder = run.results.folder.resolve()
    rivals = [o for o in runs if o is not run and (o.task, o.algo) == (run.task, run.algo)]
    parts = 1
    while parts < len(folder.parts) and any(_tail(other, parts) == _tail(run, parts) for other in rivals):
        parts += 1
    tail = _tail(run, parts)
    return tail if run.algo in tail else f"{run.algo} · {tail}"


def _tail(run: Run, parts: int) -> str:
    return "/".join(run.results.folder.resolve().parts[-parts:])


def score_key(runs: Sequence[Run]) -> str:
    """Return the score by which runs of one task are compared: `success`, else `normalized`, else `return`."""
    for key, kinds in (("success", ("eval", "rollout")), ("normalized", ())):
        if any(finite(run.scores(key)) or any(len(run.results.series(kind, key)) for kind in kinds) for run in runs):
            return key
    return "return"


def last_evaluation(run: Run, key: str) -> float | None:
    """Return the mean over the seeds of the last evaluation during training; None if unknown or normalized."""
    series = run.results.series("eval", "episode_return" if key == "return" else key)
    return mean(finite(series.values[-1].tolist())) if len(series) else None
