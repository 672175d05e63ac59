"""Report of one or more runs as one HTML page that needs no other file and no network."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from xml.etree.ElementTree import Element

from cdred.files import atomic_write_text, format_mib
from cdred.loggers.progress import finite
from cdred.report.html.chart import Chart, Curve, Level, draw_chart
from cdred.report.html.dot_plot import Row, draw_dot_plot
from cdred.report.html.elements import document, element
from cdred.report.html.panels import figure_grid, reference_levels
from cdred.report.html.run_section import PARTS, run_section
from cdred.report.html.runs import UNKNOWN, Run, score_key
from cdred.report.html.scale import MAX_POINTS
from cdred.report.html.seed_groups import read_runs
from cdred.report.html.summary import (
    SCORE_NAMES,
    by_task,
    differences,
    matrix,
    method_link,
    runs_table,
    show,
    task_table,
)
from cdred.report.html.theme import style_sheet
from cdred.report.html.videos import MAX_BYTES, Videos
from cdred.text import plural

# Largest number of runs with open details.
MAX_EXPANDED = 2


def write_html(page: Path, folders: Iterable[Path]) -> Path:
    """Write the page of some runs and return its path. The run folders are only read.

    Raises:
        UserError: a folder is not that of a run, or it is damaged.
    """
    runs = read_runs(folders)
    text = render(runs, Videos(page))
    page.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(page, text)
    return page


def render(runs: Sequence[Run], videos: Videos) -> str:
    """Return the page as HTML."""
    title = _title(runs)
    script = (files("cdred.report.html") / "script.js").read_text(encoding="utf-8")
    head = element("header", element("h1", title), element("p", _subtitle(runs), class_="intro"), class_="page")
    sections = _single(runs[0], videos) if len(runs) == 1 else _several(runs, videos)
    main = element("main", sections, id="content")
    skip = element("a", "Skip to the content", href="#content", class_="skip")
    layout = element("div", _contents(runs), main, class_="layout")
    return document(title, style_sheet(), script, skip, head, layout, _footer())


def _title(runs: Sequence[Run]) -> str:
    if len(runs) == 1:
        return f"{runs[0].task} · {runs[0].method}"
    tasks = list(by_task(runs))
    return tasks[0] if len(tasks) == 1 else f"{len(runs)} runs on {len(tasks)} tasks"


def _subtitle(runs: Sequence[Run]) -> str:
    if len(runs) == 1:
        return runs[0].state.capitalize()
    methods, unfinished = {run.method for run in runs}, sum(not run.finished for run in runs)
    parts = [plural(len(runs), "run"), plural(len(methods), "method")]
    return " · ".join([*parts, f"{unfinished} unfinished" if unfinished else "all finished"])


def _single(run: Run, videos: Videos) -> list[Element]:
    return [run_section(run, videos, alone=True, expanded=True)]


def _several(runs: Sequence[Run], videos: Videos) -> list[Element]:
    tasks, expanded = by_task(runs), len(runs) <= MAX_EXPANDED
    summary = [element("h2", "Summary")]
    if len(tasks) > 1:
        every = element("details", element("summary", f"All {len(runs)} runs"), runs_table(runs), class_="every")
        summary += [matrix(runs), _reading(runs), every]
    for index, (task, of_task) in enumerate(tasks.items(), 1):
        summary.append(_task_section(task, of_task, f"task-{index}", alone=len(tasks) == 1))
    sections = [run_section(run, videos, alone=False, expanded=expanded) for run in runs]
    return [
        element("section", summary, id="summary"),
        element("section", element("h2", "Runs"), sections, id="runs"),
    ]


def _reading(runs: Sequence[Run]) -> Element:
    first = min(runs, key=lambda run: run.style)
    return element(
        "p",
        "IQM: interquartile mean over the seeds of all tasks that a method has been run on (0: random agent, 1: "
        f"expert). P: probability that a seed of {first.method} has the higher return, ties counting half, over the "
        "tasks of both. Intervals are 95 % bootstrap intervals over seeds; tasks are not resampled. Methods that were "
        "run on other tasks cannot be compared by IQM.",
        class_="quiet reading",
    )


def _task_section(task: str, runs: Sequence[Run], anchor: str, *, alone: bool) -> Element:
    key, different = score_key(runs), differences(runs)
    warning = element("p", "These runs differ in ", "; ".join(different), ".", class_="warnings") if different else None
    heading = None if alone else element("h3", task)
    figures = figure_grid([*_dots(runs), *map(draw_chart, _curves(runs))], "large")
    return element("section", heading, task_table(runs, key), warning, figures, id=anchor, class_="task")


def _levels(runs: Sequence[Run], key: str) -> list[Level]:
    """Return the reference scores of the first run that knows them, and that of the first pretrained policy."""
    levels = [level for run in runs for level in (*reference_levels(run, key), Level("BC", run.pretrained(key)))]
    known = {level.name: level for level in reversed(levels) if level.value is not None}
    return [known[name] for name in ("expert", "random", "BC") if name in known]


def _dots(runs: Sequence[Run]) -> list[Element]:
    """Draw the final scores of finished runs: success, where it is reported, and normalized return or return."""
    keys = [key for key in SCORE_NAMES if any(finite(run.scores(key)) for run in runs)]
    return [_dot_plot(runs, key) for key in keys if key != "return" or "normalized" not in keys]


def _dot_plot(runs: Sequence[Run], key: str) -> Element:
    rows = [
        Row(run.method, run.style, run.scores(key), UNKNOWN if run.finished else run.state.removeprefix("unfinished, "))
        for run in runs
    ]
    return draw_dot_plot(f"Final {SCORE_NAMES[key]}", rows, _levels(runs, key), show(key), percent=key == "success")


def _curves(runs: Sequence[Run]) -> list[Chart]:
    charts, last_step = [], max(run.results.last_step for run in runs)
    for title, key, reference in (("Success", "success", "success"), ("Return", "episode_return", "return")):
        curves = [
            Curve(run.method, run.results.series("eval", key), run.style, points=True, joined=True) for run in runs
        ]
        chart = Chart(
            f"{title} during training",
            "evaluations; small: seeds, line: their mean",
            curves,
            _levels(runs, reference),
            last_step,
            percent=key == "success",
            width=460,
            height=300,
        )
        if chart.known or key != "success":
            charts.append(chart)
    return charts


def _contents(runs: Sequence[Run]) -> Element:
    """Return the table of contents."""
    items: list[Element] = []
    if len(runs) == 1:
        items = [_item(title, f"{runs[0].anchor}-{key}") for key, title in PARTS.items()]
        items.insert(0, _item("Scores", runs[0].anchor))
    else:
        items.append(_item("Summary", "summary"))
        for index, (task, of_task) in enumerate(by_task(runs).items(), 1):
            links = [element("li", method_link(run)) for run in of_task]
            items.append(element("li", element("a", task, href=f"#task-{index}"), element("ul", links)))
    return element("nav", element("strong", "Contents"), element("ul", items), aria_label="Contents", class_="contents")


def _item(name: str, anchor: str) -> Element:
    return element("li", element("a", name, href=f"#{anchor}"))


def _footer() -> Element:
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return element(
        "footer",
        element(
            "p",
            f"Made by cdred {version('cdred')}, {made}. This page loads nothing. A line has at most {MAX_POINTS} "
            "points: of longer ones, each bin of reports keeps its lowest and its highest value. Embedded videos are "
            f"at most {format_mib(MAX_BYTES)} together. A dash, or “{UNKNOWN}”, is a value that was not recorded.",
        ),
    )
