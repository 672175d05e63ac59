"""Live dashboard of a run: header, progress bar, and a table with one column per seed."""

import math
from collections.abc import Callable, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cdred.loggers.progress import (
    MISSING,
    Formatter,
    Progress,
    Values,
    finite,
    format_duration,
    format_number,
    format_percent,
    mean,
    sparkline,
)

# Widths in terminal columns.
MARGIN, GAP = 2, 3
LABEL, WITH_CURVE, NUMBER, REFERENCE = 20, 15, 9, 7
QUIET, HEADING, ACCENT, DONE, ALARM = "bright_black", "bold", "cyan", "green", "bold red"
REWARDS = {"on expert data": "reward_expert", "on agent data": "reward_agent"}
LOSSES = {
    "dynamics": "consistency_loss",
    "critic": "critic_loss",
    "reward": "reward_loss",
    "policy": "policy_loss",
    "gradient norm": "grad_norm",
}

ReduceSeeds = Callable[[Values], Values]


def render(progress: Progress, width: int) -> RenderableType:
    """Render the dashboard to fit `width` terminal columns."""
    rows = (_header(progress), Elapsed(progress), _bar(progress, width), Text(), _table(progress, width))
    return Padding(Group(*rows), (1, MARGIN, 0, MARGIN))


class Elapsed:
    """Clock of a run, right whenever it is drawn; everything else is as of the last report."""

    def __init__(self, progress: Progress):
        self._progress = progress

    def __rich__(self) -> Text:
        return Text(f"running for {format_duration(self._progress.elapsed)}", QUIET)


def _header(progress: Progress) -> Text:
    first, *others = progress.title.split(" · ")
    return Text.assemble((first, HEADING), *((f"  ·  {part}", QUIET) for part in others))


def _bar(progress: Progress, width: int) -> Table:
    speed = progress.scalar("train", "steps_per_second")
    done = f"{format_percent(progress.fraction)}   {progress.step:,} of {progress.total:,} steps"
    pace = f"   {format_number(speed)}/s   {progress.time_left}" if speed is not None else ""
    bar = ProgressBar(
        total=progress.total,
        completed=progress.step,
        width=max(8, min(40, width - len(done) - len(pace) - 6)),
        style="grey23",
        complete_style=ACCENT,
        finished_style=DONE,
    )
    row = Table.grid(padding=(0, 2))
    row.add_row(bar, Text.assemble(done, (pace, QUIET)))
    return row


def _table(progress: Progress, width: int) -> Table:
    names, column, reduce = _columns(len(progress.seeds), width)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style=QUIET, border_style="grey23")
    table.add_column("", width=LABEL)
    for name in names or [f"seed {seed}" for seed in progress.seeds]:
        table.add_column(name, justify="right", width=column)
    for name in ("expert", "random"):
        table.add_column(name, justify="right", width=REFERENCE, style=QUIET)
    evaluation = "Evaluation" if progress.eval_step is None else f"Evaluation @ {progress.eval_step:,}"
    _add_scores(table, "Rollouts", progress, "rollout", reduce, with_curve=column == WITH_CURVE)
    _add_scores(table, evaluation, progress, "eval", reduce)
    _add_train_metrics(table, "Learned reward", progress, REWARDS, reduce)
    _add_train_metrics(table, "Losses", progress, LOSSES, reduce)
    _add_diagnostics(table, progress, per_seed=reduce is list)
    return table


def _columns(num_seeds: int, width: int) -> tuple[list[str], int, ReduceSeeds]:
    """Choose names, width and content of the value columns.

    Without names, there is one column per seed, with a curve if it fits. Where the plain numbers of all seeds do not
    fit, the columns are mean, minimum and maximum over the seeds.
    """
    available = width - 2 * MARGIN - LABEL - 2 * (REFERENCE + GAP)
    for column in (WITH_CURVE, NUMBER):
        if num_seeds * (column + GAP) <= available:
            return [], column, list
    names = ["mean", "lowest", "highest"][: max(1, available // (NUMBER + GAP))]
    return names, NUMBER, lambda values: _summary(values)[: len(names)]


def _summary(values: Values) -> Values:
    known = finite(values)
    return [mean(known), min(known, default=None), max(known, default=None)]


def _add_scores(
    table: Table, title: str, progress: Progress, kind: str, reduce: ReduceSeeds, with_curve: bool = False
) -> None:
    """Add rows of success and return, with the reference scores of the expert and a random policy."""
    _add_heading(table, title)
    rows: list[tuple[str, str, str, Formatter]] = [("return", "episode_return", "return", format_number)]
    if progress.has_success:
        rows.insert(0, ("success", "success", "success", format_percent))
    for label, key, reference_key, formatter in rows:
        references = [progress.reference.get(f"{who}_{reference_key}") for who in ("expert", "random")]
        values = progress.recent_rollouts(key) if kind == "rollout" else progress.per_seed(kind, key)
        cells = [_cell(value, formatter) for value in reduce(values)]
        if with_curve:
            curves = _curves(progress.history(key), (0.0, 1.0) if label == "success" else None)
            cells = [Text.assemble((curve, ACCENT), " ", cell) for curve, cell in zip(curves, cells, strict=True)]
        table.add_row(f"  {label}", *cells, *(_cell(value, formatter) for value in references))


def _add_train_metrics(table: Table, title: str, progress: Progress, keys: dict[str, str], reduce: ReduceSeeds) -> None:
    _add_heading(table, title)
    for label, key in keys.items():
        values = reduce(progress.per_seed("train", key))
        table.add_row(f"  {label}", *(_cell(value, format_number) for value in values))


def _add_diagnostics(table: Table, progress: Progress, per_seed: bool) -> None:
    """Add each seed's first active alarm or, in reduced columns, the number of seeds with an active alarm."""
    if not progress.latest["diagnostics"]:
        return
    names = [alarms[0].name if alarms else "" for alarms in progress.alarm_monitor.active]
    texts = names if per_seed else [f"{sum(map(bool, names))} alarms" if any(names) else ""]
    _add_heading(table, "Diagnostics")
    table.add_row("  alarm", *(Text(text, style=ALARM) if text else Text("none", style=DONE) for text in texts))


def _add_heading(table: Table, title: str) -> None:
    if table.row_count:
        table.add_row()
    table.add_row(Text(title, style=HEADING, no_wrap=True))


def _curves(histories: Sequence[list[float]], limits: tuple[float, float] | None) -> list[str]:
    """Return a sparkline per seed, on one scale so that seeds can be compared."""
    values = [value for history in histories for value in history] or [0.0]
    low, high = limits or (min(values), max(values))
    return [sparkline(history, low, high) for history in histories]


def _cell(value: float | None, formatter: Formatter) -> Text:
    if value is None:
        return Text(MISSING, style=QUIET)
    return Text(formatter(value), style="" if math.isfinite(value) else ALARM)
