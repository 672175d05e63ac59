"""Events of a run: pretraining, alarms, restarts, failures, non-finite metrics; and the choice of what acts."""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

from cdred.algos.pretrain import CANDIDATES
from cdred.loggers.progress import MISSING, finite, format_duration, format_percent
from cdred.report.html.elements import element, table
from cdred.report.html.runs import UNKNOWN, Run
from cdred.text import plural

# How the candidates act.
ACTING = {
    "agent": "the agent as trained",
    "policy": "its policy, without planning",
    "pretrained": "the pretrained policy (BC)",
}
# Kinds of reports that have a finite value for every seed, unless something is wrong.
FINITE_KINDS = ("train", "eval", "pretrain")
# Events that are shown.
MAX_ROWS = 50
OPTION = re.compile(r"(?<![\w-])(--[a-z][\w.-]*\w|`[^`]+`)")


class Event(NamedTuple):
    """Something that happened in a run.

    Attributes:
        step: steps per seed; None if unknown.
        kind: in one or two words.
        text: what happened.
        warning: it needs attention.
    """

    step: int | None
    kind: str
    text: str
    warning: bool = False


def events(run: Run) -> list[Event]:
    """Return the events of a run, ordered by step."""
    found = [*_pretraining(run), *_restarts(run), *_failures(run), *_non_finite(run), *_checkpoints(run), *_alarms(run)]
    return sorted(found, key=lambda event: event.step if event.step is not None else -1)


def _lines(run: Run, kind: str) -> list[dict[str, Any]]:
    return [line for line in run.results.lines if line["kind"] == kind]


def _pretraining(run: Run) -> Iterator[Event]:
    lines = _lines(run, "pretrain")
    if lines:
        score = run.pretrained("success")
        success = f"; its policy's success is {format_percent(score)}" if score is not None else ""
        yield Event(0, "pretraining", f"{plural(lines[-1].get('updates', UNKNOWN), 'update')}{success}")


def _restarts(run: Run) -> Iterator[Event]:
    previous: list[Any] = [0] * len(run.seeds)
    for line in _lines(run, "restart"):
        counts = line.get("divergence_restarts")
        if not isinstance(counts, list) or len(counts) != len(run.seeds):
            yield Event(line["step"], "restart", "a seed diverged; which one is unknown", True)
            continue
        seeds = [str(seed) for seed, old, new in zip(run.seeds, previous, counts, strict=True) if old != new]
        previous = counts
        yield Event(line["step"], "restart", f"seed {', '.join(seeds) or UNKNOWN} diverged and was restarted", True)


def _failures(run: Run) -> Iterator[Event]:
    previous = 0.0
    for line in _lines(run, "train"):
        counts = line.get("failed_episodes")
        if not isinstance(counts, list):
            continue
        total = sum(finite([count for count in counts if isinstance(count, (int, float))]))
        if total > previous:
            yield Event(
                line["step"], "simulator", f"{plural(int(total - previous), 'failed episode')}, not stored", True
            )
        previous = total


def _non_finite(run: Run) -> Iterator[Event]:
    """Return the first line in which each metric was not finite, with the number of further ones."""
    steps: dict[tuple[str, str], list[int]] = {}
    for line in run.results.lines:
        keys = line.get("non_finite") if line["kind"] in FINITE_KINDS else None
        for key in keys if isinstance(keys, list) else ():
            steps.setdefault((line["kind"], str(key)), []).append(line["step"])
    for (kind, key), found in steps.items():
        more = f", and in {plural(len(found) - 1, 'later report')}" if len(found) > 1 else ""
        yield Event(found[0], "not finite", f"{key} ({kind}){more}", True)


def _alarms(run: Run) -> Iterator[Event]:
    """Return the alarms that became active, with meaning and remedy at the first time."""
    seen = set()
    for step, message in run.alarms:
        text = message.removeprefix("alarm, ")
        yield Event(step, "alarm", f"{text.partition(':')[0]}: active again" if text in seen else text, True)
        seen.add(text)


def _checkpoints(run: Run) -> Iterator[Event]:
    lines = _lines(run, "checkpoint")
    if lines:
        seconds = sum(finite([s for line in lines if isinstance(s := line.get("seconds"), (int, float))]))
        yield Event(lines[-1]["step"], "checkpoint", f"the last of {len(lines)}; all took {format_duration(seconds)}")


def events_table(run: Run) -> Element:
    """Return the events as a table."""
    found = events(run)
    if not found:
        return element("p", "None recorded.", class_="quiet")
    rows = [
        [
            element("td", MISSING if event.step is None else f"{event.step:,}", class_="number"),
            element("td", element("span", event.kind, class_="chip warn" if event.warning else "chip")),
            element("td", with_options(event.text)),
        ]
        for event in found[:MAX_ROWS]
    ]
    rest = len(found) - MAX_ROWS
    note = element("p", f"{plural(rest, 'further event')} not shown.", class_="quiet") if rest > 0 else None
    return element("div", table("Events of the run", ("step", "event", "what happened"), rows, "events"), note)


def selection(run: Run) -> Element:
    """Return what acts for each seed, and why."""
    lines = _lines(run, "selection")
    if lines:
        return element("div", _selection_table(run, lines[-1]), element("p", _rule(run), class_="quiet"))
    acting = run.metadata.get("acting")
    names = [ACTING.get(str(name), str(name)) for name in acting] if isinstance(acting, list) else []
    if names and len(set(names)) == 1:
        return element("p", f"{names[0].capitalize()} acts for every seed: {_no_selection(run)}")
    if names:
        per_seed = "; ".join(f"seed {seed}: {name}" for seed, name in zip(run.seeds, names, strict=False))
        return element("p", f"{per_seed}. {_no_selection(run)}")
    if not run.finished:
        return element("p", "Not chosen yet: the run is unfinished.", class_="quiet")
    return element("p", f"The agent acts as trained: {_no_selection(run)}")


def _no_selection(run: Run) -> str:
    if run.config is None:
        return "why is unknown, as its settings cannot be read."
    if not run.config.pretrain.updates:
        return "without pretraining there is no choice between candidates."
    if not run.config.pretrain.selection_episodes:
        return "a choice was not asked for (pretrain.selection_episodes is 0)."
    if not run.finished:
        return "the run is unfinished."
    return "no success can be detected, because demonstrations do not end where others end."


def _rule(run: Run) -> str:
    episodes = run.config and run.config.pretrain.selection_episodes
    count = plural(episodes, "episode") if episodes else "episodes"
    return (
        f"Each candidate acted in {count} after training; the pretrained policy acts, unless another one leads in "
        "detected successes by more than one standard error. The detector uses the demonstrations' last states, not "
        "the task's reward."
    )


def _selection_table(run: Run, line: dict[str, Any]) -> Element:
    rows = []
    for index, seed in enumerate(run.seeds):
        rates = [_item(line.get(f"{name}_detected_success"), index) for name in CANDIDATES]
        chosen = _item(line.get("chosen"), index)
        number = int(chosen) if chosen is not None and 0 <= chosen < len(CANDIDATES) else None
        cells = [
            element("td", element("strong" if i == number else "span", format_percent(rate)))
            for i, rate in enumerate(rates)
        ]
        rows.append([element("th", f"seed {seed}", scope="row"), *cells, element("td", _reason(rates, number))])
    heads = ("", *(ACTING[name] for name in CANDIDATES), "what acts")
    return table("Detected successes of each candidate", heads, rows)


def _reason(rates: Sequence[float | None], chosen: int | None) -> str:
    if chosen is None:
        return UNKNOWN
    text = ACTING[CANDIDATES[chosen]]
    own = rates[chosen]
    if own is not None and any(rate is not None and rate > own for rate in rates):
        return f"{text}: the detector is not reliable for this seed"
    return text


def _item(values: Any, index: int) -> float | None:
    """Return an element of a list of numbers; None if it has none there."""
    value = values[index] if isinstance(values, list) and index < len(values) else None
    return float(value) if isinstance(value, (int, float)) and finite([value]) else None


def with_options(text: str) -> list[Element | str]:
    """Return a text in which the names of options are code, which is not broken at their hyphens."""
    return [element("code", part) if i % 2 else part for i, part in enumerate(OPTION.split(text))]


def timestamp(seconds: Any) -> str:
    """Format Unix seconds as a date and time in UTC."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (TypeError, ValueError, OverflowError, OSError):
        return UNKNOWN
