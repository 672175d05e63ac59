"""Runs that differ in their seeds alone, as the groups of seeds of a sweep, shown as one run with all of these seeds.

The results of a seed do not depend on which seeds are trained together.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cdred.report.html.runs import Run, name_runs, read_run_folders
from cdred.report.results import RunResults

# Entries of `result.json` with a value per seed, beside the lists in `eval`.
PER_SEED = ("seeds", "divergence_restarts", "acting")
Key = tuple[int, str, int]


def read_runs(folders: Iterable[Path]) -> list[Run]:
    """Read run folders, merge what differs in seeds alone, and name the runs (`name_runs`).

    Raises:
        UserError: a folder is not that of a run, or its result or metrics are damaged.
    """
    return name_runs(merge_seed_groups(read_run_folders(folders)))


def merge_seed_groups(runs: Sequence[Run]) -> list[Run]:
    """Merge finished runs with equal settings, demonstrations, steps and commit, and different seeds."""
    groups: dict[Hashable, list[Run]] = {}
    for index, run in enumerate(runs):
        key = _identity(run)
        known = {seed for other in groups.get(key, []) for seed in other.seeds}
        groups.setdefault(index if key is None or known & {*run.seeds} else key, []).append(run)
    return [_merge(sorted(group, key=lambda run: run.seeds)) for group in groups.values()]


def _identity(run: Run) -> Hashable:
    """Return what runs have in common that are merged; None for a run that is not."""
    if run.config is None or not run.finished:
        return None
    data, demos = run.metadata, run.demos_record.get("sha256")
    return replace(run.config, out="", seeds=()), str(demos), str(data.get("steps")), str(data.get("commit"))


def _merge(group: Sequence[Run]) -> Run:
    first = group[0]
    if len(group) == 1 or first.config is None:
        return first
    seeds = tuple(seed for run in group for seed in run.seeds)
    results = RunResults(first.results.folder, _merged_lines(group), _merged_metadata(group))
    folders = tuple(run.results.folder for run in group)
    return replace(first, results=results, config=replace(first.config, seeds=seeds), folders=folders)


def _merged_metadata(group: Sequence[Run]) -> dict[str, Any]:
    data = dict(group[0].metadata)
    data |= {key: _concatenated([run.metadata.get(key) for run in group], group) for key in PER_SEED if key in data}
    evaluation = data["eval"]
    data["eval"] = evaluation | {
        key: _concatenated([run.metadata["eval"].get(key) for run in group], group)
        for key, value in evaluation.items()
        if isinstance(value, list)
    }
    times = [time for run in group if isinstance(time := run.metadata.get("wall_seconds"), (int, float))]
    data["wall_seconds"] = sum(times) if len(times) == len(group) else None
    return data


def _merged_lines(group: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the lines of all runs by step, kind and repetition; what a run does not report there is unknown."""
    by_run = [_keyed_lines(run) for run in group]
    keys = sorted({key for lines in by_run for key in lines}, key=lambda key: key[0])
    return [_merged_line([lines.get(key, {}) for lines in by_run], group) for key in keys]


def _keyed_lines(run: Run) -> dict[Key, dict[str, Any]]:
    seen: Counter[tuple[int, str]] = Counter()
    lines = {}
    for line in run.results.lines:
        place = line["step"], line["kind"]
        lines[(*place, seen[place])] = line
        seen[place] += 1
    return lines


def _merged_line(parts: Sequence[dict[str, Any]], group: Sequence[Run]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        values = [part.get(name) for part in parts]
        per_seed = any(isinstance(v, list) and len(v) == len(run.seeds) for v, run in zip(values, group, strict=True))
        merged[name] = _concatenated(values, group) if per_seed else next((v for v in values if v is not None), None)
    return merged


def _concatenated(values: Sequence[Any], group: Sequence[Run]) -> list[Any]:
    """Return the values of all seeds, None for those of a run without a value per seed."""
    return [
        item
        for value, run in zip(values, group, strict=True)
        for item in (value if isinstance(value, list) and len(value) == len(run.seeds) else [None] * len(run.seeds))
    ]
