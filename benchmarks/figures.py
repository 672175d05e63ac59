"""Draw results/plots/*.png from the files in results/.

    python benchmarks/figures.py        # or: make figures

Curves and dots come from the evaluations (`<suite>/<task>/<method>.csv`), reference scores from the run's JSON file
beside them, timings from `benchmarks/*.json`. The same files give the same figures, byte for byte.
"""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from methods_report import BUDGETS, TASKS, method_scores

RESULTS = Path(__file__).resolve().parents[1] / "results"
METHODS = {
    "cdred": "CDRED",
    "iqmpc": "IQ-MPC",
    "iqlearn-sac": "IQ-Learn\n+ SAC",
    "gail": "GAIL",
    "red": "RED",
    "bc": "BC",
}
BLUE, ORANGE, GREY, INK = "#2a6f97", "#d9762b", "#7b828a", "#22262b"
METAWORLD_TASKS = ("button-press", "door-open", "window-open", "reach", "stick-push", "bin-picking")
# Task, CDRED's run, its number of demonstrations, the run of TD-MPC2 on the environment's reward (None: no such run).
CURVES = (
    ("dmc/walker-walk", "cdred-80demos-bc1", 80, "tdmpc2"),
    ("dmc/walker-stand", "cdred-80demos-bc1", 80, "tdmpc2"),
    ("dmc/reacher-easy", "cdred-60demos-12000steps-bc1", 60, "tdmpc2-30000steps"),
    ("dmc/cartpole-swingup", "cdred-100demos-bc1", 100, "tdmpc2"),
    ("gym/Hopper-v5", "cdred-40demos-bc1", 40, "tdmpc2"),
    ("maniskill/PullCube", "cdred-200demos-bcenc1", 200, None),
)


def load_evaluations(run: str, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return steps `[N]` and the column `key` `[N, seeds]` of results/<run>.csv."""
    with (RESULTS / f"{run}.csv").open() as file:
        rows = list(csv.DictReader(file))
    steps = sorted({int(row["step"]) for row in rows})
    seeds = sorted({int(row["seed"]) for row in rows})
    values = {(int(row["step"]), int(row["seed"])): float(row[key]) for row in rows}
    return np.array(steps), np.array([[values[step, seed] for seed in seeds] for step in steps])


def load_reference(run: str, key: str) -> tuple[float | None, float | None]:
    """Return the scores of the expert and of a random agent; None where unknown."""
    scores = load_json(run)["result"]["eval"]
    return scores[f"expert_{key}"], scores[f"random_{key}"]


def load_json(name: str) -> dict[str, Any]:
    """Return results/<name>.json."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def style_axes(axes: Axes, title: str, ylabel: str) -> None:
    """Set title, label and a quiet frame."""
    axes.set_title(title, loc="left", size=11, weight="bold", color=INK)
    axes.set_ylabel(ylabel, size=9, color=GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e9ebee", linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8.5, colors=GREY)


def style_steps(axes: Axes) -> None:
    """Let the x axis be steps from 0 on."""
    axes.set_xlim(0, None)
    axes.set_xlabel("steps per seed", size=9, color=GREY)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))


def draw_legend(axes: Axes, **place: Any) -> None:
    """Draw a legend that hides the curves under it."""
    axes.legend(fontsize=8, edgecolor="none", framealpha=0.85, **place)


def draw_references(axes: Axes, run: str, key: str) -> None:
    """Draw dashed lines at the scores of the expert and of a random agent."""
    for score, name in zip(load_reference(run, key), ("expert", "random"), strict=True):
        if score is not None:
            axes.axhline(score, color=GREY, linewidth=1, linestyle="--", zorder=1)
            place = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "bottom"}
            axes.text(0.995, score, name, size=7.5, color=GREY, **place)


def draw_dots(axes: Axes, position: float, values: np.ndarray, colour: str, label: str | None = None) -> None:
    """Draw one dot per seed, side by side, and a bar at their mean."""
    offsets = np.linspace(-0.1, 0.1, len(values))
    axes.scatter(position + offsets, values, s=26, color=colour, alpha=0.75, zorder=3, label=label)
    axes.hlines(values.mean(), position - 0.18, position + 0.18, color=colour, linewidth=2.4, zorder=2)


def draw_curve(axes: Axes, run: str, key: str, colour: str, label: str) -> None:
    """Draw one thin line per seed and a bold one for their mean."""
    steps, values = load_evaluations(run, key)
    if values.shape[1] > 1:
        axes.plot(steps, values, color=colour, linewidth=1, alpha=0.35, marker="o", markersize=3)
    axes.plot(steps, values.mean(axis=1), color=colour, linewidth=2.2, label=label)


def metaworld() -> Figure:
    """Draw CDRED and BC on six Meta-World tasks, and CDRED's longest run (preset with bc-coef 1)."""
    figure = Figure(figsize=(11, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.6, 1])
    style_axes(
        left, "10 demonstrations, 5,000 steps; CDRED with bc-coef 1", "success in 20 episodes (BC on bin-picking: 40)"
    )
    for index, task in enumerate(METAWORLD_TASKS):
        for run, offset, colour, name in (("cdred-bc1", -0.2, BLUE, "CDRED"), ("bc", 0.2, ORANGE, "BC")):
            _, values = load_evaluations(f"metaworld/{task}/{run}", "success")
            draw_dots(left, index + offset, values[-1], colour, None if index else name)
    left.set_xticks(range(len(METAWORLD_TASKS)), METAWORLD_TASKS)
    left.set_ylim(-0.03, 1.05)
    draw_legend(left, loc="lower left")
    run = "metaworld/bin-picking/cdred-50demos-bc1"
    style_axes(right, "bin-picking, 50 demonstrations", "CDRED's success in 5 episodes (last: 50)")
    draw_curve(right, run, "success", BLUE, "CDRED")
    draw_references(right, run, "success")
    right.set_ylim(-0.03, 1.05)
    style_steps(right)
    return figure


def methods() -> Figure:
    """Draw the final scores of all methods on ten tasks with today's preset, one dot per seed, and BC as a line."""
    figure = Figure(figsize=(14, 5.6), layout="constrained")
    bc, *columns = method_scores(BUDGETS[0])
    for axes, task in zip(np.ravel(figure.subplots(2, 5, sharey=True)), TASKS, strict=True):
        style_axes(axes, task, "")
        for index, column in enumerate(columns):
            if task in column.by_task:
                draw_dots(axes, index, np.array(column.by_task[task]), BLUE if index == 0 else ORANGE)
        axes.axhline(np.mean(bc.by_task[task]), color=GREY, linewidth=1.2, linestyle="--", zorder=1)
        axes.set_xticks(range(len(columns)), [column.name.replace(" + ", "\n+ ") for column in columns], size=7.5)
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(0, 1.05)
    figure.supylabel("success, DMControl: normalized return (dashed: BC)", size=9, color=GREY)
    return figure


def baselines() -> Figure:
    """Draw the last evaluation of six methods on three tasks, one dot per seed."""
    figure = Figure(figsize=(12, 3.7), layout="constrained")
    tasks = (("metaworld/bin-picking", "success"), ("metaworld/stick-push", "success"), ("dmc/walker-walk", "return"))
    for axes, (task, key) in zip(figure.subplots(1, len(tasks)), tasks, strict=True):
        style_axes(axes, task, key)
        for index, method in enumerate(METHODS):
            _, values = load_evaluations(f"{task}/{method}", key)
            draw_dots(axes, index, values[-1], BLUE if method == "cdred" else ORANGE)
        draw_references(axes, f"{task}/cdred", key)
        axes.set_xticks(range(len(METHODS)), list(METHODS.values()))
        axes.set_xlim(-0.5, len(METHODS) - 0.35)
    return figure


def learning_curves() -> Figure:
    """Draw CDRED from all available demonstrations, and TD-MPC2 on the environment's reward."""
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    panels = np.ravel(figure.subplots(2, 3))
    for axes, (task, run, num_demos, expert) in zip(panels, CURVES, strict=True):
        key = "return" if expert else "success"
        style_axes(axes, f"{task}, {num_demos} demos", key)
        if expert:
            draw_curve(axes, f"{task}/{expert}", key, ORANGE, "TD-MPC2 on the environment's reward, 1 seed")
        draw_curve(axes, f"{task}/{run}", key, BLUE, "CDRED, 3 seeds and their mean")
        draw_references(axes, f"{task}/{run}", key)
        axes.set_ylim((-0.03, 1.05) if key == "success" else (0, None))
        style_steps(axes)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=9
    )
    return figure


def speed() -> Figure:
    """Draw the times beside the authors' code, and how times grow with seeds, environments and widths."""
    figure = Figure(figsize=(14, 3.5), layout="constrained")
    first, *others = figure.subplots(1, 4, width_ratios=[1.5, 1, 1, 1])
    _draw_authors(first)
    scaling = load_json("benchmarks/scaling")["scaling"]
    names = {"seeds": "seeds", "environments": "environments per seed", "width": "width of all networks"}
    for axes, (name, title) in zip(others, names.items(), strict=True):
        _draw_scaling(axes, scaling[name], title)
    return figure


def _draw_authors(axes: Axes) -> None:
    """Draw medians over rounds of an update and a plan on two processors."""
    data = load_json("benchmarks/speed_vs_authors")
    processors = {"Zen 5": data["EPYC Turin (Zen 5)"]["rounds"], "Zen 4": data["EPYC Zen 4"]["rounds"]}
    groups = [(f"{what}\n{name}", rounds, what) for name, rounds in processors.items() for what in ("update", "plan")]
    style_axes(axes, "Paper sizes, 2 threads", "milliseconds, median of rounds")
    for index, (_, rounds, what) in enumerate(groups):
        for offset, who, colour in ((-0.2, "authors", ORANGE), (0.2, "cdred", BLUE)):
            times = [row[f"{what}_{who}_ms"] for row in rounds if row["threads"] == 2]
            label = {"authors": "authors' code (PyTorch)", "cdred": "cdred (JAX)"}[who]
            axes.bar(index + offset, np.median(times), 0.36, color=colour, label=None if index else label)
    axes.set_xticks(range(len(groups)), [label for label, _, _ in groups])
    draw_legend(axes, loc="upper left")
    axes.set_ylim(0, 2200)


def _draw_scaling(axes: Axes, times: dict[str, dict[str, float]], title: str) -> None:
    """Draw milliseconds over one size, and growth in proportion as a dotted line."""
    sizes = np.array([int(size) for size in times])
    style_axes(axes, title, "milliseconds for all")
    for key, colour, label in (("update_ms", BLUE, "update"), ("plan_ms", ORANGE, "plan")):
        values = np.array([row[key] for row in times.values()])
        axes.plot(sizes, values, color=colour, marker="o", markersize=4, label=label)
        axes.plot(sizes, values[0] * sizes / sizes[0], color=colour, linewidth=1, linestyle=":")
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.set_yticks([30, 100, 300, 1000], ["30", "100", "300", "1,000"])
    axes.set_ylim(20, 1300)
    axes.minorticks_off()
    draw_legend(axes, loc="upper left")


def main() -> None:
    """Draw every figure and save it under its function's name."""
    folder = RESULTS / "plots"
    folder.mkdir(exist_ok=True)
    for draw in (methods, metaworld, baselines, learning_curves, speed):
        draw().savefig(folder / f"{draw.__name__}.png", dpi=90, facecolor="white", metadata={"Software": None})
        print(folder / f"{draw.__name__}.png")


if __name__ == "__main__":
    main()
