"""Figures of one run: scores, learned reward, losses, values, diagnostics and pretraining."""

from collections.abc import Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np

from cdred.loggers.alarms import ALARMS, MAX_OPEN_LOOP_FVU, alarm_levels
from cdred.loggers.progress import RECENT
from cdred.report.html.chart import Chart, Curve, Level, draw_chart
from cdred.report.html.elements import element
from cdred.report.html.runs import Run
from cdred.report.results import RunResults, Series


class Panel(NamedTuple):
    """Curves of one figure.

    Attributes:
        title: of the figure.
        note: how to read it.
        curves: label, kind of line in the metrics file, and metric of each.
        levels: reference lines.
        percent: the values are rates.
        log: use a logarithmic scale where the values span a wide range.
    """

    title: str
    note: str
    curves: tuple[tuple[str, str, str], ...]
    levels: tuple[Level, ...] = ()
    percent: bool = False
    log: bool = False


TRAINING = (
    Panel(
        "Learned reward",
        "closer as the agent nears the expert",
        (("expert data", "train", "reward_expert"), ("agent data", "train", "reward_agent")),
    ),
    Panel(
        "Losses",
        "without the policy loss",
        (
            ("dynamics", "train", "consistency_loss"),
            ("critic", "train", "critic_loss"),
            ("reward", "train", "reward_loss"),
        ),
        log=True,
    ),
    Panel("Termination loss", "0 where episodes cannot terminate", (("loss", "train", "termination_loss"),)),
    Panel(
        "Imitation losses",
        "behavioural cloning (BC), and of detected successes",
        (
            ("BC", "train", "bc_loss"),
            ("successes", "train", "self_imitation_loss"),
            ("validation", "train", "validation_loss"),
        ),
        log=True,
    ),
    Panel(
        "Gradient norm",
        "before clipping; steady or falling in stable training",
        (
            ("mean", "train", "grad_norm"),
            ("maximum", "train", "grad_norm_max"),
            ("policy", "train", "policy_grad_norm"),
        ),
        log=True,
    ),
    Panel(
        "Values",
        "means of TD targets and of Q",
        (("TD target", "train", "td_target"), ("policy", "train", "q_pi"), ("expert", "train", "v_expert")),
    ),
    Panel(
        "Range of values",
        "largest magnitudes; scale: range of 5 to 95 %",
        (
            ("TD target", "train", "td_target_abs_max"),
            ("Q", "train", "q_abs_max"),
            ("scale", "train", "q_scale"),
        ),
        log=True,
    ),
    Panel("Policy entropy", "estimate", (("entropy", "train", "policy_entropy"),)),
    Panel("Speed", "compilations are not counted", (("steps/s", "train", "steps_per_second"),)),
)
DIAGNOSTICS = (
    Panel(
        "Reward margin",
        "expert's reward less agent's, relative",
        (("margin", "diagnostics", "reward_margin"),),
        (Level("alarm", 0.0),),
    ),
    Panel(
        "Novelty",
        "expert bonus on demonstrations",
        (("training", "diagnostics", "novelty_expert"), ("validation", "diagnostics", "novelty_validation")),
        log=True,
    ),
    Panel("Mean |Q|", "over critics, on expert data", (("|Q|", "diagnostics", "mean_abs_q"),), log=True),
    Panel(
        "Open-loop error",
        "unexplained variance of predicted latents",
        (("error", "diagnostics", "open_loop_fvu"),),
        (Level("alarm", MAX_OPEN_LOOP_FVU),),
        log=True,
    ),
    Panel(
        "Dynamics error ratio",
        "one step ahead, relative to “nothing changes”",
        (("ratio", "diagnostics", "dynamics_error_ratio"),),
        (Level("no change", 1.0),),
        log=True,
    ),
    Panel(
        "Q share",
        "critics' part of the policy's gradient; the rest is BC's",
        (("Q share", "diagnostics", "q_gradient_share"),),
        percent=True,
    ),
    Panel(
        "Action error",
        "policy on validation demonstrations, squared",
        (("error", "diagnostics", "action_error_validation"),),
        log=True,
    ),
    Panel(
        "Success detector",
        "against the task's success, for information",
        (
            ("precision", "diagnostics", "detector_precision"),
            ("recall", "diagnostics", "detector_recall"),
            ("detected", "diagnostics", "detected_success"),
        ),
        percent=True,
    ),
)
SCORES = (("Success", "success", "success", True), ("Return", "episode_return", "return", False))
# Metrics of the diagnostics that are shown; further ones get a panel of their own.
KNOWN = {key for panel in DIAGNOSTICS for _, kind, key in panel.curves if kind == "diagnostics"}


def score_charts(run: Run) -> list[Chart]:
    """Return the charts of success, where it is reported, and return: rollouts, evaluations and reference levels."""
    charts, results = [], run.results
    for title, key, reference, percent in SCORES:
        curves = (
            Curve("rollouts", results.series("rollout", key), 0, window=RECENT),
            Curve("evaluation", results.series("eval", key), 1, points=True),
        )
        levels = (*reference_levels(run, reference), Level("BC", results.pretrained_score(key)))
        chart = Chart(
            title,
            f"rollouts: running mean of {RECENT} reports",
            curves,
            levels,
            last_step=results.last_step,
            percent=percent,
            width=460,
            height=280,
        )
        if chart.known or title == "Return":
            charts.append(chart)
    return charts


def reference_levels(run: Run, key: str) -> tuple[Level, Level]:
    """Return the scores of the expert and of a random agent as levels."""
    return Level("expert", run.reference("expert", key)), Level("random", run.reference("random", key))


def draw_panels(run: Run, panels: Sequence[Panel]) -> tuple[list[Element], list[str]]:
    """Draw the panels that the run has values for.

    Returns:
        The figures, and the titles of the panels that the run does not report.
    """
    charts = [_chart(run.results, panel) for panel in panels]
    return [draw_chart(c) for c in charts if c.known], [c.title for c in charts if not c.known]


def _chart(results: RunResults, panel: Panel) -> Chart:
    curves = [Curve(name, results.series(kind, key), i) for i, (name, kind, key) in enumerate(panel.curves)]
    return Chart(panel.title, panel.note, curves, panel.levels, results.last_step, panel.percent, panel.log)


def diagnostics_panels(run: Run) -> list[Panel]:
    """Return the panels of the diagnostics, those of metrics that this version does not know at the end."""
    names = {key for line in run.diagnostics for key in line} - KNOWN - {"step", "kind", "time", "non_finite"}
    return [*DIAGNOSTICS, *(Panel(name, "", (("value", "diagnostics", name),)) for name in sorted(names))]


def alarm_chart(run: Run) -> Chart:
    """Return the chart of each alarm's level, 1 or more where its condition holds."""
    lines = run.diagnostics
    steps, curves = np.array([line["step"] for line in lines], int), []
    for style, alarm in enumerate(ALARMS):
        rows = [_padded(row, len(run.seeds)) for row in alarm_levels(alarm, lines)]
        series = Series(steps, np.array(rows, float).reshape(len(lines), len(run.seeds)))
        curves.append(Curve(alarm.name, series, style))
    return Chart(
        "Alarms", "level of each; an alarm is active from 1", curves, (Level("alarm", 1.0),), run.results.last_step
    )


def _padded(row: Sequence[float | None], length: int) -> list[float | None]:
    return [*row, *[None] * length][:length]


def pretraining_chart(run: Run) -> Chart:
    """Return the chart of the losses of pretraining against its updates."""
    lines = [line for line in run.results.lines if line["kind"] == "pretrain" and isinstance(line.get("updates"), int)]
    by_updates = RunResults(run.results.folder, [{**line, "step": line["updates"]} for line in lines], {})
    names = (("BC", "bc_loss"), ("dynamics", "consistency_loss"))
    curves = [Curve(name, by_updates.series("pretrain", key), i) for i, (name, key) in enumerate(names)]
    return Chart("Pretraining", "losses", curves, (), by_updates.last_step, log=True, x_name="updates per seed")


def figure_grid(figures: Sequence[Element], class_: str = "small") -> Element:
    """Return figures side by side, as many as fit."""
    return element("div", figures, class_=f"figures {class_}")
