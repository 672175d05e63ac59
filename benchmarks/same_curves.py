"""Whether a change of the code changed what is learned: runs of the same settings before and after it, side by side.

    python benchmarks/same_curves.py --before OLD/A OLD/B --after NEW/A NEW/B --out FOLDER

For each pair of run folders the exploring agents' return, the learned reward on their own data and the critics' loss,
as the mean over seeds with its 95 % interval (Student's t, since seeds are few), as far as both runs went; and the same
of all that time as numbers. Writes `curves.png` and `curves.json` to FOLDER.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from cdred.report import plots
from cdred.report.plots import BLUE, ORANGE, Label
from cdred.report.results import Record, Series, read_record

# Kind, key, title, and over how many reports each point is a mean.
SHOWN = (
    ("episode", "episode_return", "Return while exploring", 5),
    ("train", "reward_agent", "Learned reward on own data", 5),
    ("train", "critic_loss", "Critics' loss", 5),
)
# Beside the critics of the random episodes, whose loss falls by a factor of ten, nothing else would be seen.
SETTLED = 1000


def main() -> None:
    """Draw, write, and print a line per task and metric."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", nargs="+", type=Path, required=True, metavar="RUN")
    parser.add_argument("--after", nargs="+", type=Path, required=True, metavar="RUN")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    pairs = [(read_record(one), read_record(other)) for one, other in zip(options.before, options.after, strict=True)]
    rows = [row for pair in pairs for row in compared(*pair)]
    for row in rows:
        print(
            f"{row['task']:28} {row['what']:28} before {row['before_mean']:9.3f} after {row['after_mean']:9.3f}  "
            f"difference {row['difference']:+.3f} (95 %: {row['interval'][0]:+.3f} to {row['interval'][1]:+.3f})"
        )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "curves.json").write_text(json.dumps(rows, indent=1) + "\n")
    drawn(pairs).savefig(options.out / "curves.png", dpi=90)


def compared(before: Record, after: Record) -> list[dict[str, Any]]:
    """Per metric the seeds' means over all settled steps of both, and Welch's interval of the difference."""
    assert before.about["task"] == after.about["task"], f"{before.folder} and {after.folder} are of two tasks"
    rows = []
    for kind, key, title, _ in SHOWN:
        old, new = (np.nanmean(one.values, axis=0) for one in settled(before, after, kind, key))
        interval = stats.ttest_ind(new, old, equal_var=False).confidence_interval(0.95)
        rows.append(
            {
                "task": before.about["task"],
                "what": title,
                "before": old.tolist(),
                "after": new.tolist(),
                "before_mean": float(old.mean()),
                "after_mean": float(new.mean()),
                "difference": float(new.mean() - old.mean()),
                "interval": [float(interval.low), float(interval.high)],
            }
        )
    return rows


def settled(before: Record, after: Record, kind: str, key: str, window: int = 1) -> list[Series]:
    """A metric of each, a running mean over `window` reports, from `SETTLED` steps as far as both runs went."""
    last, cut = min(before.last_step, after.last_step), []
    for record in (before, after):
        series = record.series(kind, key)
        there = (series.steps >= SETTLED) & (series.steps <= last)
        cut.append(Series(series.steps[there], plots.running_mean(series.values, window)[there]))
    return cut


def drawn(pairs: list[tuple[Record, Record]]) -> Figure:
    """A row per task, a column per metric."""
    figure = Figure(figsize=(5.4 * len(SHOWN), 4.2 * len(pairs)), facecolor="white", layout="tight")
    panels = figure.subplots(len(pairs), len(SHOWN), squeeze=False)
    for row, (before, after) in zip(panels, pairs, strict=True):
        for axes, (kind, key, title, window) in zip(row, SHOWN, strict=True):
            plots.panel(axes, title, before.about["task"], min(before.last_step, after.last_step))
            both = settled(before, after, kind, key, window)
            ends = [
                Label(band(axes, series, colour), name, colour)
                for series, name, colour in zip(both, ("before", "after"), (BLUE, ORANGE), strict=True)
            ]
            plots.name_ends(axes, ends)
    return figure


def band(axes, series: Series, colour: str) -> float:
    """The mean over seeds and its 95 % interval; where the mean ends."""
    values = series.values
    middle, num = values.mean(axis=1), values.shape[1]
    half = stats.t.ppf(0.975, num - 1) * values.std(axis=1, ddof=1) / np.sqrt(num)
    axes.fill_between(series.steps, middle - half, middle + half, color=colour, alpha=0.15, linewidth=0)
    axes.plot(series.steps, middle, color=colour, linewidth=2.2)
    return float(middle[-1])


if __name__ == "__main__":
    main()
