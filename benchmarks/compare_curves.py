"""Compare learning curves of the same settings before and after a change of the code.

    python benchmarks/compare_curves.py --before OLD/A OLD/B --after NEW/A NEW/B --out FOLDER

For each pair of run folders: the exploring agents' return, the learned reward on the agent's data and the critics'
loss, as the mean over seeds with its 95 % interval (Student's t, since seeds are few), up to the last step that both
runs reached; and the means over that time as numbers. Writes `curves.png` and `curves.json` to FOLDER.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from json_output import write_json
from matplotlib.figure import Figure
from scipy import stats

from cdred.report import plots
from cdred.report.plots import BLUE, ORANGE, Label
from cdred.report.results import RunResults, Series, read_run

# Kind, key, title, and number of log lines that each point averages.
METRICS = (
    ("rollout", "episode_return", "Return while exploring", 5),
    ("train", "reward_agent", "Learned reward on agent data", 5),
    ("train", "critic_loss", "Critic loss", 5),
)
# During the random episodes the critic loss is ten times larger, which would hide everything else.
FIRST_STEP = 1000


def main() -> None:
    """Draw, write, and print a line per task and metric."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", nargs="+", type=Path, required=True, metavar="RUN")
    parser.add_argument("--after", nargs="+", type=Path, required=True, metavar="RUN")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    pairs = [(read_run(old), read_run(new)) for old, new in zip(options.before, options.after, strict=True)]
    rows = [row for pair in pairs for row in compare(*pair)]
    for row in rows:
        print(
            f"{row['task']:28} {row['metric']:28} before {row['before_mean']:9.3f} after {row['after_mean']:9.3f}  "
            f"difference {row['difference']:+.3f} (95 %: {row['interval'][0]:+.3f} to {row['interval'][1]:+.3f})"
        )
    write_json(options.out / "curves.json", rows)
    draw(pairs).savefig(options.out / "curves.png", dpi=90)


def compare(before: RunResults, after: RunResults) -> list[dict[str, Any]]:
    """Return the seeds' means of every metric and Welch's interval of the difference."""
    assert before.metadata["task"] == after.metadata["task"], f"{before.folder} and {after.folder} have different tasks"
    rows = []
    for kind, key, title, _ in METRICS:
        old, new = (np.nanmean(series.values, axis=0) for series in common_range(before, after, kind, key))
        interval = stats.ttest_ind(new, old, equal_var=False).confidence_interval(0.95)
        rows.append(
            {
                "task": before.metadata["task"],
                "metric": title,
                "before": old.tolist(),
                "after": new.tolist(),
                "before_mean": float(old.mean()),
                "after_mean": float(new.mean()),
                "difference": float(new.mean() - old.mean()),
                "interval": [float(interval.low), float(interval.high)],
            }
        )
    return rows


def common_range(before: RunResults, after: RunResults, kind: str, key: str, window: int = 1) -> list[Series]:
    """Return a metric of each run, averaged over `window` log lines, from `FIRST_STEP` to their common last step."""
    last, result = min(before.last_step, after.last_step), []
    for record in (before, after):
        series = record.series(kind, key)
        mask = (series.steps >= FIRST_STEP) & (series.steps <= last)
        result.append(Series(series.steps[mask], plots.running_mean(series.values, window)[mask]))
    return result


def draw(pairs: list[tuple[RunResults, RunResults]]) -> Figure:
    """Draw a row of panels per task, a column per metric."""
    figure = Figure(figsize=(5.4 * len(METRICS), 4.2 * len(pairs)), facecolor="white", layout="tight")
    panels = figure.subplots(len(pairs), len(METRICS), squeeze=False)
    for row, (before, after) in zip(panels, pairs, strict=True):
        for axes, (kind, key, title, window) in zip(row, METRICS, strict=True):
            plots.style_axes(axes, title, before.metadata["task"], min(before.last_step, after.last_step))
            curves = common_range(before, after, kind, key, window)
            labels = [
                Label(draw_interval(axes, series, colour), name, colour)
                for series, name, colour in zip(curves, ("before", "after"), (BLUE, ORANGE), strict=True)
            ]
            plots.label_line_ends(axes, labels)
    return figure


def draw_interval(axes, series: Series, colour: str) -> float:
    """Draw the mean over seeds and its 95 % interval; return the mean's last value."""
    values = series.values
    mean, num = values.mean(axis=1), values.shape[1]
    half = stats.t.ppf(0.975, num - 1) * values.std(axis=1, ddof=1) / np.sqrt(num)
    axes.fill_between(series.steps, mean - half, mean + half, color=colour, alpha=0.15, linewidth=0)
    axes.plot(series.steps, mean, color=colour, linewidth=2.2)
    return float(mean[-1])


if __name__ == "__main__":
    main()
