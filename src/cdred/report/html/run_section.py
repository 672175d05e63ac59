"""Section of one run: scores, figures, events, what acts, videos, configuration and provenance."""

from dataclasses import replace
from typing import Any, get_args
from xml.etree.ElementTree import Element

import yaml

from cdred.config import preset
from cdred.config_file import differences, to_yaml
from cdred.data.quality import SELECTED_KEY
from cdred.loggers.progress import MISSING, finite, format_duration, mean
from cdred.report.html.chart import draw_chart
from cdred.report.html.elements import Children, definitions, element, table
from cdred.report.html.events import events_table, selection, timestamp, with_options
from cdred.report.html.panels import (
    TRAINING,
    alarm_chart,
    diagnostics_panels,
    draw_panels,
    figure_grid,
    pretraining_chart,
    score_charts,
)
from cdred.report.html.runs import UNKNOWN, Run, last_evaluation, score_key
from cdred.report.html.summary import SCORE_NAMES, per_seed, show, state_chips, swatch
from cdred.report.html.videos import Videos
from cdred.report.results import DEMOS_PROVENANCE_KEY
from cdred.text import plural, shorten
from cdred.types import PresetName

# Parts of the section by the ending of their ids.
PARTS = {
    "training": "Training",
    "diagnostics": "Diagnostics",
    "events": "Events",
    "selection": "What acts, and why",
    "videos": "Videos",
    "configuration": "Configuration",
    "provenance": "Provenance",
}


def run_section(run: Run, videos: Videos, *, alone: bool, expanded: bool) -> Element:
    """Return the section of a run.

    Args:
        run: the run.
        videos: budget of the page's videos.
        alone: it is the only run of the page, and named in the title.
        expanded: show the details at first.
    """
    level = 2 if alone else 3
    heading = None if alone else element("h3", swatch(run), f"{run.task} · {run.method}", state_chips(run))
    figures = figure_grid([draw_chart(chart) for chart in score_charts(run)], "large")
    parts = _parts(run, videos, level if alone else 4)
    body: Children = parts
    if not alone:
        summary = element("summary", "Training, diagnostics, events, configuration, provenance")
        body = element("details", summary, parts, open="" if expanded else None)
    return element(
        "article", heading, _intro(run), tiles(run), _warnings(run), figures, body, id=run.anchor, class_="run"
    )


def _intro(run: Run) -> Element:
    data, demos, seconds = run.metadata, run.metadata.get("demos"), run.metadata.get("wall_seconds")
    parts = [
        run.algo,
        f"preset {data.get('preset', UNKNOWN)}",
        plural(len(run.seeds), "seed"),
        # An unfinished run has what was asked for: a number or a path.
        plural(demos, "demonstration") if isinstance(demos, int) else demos and f"demonstrations: {demos}",
        f"{run.results.last_step:,} steps per seed",
        f"{format_duration(seconds)} on {data.get('device', UNKNOWN)}" if isinstance(seconds, (int, float)) else None,
    ]
    return element("p", " · ".join(part for part in parts if part), class_="intro")


def tiles(run: Run) -> Element:
    """Return the scores as large numbers with what they are compared with."""
    key = score_key([run])
    shown, score = show(key), mean(finite(run.scores(key)))
    entries: list[tuple[str, str, str]] = []
    if run.finished:
        entries.append((f"final {SCORE_NAMES[key]}", UNKNOWN if score is None else shown(score), per_seed(run, key)))
        normalized = mean(finite(run.scores("normalized")))
        if key != "normalized" and normalized is not None:
            entries.append(("normalized return", show("normalized")(normalized), per_seed(run, "normalized")))
    else:
        last = last_evaluation(run, "success" if key == "success" else "return")
        name = "success" if key == "success" else "return"
        entries.append((f"last evaluation's {name}", UNKNOWN if last is None else show(name)(last), run.state))
    compared = key if run.finished or key == "success" else "return"
    levels = (("pretrained (BC)", run.pretrained(compared)),)
    levels += tuple((who, run.reference(who, compared)) for who in ("expert", "random"))
    entries += [(name, UNKNOWN if level is None else show(compared)(level), "") for name, level in levels]
    boxes = [
        element("div", element("dt", name), element("dd", value), note and element("dd", note, class_="note"))
        for name, value, note in entries
    ]
    return element("dl", boxes, class_="tiles")


def _warnings(run: Run) -> Element | None:
    texts = [f"seed {seed}, {a.name}: {a.meaning}. Try {a.remedy}." for seed, a in run.active_alarms]
    if not texts:
        return None
    title = element("strong", "Alarms that are active at the last report")
    return element(
        "div",
        title,
        element("ul", [element("li", with_options(text)) for text in texts]),
        class_="warnings",
        role="note",
    )


def _parts(run: Run, videos: Videos, level: int) -> list[Element]:
    training, no_training = draw_panels(run, TRAINING)
    diagnostics, no_diagnostics = draw_panels(run, diagnostics_panels(run))
    pretraining = [chart] if (chart := pretraining_chart(run)).known else []
    alarms = [chart] if run.diagnostics and (chart := alarm_chart(run)).known else []
    contents: dict[str, Children] = {
        "training": _figures([*training, *map(draw_chart, pretraining)], no_training),
        "diagnostics": _figures([*map(draw_chart, alarms), *diagnostics], no_diagnostics),
        "events": events_table(run),
        "selection": selection(run),
        "videos": element(
            "div", videos.figures(run.results.folder) or element("p", "None.", class_="quiet"), class_="videos"
        ),
        "configuration": configuration(run),
        "provenance": provenance(run),
    }
    return [
        element("section", element(f"h{level}", title), contents[key], id=f"{run.anchor}-{key}")
        for key, title in PARTS.items()
    ]


def _figures(figures: list[Element], missing: list[str]) -> list[Element]:
    note = [element("p", f"Not reported by this run: {', '.join(missing)}.", class_="quiet")] if missing else []
    return ([figure_grid(figures)] if figures else []) + note


def configuration(run: Run) -> list[Element]:
    """Return the settings that differ from the preset, and all of them in an element that opens."""
    if run.config is None:
        return [element("p", "Unknown: ", run.config_problem)]
    if run.config.preset not in get_args(PresetName):
        return [element("p", f"Unknown preset {run.config.preset}.")]
    base = replace(preset(run.config.preset), task=run.config.task, out=run.config.out)
    rows = [
        [
            element("th", element("code", name), scope="row"),
            element("td", _value(value), class_="code"),
            element("td", _value(other), class_="code quiet"),
        ]
        for name, (value, other) in differences(run.config, base).items()
    ]
    heads = ("option", "this run", f"preset {run.config.preset}")
    changed = table(f"Options that differ from the preset {run.config.preset}", heads, rows, "options")
    same = element("p", f"All options are those of the preset {run.config.preset}.")
    full = element("details", element("summary", "All options"), element("pre", to_yaml(run.config)))
    return [changed if rows else same, full]


def _value(value: Any) -> str:
    return " ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)


def provenance(run: Run) -> Element:
    """Return commit, versions, device, times and demonstrations of a run, each unknown if it is not recorded."""
    data, lines = run.metadata, run.results.lines
    versions, seconds = data.get("versions"), data.get("wall_seconds")
    entries: list[tuple[str, Children]] = [
        ("folder", [element("code", str(folder)) for folder in run.folders or (run.results.folder,)]),
        ("commit", element("code", str(data.get("commit") or UNKNOWN))),
        ("device", str(data.get("device") or UNKNOWN)),
        ("first report", timestamp(lines[0].get("time")) if lines else UNKNOWN),
        ("last report", timestamp(lines[-1].get("time")) if lines else UNKNOWN),
        ("training time", format_duration(seconds) if isinstance(seconds, (int, float)) else UNKNOWN),
        ("updates", f"{updates:,}" if isinstance(updates := data.get("updates"), int) else UNKNOWN),
        ("packages", _versions(versions)),
        ("demonstrations", _demonstrations(run)),
    ]
    return definitions(entries)


def _versions(versions: Any) -> Children:
    if not isinstance(versions, dict) or not versions:
        return UNKNOWN
    return [element("span", f"{name} {number}", class_="chip") for name, number in versions.items()]


def _demonstrations(run: Run) -> str | list[Element]:
    record, data = run.demos_record, run.metadata
    asked = run.config.demos if run.config else data.get("demos")
    if not run.config and asked is None and not record:
        return UNKNOWN
    parts = [element("p", "given as ", element("code", str(asked)), "; ", _counts(record))]
    if "sha256" in record:
        parts.append(element("p", "SHA-256 ", element("code", str(record["sha256"]))))
    if isinstance(chosen := data.get(SELECTED_KEY), dict):
        parts.append(element("p", f"chosen: {shorten(str(chosen.get('indices')), 200)} of {chosen.get('of', UNKNOWN)}"))
    source = data.get(DEMOS_PROVENANCE_KEY)
    if isinstance(source, dict) and source:
        text = yaml.safe_dump(source, sort_keys=False, allow_unicode=True)
        parts.append(element("details", element("summary", "Their provenance"), element("pre", text)))
    else:
        parts.append(element("p", f"Their provenance: {UNKNOWN}.", class_="quiet"))
    return parts


def _counts(record: dict[str, Any]) -> str:
    episodes, steps = record.get("episodes"), record.get("steps")
    if not isinstance(episodes, int) or not isinstance(steps, int):
        return f"number of episodes {UNKNOWN}"
    return f"{plural(f'{episodes:,}', 'episode')}, {plural(f'{steps:,}', 'step')}" if episodes else MISSING
