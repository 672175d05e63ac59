"""What the alarms of docs/health.md would have said of every run whose curves are kept.

    python benchmarks/alarms.py results --json results/reliability/alarms.json

Most of these runs are older than the health panel, so its signs are worked out from their log lines: the gap of
the learned rewards from its means on expert and on own data, the growth of the values from the Q-scale.
"""

import argparse
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from cdred.loggers.alarms import LARGEST_CRITIC_GROWTH, SMALLEST_CRITIC_SCALE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="searched for metrics.jsonl at any depth")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    files = sorted(options.folder.rglob("metrics.jsonl"))
    gaps, growths, runs = [], [], 0
    for file in files:
        lines = list(train_lines(file))
        gaps_here = [gap(line) for line in lines if {"reward_expert", "reward_agent"} <= line.keys()]
        scales = [np.array(line["q_scale"]) for line in lines if "q_scale" in line]
        growths += [after / np.maximum(before, SMALLEST_CRITIC_SCALE) for before, after in pairwise(scales)]
        gaps += gaps_here
        runs += bool(gaps_here)
    gap_of, growth_of = np.concatenate(gaps), np.concatenate(growths)
    figures = {
        "runs_that_imitate": runs,
        "reward_margin": {"intervals": gap_of.size, "smallest": gap_of.min(), "raised": int(np.sum(gap_of <= 0))},
        "q_scale": {
            "intervals": growth_of.size,
            "largest_growth": growth_of.max(),
            "raised": int(np.sum(growth_of > LARGEST_CRITIC_GROWTH)),
        },
    }
    text = json.dumps(figures, indent=1, default=float)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


def train_lines(file: Path) -> Iterator[dict]:
    lines = map(json.loads, file.read_text().splitlines())
    return (line for line in lines if line["kind"] == "train")


def gap(line: dict) -> np.ndarray:
    """`reward_margin` of each seed over one log interval, as far as the interval has a learned reward on both."""
    expert, own = (np.array(line[name], float) for name in ("reward_expert", "reward_agent"))
    there = np.isfinite(expert) & np.isfinite(own) & (np.abs(expert) + np.abs(own) > 0)
    expert, own = expert[there], own[there]
    return (expert - own) / (np.abs(expert) + np.abs(own))


if __name__ == "__main__":
    main()
