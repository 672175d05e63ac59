"""Methods beside each other on one task: who comes how close to the expert, how surely, and at what cost."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cdred.report import plots
from cdred.report.plots import INK, PALETTE, QUIET, Label
from cdred.report.results import Record, read_record, read_result
from cdred.report.statistics import bootstrap_interval, iqm, probability_of_improvement

COLUMNS = (
    "method",
    "{outcome} per seed",
    "mean",
    "normalized return, IQM (95 % interval)",
    "gradient norm, mean / max",
    "{first} better",
    "minutes",
)
MISSING = "–"


def write_comparison(folder: Path, runs: Mapping[str, Path]) -> str:
    """Write `table.md`, `table.json` and `curves.png` of finished runs on one task; returns the table.

    Args:
        folder: where they go.
        runs: per method, its run folder; the first is the one that the others are held against.

    Raises:
        UserError: a run has no readable result.
    """
    records = {name: read_record(run) for name, run in runs.items()}
    results = {name: read_result(run) for name, run in runs.items()}
    rows = [_row(name, results, records[name]) for name in runs]
    table = _markdown(results, rows)
    (folder / "table.md").write_text(table)
    about = next(iter(results.values()))
    shared = {key: about.get(key) for key in ("task", "preset", "steps", "demos", "seeds", "device", "commit")}
    (folder / "table.json").write_text(json.dumps(shared | {"methods": rows}, indent=1) + "\n")
    _curves(records).savefig(folder / "curves.png", dpi=100)
    return table


def _row(name: str, results: Mapping[str, dict[str, Any]], record: Record) -> dict[str, Any]:
    scores, first = results[name]["eval"], next(iter(results.values()))["eval"]
    own = [one for one in scores.get("normalized") or [] if one is not None]
    return {
        "method": name,
        "success": scores["success"],
        "return": scores["return"],
        "normalized": own or None,
        "iqm": iqm(own) if own else None,
        "interval": bootstrap_interval([own]) if own else None,
        "gradient_norm_mean": _statistic(record, "grad_norm", np.nanmean),
        "gradient_norm_max": _statistic(record, "grad_norm_max", np.nanmax),
        "probability_first_is_better": None
        if results[name]["eval"] is first
        else probability_of_improvement(first["return"], scores["return"]),
        "episodes": scores["episodes"],
        "wall_seconds": results[name]["wall_seconds"],
    }


def _statistic(record: Record, key: str, reduce) -> float | None:
    values = record.series("train", key).values
    return float(reduce(values)) if np.isfinite(values).any() else None


def _markdown(results: Mapping[str, dict[str, Any]], rows: list[dict[str, Any]]) -> str:
    about = next(iter(results.values()))
    known = {who: about["eval"].get(f"{who}_success") for who in ("expert", "random")}
    levels = [f"{who} {100 * rate:.0f} %" for who, rate in known.items() if rate is not None]
    outcome = "return" if rows[0]["success"] is None else "success"
    heads = [column.format(first=rows[0]["method"], outcome=outcome) for column in COLUMNS]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *(_cells(row) for row in rows)]
    return "\n".join(
        [
            f"{about['task']}, preset {about['preset']}, {about['demos']} demonstrations, {about['steps']:,}"
            f" steps and {rows[0]['episodes']} fresh episodes per seed{'; success of ' * bool(levels)}"
            f"{', '.join(levels)}.",
            "",
            *(f"| {' | '.join(line)} |" for line in lines),
            "",
        ]
    )


def _cells(row: dict[str, Any]) -> list[str]:
    interval, mean, most = row["interval"], row["gradient_norm_mean"], row["gradient_norm_max"]
    better = row["probability_first_is_better"]
    rates = row["success"] is not None
    told = [f"{100 * one:.0f} %" if rates else f"{one:.0f}" for one in row["success"] or row["return"]]
    middle = np.mean(row["success"] or row["return"])
    return [
        row["method"],
        ", ".join(told),
        f"**{100 * middle:.0f} %**" if rates else f"**{middle:.0f}**",
        f"{row['iqm']:.2f} ({interval[0]:.2f} to {interval[1]:.2f})" if interval else MISSING,
        f"{mean:.2g} / {most:.2g}" if mean is not None and most is not None else MISSING,
        MISSING if better is None else f"{better:.2f}",
        f"{row['wall_seconds'] / 60:.0f}",
    ]


def _curves(records: Mapping[str, Record]) -> Figure:
    """Evaluations against steps, a ring per seed; success where the task knows it, and the return."""
    first = next(iter(records.values()))
    kinds = [("success", "success", "Success")] if len(first.series("eval", "success")) else []
    kinds.append(("episode_return", "return", "Return"))
    # The margins are for words, which take the same room beside one panel as beside two.
    width, left, right = 8.5 * len(kinds), 0.75, 1.55
    figure = Figure(figsize=(width, 6), facecolor="white")
    figure.text(left / width, 0.93, first.about.get("task", ""), size=19, weight="bold", color=INK)
    grid = figure.add_gridspec(
        1, len(kinds), left=left / width, right=1 - right / width, top=0.76, bottom=0.11, wspace=0.35
    )
    last = max(record.last_step for record in records.values())
    for column, (key, level, title) in enumerate(kinds):
        axes = figure.add_subplot(grid[0, column])
        plots.panel(axes, title, "evaluations; rings: seeds, line: their mean", last)
        if key == "success":
            plots.percent(axes)
        else:
            plots.thousands(axes)
        ends = []
        for colour, (name, record) in zip(PALETTE, records.items(), strict=False):
            series = record.series("eval", key)
            ends.append(Label(plots.points(axes, series, colour), name, colour))
            if len(series):
                axes.plot(series.steps, plots.mean_over_seeds(series.values), color=colour, linewidth=2)
        for who, style in (("expert", "--"), ("random", ":")):
            value = first.levels.get(f"{who}_{level}")
            plots.level(axes, value, style)
            ends.append(Label(value, who, QUIET))
        plots.name_ends(axes, ends)
    return figure
