"""Tables of final scores: tasks x methods, the methods on one task, and all runs."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

from cdred.loggers.progress import MISSING, finite, format_number, format_percent, mean
from cdred.report.html.elements import Child, element, table
from cdred.report.html.runs import UNKNOWN, Run, score_key
from cdred.report.html.theme import marker_path, style_class
from cdred.report.statistics import (
    Interval,
    bootstrap_interval,
    improvement_interval,
    iqm,
    mean_improvement,
    probability_of_improvement,
)
from cdred.text import plural

SCORE_NAMES = {"success": "success", "normalized": "normalized return", "return": "return"}
# Settings that the runs of a comparison should share.
SHARED = ("steps", "demos", "preset", "seeds", "commit")


class Estimate(NamedTuple):
    """A statistic with its 95 % interval; None for what is unknown.

    The interval covers the choice of seeds: there is none where a task has one seed.
    """

    value: float | None
    interval: Interval | None = None

    def __str__(self) -> str:
        return _two_digits(self.value) + (f" ({self.shown_interval})" if self.interval else "")

    @property
    def shown_interval(self) -> str | None:
        """The interval in words; None without one."""
        return f"{_two_digits(self.interval[0])} to {_two_digits(self.interval[1])}" if self.interval else None


def normalized_iqm(runs: Sequence[Run]) -> Estimate:
    """Return the interquartile mean of the normalized return over the seeds of all runs."""
    scores = [known for run in runs if (known := finite(run.scores("normalized")))]
    if not scores:
        return Estimate(None)
    return Estimate(iqm([score for known in scores for score in known]), bootstrap_interval(scores))


def improvement(pairs: Sequence[tuple[Run, Run]]) -> Estimate:
    """Return the probability that a seed of the first run of a pair has a higher return, as a mean over the pairs."""
    returns = [(finite(first.scores("return")), finite(second.scores("return"))) for first, second in pairs]
    known = [(x, y) for x, y in returns if x and y]
    if not known:
        return Estimate(None)
    return Estimate(mean_improvement(known), improvement_interval(known))


def show(key: str) -> Callable[[float | None], str]:
    """Return the formatter of a score; unknown scores are a dash."""
    return {"success": format_percent, "normalized": _two_digits, "return": format_number}[key]


def _two_digits(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2f}".replace("-", "−")


def swatch(run: Run) -> Element:
    """Return the marker of a run's method in its colour."""
    path = element("path", d=marker_path(run.style, 7, 7, 4.4), class_=f"mark {style_class(run.style)}")
    return element("svg", path, viewBox="0 0 14 14", width=14, height=14, aria_hidden="true", class_="swatch")


def method_link(run: Run) -> Element:
    """Return the name of a run's method, linked to its section."""
    return element("a", swatch(run), run.method, href=f"#{run.anchor}", class_="method")


def per_seed(run: Run, key: str) -> str:
    """Return a score of each seed, short."""

    def short(score: float) -> str:
        return f"{100 * score:.0f}" if key == "success" else show(key)(score)

    texts = (MISSING if score is None else short(score) for score in run.scores(key))
    return " · ".join(texts)


def by_task(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs of each task, in their order."""
    return {task: [run for run in runs if run.task == task] for task in dict.fromkeys(run.task for run in runs)}


def matrix(runs: Sequence[Run]) -> Element:
    """Return the table of tasks x methods, with the scores of expert, random agent and pretrained policy.

    Below the tasks are statistics over them.
    """
    tasks = by_task(runs)
    methods = list({run.method: run for run in sorted(runs, key=lambda run: run.style)}.values())
    heads = ["task", *([swatch(run), run.method] for run in methods), "pretrained (BC)"]
    rows = [_matrix_row(task, of_task, methods, f"#task-{i}") for i, (task, of_task) in enumerate(tasks.items(), 1)]
    pooled = {run.method: [other for other in runs if other.method == run.method] for run in methods}
    rows.append(_pooled_row("normalized return, IQM (95 % interval)", pooled, normalized_iqm))
    if len(methods) > 1:
        first = {run.task: run for run in pooled[methods[0].method]}
        rows.append(
            _pooled_row(
                f"P({methods[0].method} better) by return (95 % interval)",
                {name: of for name, of in pooled.items() if name != methods[0].method},
                lambda of: improvement([(first[run.task], run) for run in of if run.task in first]),
                [methods[0].method],
            )
        )
    caption = "Final scores: mean over the seeds, below it each seed. Bold: the highest mean of a task."
    return table(caption, heads, rows, "matrix")


def _matrix_row(task: str, runs: Sequence[Run], methods: Sequence[Run], anchor: str) -> list[Element]:
    key = score_key(runs)
    found = {run.method: run for run in runs}
    means = {name: mean(finite(run.scores(key))) for name, run in found.items()}
    best = max(finite(means.values()), default=None)
    cells = [
        _score_cell(found.get(run.method), key, means.get(run.method), best if len(found) > 1 else None)
        for run in methods
    ]
    shown = show(key)
    levels = [f"{who} {_range([run.reference(who, key) for run in runs], shown)}" for who in ("expert", "random")]
    parts = [element("span", text) for text in (f"{levels[0]}, ", levels[1])]
    notes = (element("small", SCORE_NAMES[key]), element("small", parts))
    name = element("th", element("a", task, href=anchor), notes, scope="row")
    return [name, *cells, element("td", _range([run.pretrained(key) for run in runs], shown), class_="quiet")]


def _score_cell(run: Run | None, key: str, score: float | None, best: float | None) -> Element:
    if run is None:
        return element("td", element("span", "not run", class_="quiet"))
    if score is None:
        return element(
            "td", element("a", UNKNOWN if run.finished else run.state, href=f"#{run.anchor}", class_="state")
        )
    text = element("strong" if score == best else "span", show(key)(score), class_="score")
    return element("td", text, element("small", per_seed(run, key)), state_chips(run))


def _range(values: Sequence[float | None], shown: Callable[[float | None], str]) -> str:
    """Return the one value of several runs, or the smallest and the largest."""
    texts = [shown(value) for value in sorted(set(finite(values)))]
    if not texts:
        return MISSING
    return texts[0] if texts[0] == texts[-1] else f"{texts[0].removesuffix(' %')} to {texts[-1]}"


def _pooled_row(
    name: str, pooled: dict[str, list[Run]], statistic: Callable[[list[Run]], Estimate], skipped: Sequence[str] = ()
) -> list[Element]:
    cells = [element("td", MISSING, class_="quiet") for _ in skipped]
    for runs in pooled.values():
        counted = [run for run in runs if finite(run.scores("return"))]
        estimate = statistic(counted)
        low_high = estimate.shown_interval
        over = plural(len({run.task for run in counted}), "task") if estimate.value is not None else None
        value = element("span", str(Estimate(estimate.value)), class_="score")
        cells.append(element("td", value, low_high and element("small", low_high), over and element("small", over)))
    return [element("th", name, scope="row", class_="pooled"), *cells, element("td")]


def state_chips(run: Run) -> list[Element]:
    """Return what is to be known of a run beside its scores: that it is unfinished, alarms, restarts, failures."""
    chips = [] if run.state == "finished" else [element("span", run.state, class_="chip")]
    if run.active_alarms:
        text = f"{plural(len(run.active_alarms), 'alarm')} active"
        names = ", ".join(f"{alarm.name} (seed {seed})" for seed, alarm in run.active_alarms)
        chips.append(element("span", text, class_="chip warn", title=names))
    restarts = sum(finite(_numbers(run.metadata.get("divergence_restarts"))))
    failures = sum(finite(_numbers((run.metadata.get("eval") or {}).get("failed_episodes"))))
    for count, noun in ((restarts, "divergence restart"), (failures, "failed episode")):
        if count:
            chips.append(element("span", plural(int(count), noun), class_="chip warn"))
    return chips


def _state(run: Run) -> list[Element]:
    finished = [element("span", "finished ", class_="quiet")] if run.state == "finished" else []
    return finished + state_chips(run)


def _numbers(value: Any) -> list[float | None]:
    values = value if isinstance(value, list) else [value]
    return [float(item) if isinstance(item, (int, float)) else None for item in values]


def task_table(runs: Sequence[Run], key: str) -> Element:
    """Return the table of the methods on one task; the others are compared with the first finished one."""
    first = next((run for run in runs if finite(run.scores("return"))), None)
    better = f"P({first.method} better) by return" if first else "P(better)"
    heads = ["method", f"{SCORE_NAMES[key]} per seed", "mean", "normalized return, IQM (95 % interval)", better]
    heads += ["pretrained (BC)", "episodes", "steps", "minutes", "state"]
    return table(
        f"{SCORE_NAMES[key].capitalize()} of the final evaluation.",
        heads,
        [_task_row(r, key, first) for r in runs],
        "methods",
    )


def _task_row(run: Run, key: str, first: Run | None) -> list[Element]:
    score = mean(finite(run.scores(key)))
    estimate = Estimate(None)
    if first and first is not run and finite(run.scores("return")):
        estimate = Estimate(probability_of_improvement(finite(first.scores("return")), finite(run.scores("return"))))
    episodes = (run.metadata.get("eval") or {}).get("episodes")
    steps = run.metadata.get("steps") if run.finished else run.results.last_step
    cells: list[Child | list[Element]] = [
        per_seed(run, key) or MISSING,
        element("strong", show(key)(score)),
        str(normalized_iqm([run])),
        str(estimate),
        show(key)(run.pretrained(key)),
        MISSING if episodes is None else str(episodes),
        f"{steps:,}" if isinstance(steps, int) else MISSING,
        _minutes(run),
        _state(run),
    ]
    return [element("th", method_link(run), scope="row"), *(element("td", cell) for cell in cells)]


def _minutes(run: Run) -> str:
    known = finite(_numbers(run.metadata.get("wall_seconds")))
    return f"{known[0] / 60:.0f}" if known else MISSING


def differences(runs: Sequence[Run]) -> list[str]:
    """Return in words which settings of runs that are compared differ, demonstrations by their content included."""
    found, plus = [], " + "
    for key in SHARED:
        groups: dict[str, list[str]] = {}
        for run in runs:
            if run.finished and key in run.metadata:
                groups.setdefault(_text(run.metadata[key]), []).append(run.method)
        if len(groups) > 1:
            found.append(f"{key} {', '.join(f'{text} ({plus.join(names)})' for text, names in groups.items())}")
    digests = {str(run.demos_record["sha256"]) for run in runs if "sha256" in run.demos_record}
    if len(digests) > 1:
        found.append("content of the demonstrations")
    return found


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else UNKNOWN if value is None else str(value)


def runs_table(runs: Sequence[Run]) -> Element:
    """Return the table of all runs, which a script sorts by a column."""
    heads = ["task", "method", "score", "kind of score", "steps", "minutes", "state"]
    rows = []
    for run in runs:
        key = score_key([run])
        score = mean(finite(run.scores(key)))
        step = run.results.last_step
        cells = [
            element("td", run.task),
            element("td", method_link(run)),
            element("td", show(key)(score), data_value="-Infinity" if score is None else score),
            element("td", SCORE_NAMES[key], class_="quiet"),
            element("td", f"{step:,}", data_value=step),
            element("td", _minutes(run)),
            element("td", _state(run)),
        ]
        rows.append(cells)
    return table("A click on a column's name sorts the runs by it.", heads, rows, "sortable")
