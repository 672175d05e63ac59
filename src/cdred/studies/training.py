"""Studies of training runs: the table and the figure of their scores."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cdred.loggers.progress import MISSING
from cdred.report import plots
from cdred.report.aggregate import draw_intervals, style_panel
from cdred.report.plots import PALETTE, Label
from cdred.report.results import Series
from cdred.report.statistics import (
    bootstrap_interval,
    difference_interval,
    improvement_interval,
    iqm,
    probability_of_improvement,
)
from cdred.studies.records import RunRecord
from cdred.studies.scores import COLUMNS, Curve, drop_from_peak, rows, steps_to_threshold
from cdred.studies.study import StudyResult, TrainingStudy
from cdred.sweep.collect import KINDS
from cdred.text import plural

if TYPE_CHECKING:
    # At run time it would delay every command.
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEADS = (
    "task",
    "runs",
    "score",
    "per seed",
    "IQM (95 %)",
    "mean minus that of {reference} (95 %)",
    "P(better) (95 %)",
    "steps to {threshold}",
    "drop from peak",
    "gradient norm, mean / max",
    "reward margin",
    "minutes of a run",
)

# Curves of each label, by task.
CurvesByTask = Mapping[str, Mapping[str, Sequence[Curve]]]


def training_result(study: TrainingStudy, records: Mapping[str, RunRecord | None]) -> StudyResult:
    """Make data, table and figure of the runs of a study that have finished; the others are listed as missing.

    Args:
        study: the study.
        records: the runs by name; None for those that have not finished.
    """
    finished = [record for record in records.values() if record is not None]
    curves = [curve for record in finished for curve in record.curves]
    missing = [name for name, record in records.items() if record is None]
    by_task: dict[str, dict[str, list[Curve]]] = {}
    for curve in curves:
        by_task.setdefault(curve.task, {}).setdefault(curve.label, []).append(curve)
    table = score_table(study, by_task) + _missing(missing, len(records))
    # Runs may be older than this command, and made elsewhere.
    details = {
        "missing_runs": missing,
        "run_commits": sorted({str(record.commit) for record in finished}),
        "run_devices": sorted({record.device for record in finished}),
    }
    return StudyResult(COLUMNS, rows(curves), table, draw_scores(study, by_task), details)


def _missing(missing: Sequence[str], total: int) -> str:
    if not missing:
        return f"\nAll {plural(total, 'run')} have finished.\n"
    head = f"\nWithout a result, {len(missing)} of {plural(total, 'run')}:\n"
    return "\n".join([head, *(f"- {name}" for name in missing), ""])


def score_table(study: TrainingStudy, by_task: CurvesByTask) -> str:
    """Return a row per task and label. A difference is "no difference seen" if its interval contains 0."""
    threshold = f"{100 * study.threshold:.0f} % of the expert, held for three evaluations"
    heads = [head.format(reference=study.reference, threshold=threshold) for head in HEADS]
    lines = [heads, ["---"] * 4 + ["---:"] * (len(heads) - 4)]
    for by_label in by_task.values():
        lines += [_cells(study, curves, by_label) for curves in by_label.values()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _cells(study: TrainingStudy, curves: Sequence[Curve], by_label: Mapping[str, Sequence[Curve]]) -> list[str]:
    first, finals = curves[0], [curve.final for curve in curves]
    name, compared = study.references.get(first.label, study.reference), [MISSING, MISSING]
    if name in by_label and name != first.label:
        compared = _comparison(finals, [curve.final for curve in by_label[name]])
        if name != study.reference:
            compared[0] += f", to {name}"
    norms = [curve.gradient_norm for curve in curves if curve.gradient_norm is not None]
    margins = [curve.reward_margin for curve in curves if curve.reward_margin is not None]
    return [
        first.task,
        first.label,
        KINDS[first.kind],
        " ".join(f"{score:.2f}" for score in finals),
        f"{iqm(finals):.2f}{_interval(bootstrap_interval([finals]))}",
        *compared,
        _threshold_cell(study, curves),
        f"{np.mean([drop_from_peak(curve) for curve in curves]):.2f}",
        f"{np.mean([n[0] for n in norms]):.2g} / {max(n[1] for n in norms):.2g}" if norms else MISSING,
        f"{np.mean(margins):.2g}" if margins else MISSING,
        f"{np.mean([curve.minutes for curve in curves]):.0f}",
    ]


def _comparison(scores: Sequence[float], reference: Sequence[float]) -> list[str]:
    difference, interval = float(np.mean(scores) - np.mean(reference)), difference_interval(scores, reference)
    probability = probability_of_improvement(scores, reference)
    text = f"{difference:+.2f}{_interval(interval)}"
    if interval is not None and interval[0] <= 0 <= interval[1]:
        text = f"no difference seen: {text}"
    return [text, f"{probability:.2f}{_interval(improvement_interval([(scores, reference)]))}"]


def _interval(interval: tuple[float, float] | None) -> str:
    return " (no interval)" if interval is None else f" ({interval[0]:.2f} to {interval[1]:.2f})"


def _threshold_cell(study: TrainingStudy, curves: Sequence[Curve]) -> str:
    """Describe how many seeds reach the threshold, and their median steps; a return has no known expert."""
    if curves[0].kind == "return":
        return MISSING
    reached = [steps for curve in curves if (steps := steps_to_threshold(curve, study.threshold)) is not None]
    median = f", median {np.median(reached):,.0f}" if reached else ""
    return f"{len(reached)} of {len(curves)}{median}"


def draw_scores(study: TrainingStudy, by_task: CurvesByTask) -> "Figure":
    """Draw a row of panels per task.

    They have the evaluations against steps, the interquartile means of the last ones, and the study's signal against
    steps if it has one.
    """
    from matplotlib.figure import Figure

    labels = list(dict.fromkeys(label for by_label in by_task.values() for label in by_label))
    colours = {label: PALETTE[index % len(PALETTE)] for index, label in enumerate(labels)}
    signal = study.signal
    height, columns = max(3.6, 1.6 + 0.42 * len(labels)), 2 if signal is None else 3
    size = (7.5 * columns, 0.9 + height * max(1, len(by_task)))
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    figure.suptitle(study.question, x=0.01, ha="left", size=13)
    panels = figure.subplots(max(1, len(by_task)), columns, squeeze=False)
    for row, (task, by_label) in zip(panels, by_task.items(), strict=False):
        kind = KINDS[next(iter(by_label.values()))[0].kind]
        scores = {label: [curve.scores for curve in curves] for label, curves in by_label.items()}
        _draw_curves(row[0], task, kind, by_label, scores, colours)
        style_panel(row[1], "At the end", f"interquartile mean of {kind}, 95 % interval over seeds")
        finals = {label: [curve.final for curve in curves] for label, curves in by_label.items()}
        draw_intervals(row[1], {k: (iqm(v), bootstrap_interval([v])) for k, v in finals.items()}, colours)
        if signal is not None:
            signals = {
                label: [curve.signals[signal] for curve in curves]
                for label, curves in by_label.items()
                if all(signal in curve.signals for curve in curves)
            }
            _draw_curves(row[2], "During training", signal, by_label, signals, colours)
    return figure


def _draw_curves(
    axes: "Axes",
    title: str,
    name: str,
    by_label: Mapping[str, Sequence[Curve]],
    values: Mapping[str, Sequence[Sequence[float | None]]],
    colours: Mapping[str, str],
) -> None:
    """Draw values at the evaluations of each seed, which all are at the same steps, and the mean of the seeds."""
    last = max(curve.steps[-1] for curves in by_label.values() for curve in curves)
    plots.style_axes(axes, title, f"{name}; rings: seeds, line: their mean", last)
    ends = []
    for label, of_seeds in values.items():
        series = Series(np.array(by_label[label][0].steps), np.array(of_seeds, float).T)
        ends.append(Label(plots.plot_points(axes, series, colours[label]), label, colours[label]))
        axes.plot(series.steps, plots.mean_over_seeds(series.values), color=colours[label], linewidth=2)
    plots.label_line_ends(axes, ends)
