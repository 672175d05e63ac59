"""The live picture of a run: a header, a progress bar, and one column per seed."""

import math
from collections.abc import Callable, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cdred.loggers.progress import MISSING, Form, Progress, Values, duration, finite, mean, number, ratio, sparkline

MARGIN, GAP = 2, 3
LABEL, WITH_CURVE, NUMBER, REFERENCE = 20, 15, 9, 7
QUIET, HEADING, ACCENT, DONE, ALARM = "bright_black", "bold", "cyan", "green", "bold red"
REWARDS = {"on expert data": "reward_expert", "on own data": "reward_agent"}
LOSSES = {
    "dynamics": "consistency_loss",
    "critic": "critic_loss",
    "reward": "reward_loss",
    "policy": "policy_loss",
    "gradient norm": "grad_norm",
}

Fold = Callable[[Values], Values]


def render(progress: Progress, width: int) -> RenderableType:
    """Everything known about the run, to fit `width` terminal columns."""
    return Padding(
        Group(_header(progress), _bar(progress, width), Text(), _table(progress, width)), (1, MARGIN, 0, MARGIN)
    )


def _header(progress: Progress) -> Text:
    first, *others = progress.title.split(" · ")
    return Text.assemble((first, HEADING), *((f"  ·  {part}", QUIET) for part in others))


def _bar(progress: Progress, width: int) -> Table:
    speed = progress.scalar("train", "steps_per_second")
    said = f"{ratio(progress.fraction)}   {progress.step:,} of {progress.total:,} steps"
    paced = f"   {number(speed)}/s   {duration(progress.eta)} left" if speed is not None else ""
    bar = ProgressBar(
        total=progress.total,
        completed=progress.step,
        width=max(8, min(40, width - len(said) - len(paced) - 6)),
        style="grey23",
        complete_style=ACCENT,
        finished_style=DONE,
    )
    row = Table.grid(padding=(0, 2))
    row.add_row(bar, Text.assemble(said, (paced, QUIET)))
    return row


def _table(progress: Progress, width: int) -> Table:
    names, column, fold = _columns(len(progress.seeds), width)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style=QUIET, border_style="grey23")
    table.add_column("", width=LABEL)
    for name in names or [f"seed {seed}" for seed in progress.seeds]:
        table.add_column(name, justify="right", width=column)
    for name in ("expert", "random"):
        table.add_column(name, justify="right", width=REFERENCE, style=QUIET)
    evaluation = "Evaluation" if progress.eval_step is None else f"Evaluation @ {progress.eval_step:,}"
    _outcomes(table, "Exploring", progress, "rollout", fold, with_curve=column == WITH_CURVE)
    _outcomes(table, evaluation, progress, "eval", fold)
    _learning(table, "Learned reward", progress, REWARDS, fold)
    _learning(table, "Losses", progress, LOSSES, fold)
    _health(table, progress, in_full=fold is list)
    return table


def _columns(seeds: int, width: int) -> tuple[list[str], int, Fold]:
    """Names, width and content of the value columns: without names, one per seed, with a curve if there is room.

    Where not even bare numbers of every seed fit, the columns are the mean and the extremes over the seeds.
    """
    room = width - 2 * MARGIN - LABEL - 2 * (REFERENCE + GAP)
    for column in (WITH_CURVE, NUMBER):
        if seeds * (column + GAP) <= room:
            return [], column, list
    names = ["mean", "lowest", "highest"][: max(1, room // (NUMBER + GAP))]
    return names, NUMBER, lambda values: _summary(values)[: len(names)]


def _summary(values: Values) -> Values:
    known = finite(values)
    return [mean(known), min(known, default=None), max(known, default=None)]


def _outcomes(table: Table, title: str, progress: Progress, kind: str, fold: Fold, with_curve: bool = False) -> None:
    """Rows of success and return, beside what the expert and a random agent reach."""
    _heading(table, title)
    rows: list[tuple[str, str, str, Form]] = [("return", "episode_return", "return", number)]
    if progress.has_success:
        rows.insert(0, ("success", "success", "success", ratio))
    for label, key, level, form in rows:
        levels = [progress.reference.get(f"{who}_{level}") for who in ("expert", "random")]
        values = progress.exploring(key) if kind == "rollout" else progress.per_seed(kind, key)
        cells = [_cell(value, form) for value in fold(values)]
        if with_curve:
            curves = _curves(progress.history(key), (0.0, 1.0) if label == "success" else None)
            cells = [Text.assemble((curve, ACCENT), " ", cell) for curve, cell in zip(curves, cells, strict=True)]
        table.add_row(f"  {label}", *cells, *(_cell(value, form) for value in levels))


def _learning(table: Table, title: str, progress: Progress, keys: dict[str, str], fold: Fold) -> None:
    _heading(table, title)
    for label, key in keys.items():
        table.add_row(f"  {label}", *(_cell(value, number) for value in fold(progress.per_seed("train", key))))


def _health(table: Table, progress: Progress, in_full: bool) -> None:
    """Each seed's first alarm; where there is no room for the seeds, how many of them have one."""
    if not progress.latest["diagnostics"]:
        return
    names = [alarms[0].name if alarms else "" for alarms in progress.watch.active]
    told = names if in_full else [f"{sum(map(bool, names))} alarms" if any(names) else ""]
    _heading(table, "Health")
    cells = [Text(name, style=ALARM) if name else Text("good", style=DONE) for name in told]
    table.add_row("  alarm", *cells)


def _heading(table: Table, title: str) -> None:
    if table.row_count:
        table.add_row()
    table.add_row(Text(title, style=HEADING, no_wrap=True))


def _curves(histories: Sequence[list[float]], limits: tuple[float, float] | None) -> list[str]:
    """A sparkline per seed, on one scale so that the seeds can be compared."""
    everything = [value for history in histories for value in history] or [0.0]
    low, high = limits or (min(everything), max(everything))
    return [sparkline(history, low, high) for history in histories]


def _cell(value: float | None, form: Form) -> Text:
    if value is None:
        return Text(MISSING, style=QUIET)
    return Text(form(value), style="" if math.isfinite(value) else ALARM)
