"""Correlate a run's learned reward with the environment's reward, which no imitation method has seen.

    python benchmarks/reward_correlation.py RUN [RUN ...] [--json FILE]

Pearson's r of the final agent's reward (arXiv 2410.14081 does so for IQ-MPC's decoded reward) over all collected
transitions, from the random episodes to the last; over the last quarter alone; over the sums of each episode; and, per
step, over all transitions together with the bundled demonstrations that the run was not given, where there are any.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from json_output import write_json

import cdred
from cdred.checkpoint import checkpoint
from cdred.config import RunConfig
from cdred.config_file import read_config
from cdred.data.demonstrations import bundled_demos
from cdred.provenance import provenance
from cdred.types import Trajectory


def main() -> None:
    """Print a line per run and seed, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [row for run in options.runs for row in correlations(run)]
    for row in rows:
        line = "{run:30} seed {seed}  all {all:+.2f}  last quarter {last_quarter:+.2f}  episodes {episodes:+.2f}"
        print(line.format(**row), end="")
        print("  with {unseen} unseen {with_unseen:+.2f}".format(**row) if row["unseen"] else "")
    write_json(options.json, provenance() | {"rows": rows})


def correlations(run: Path) -> list[dict[str, object]]:
    """Return Pearson's r per seed of a finished run with one environment per seed."""
    result = json.loads((run / "result.json").read_text())
    newest = checkpoint.latest(run / "checkpoints")
    assert newest, f"{run} has no checkpoint"
    saved, unseen = checkpoint.load_arrays(newest), unseen_demos(read_config(run / "config.yaml"))
    rows = []
    for index, seed in enumerate(result["seeds"]):
        names = ("obs", "action", "reward", "episode_step")
        obs, action, reward, episode_step = (saved[f"replay/{name}"][index, 0] for name in names)
        # A row is a transition if the next one continues its episode.
        transitions = np.flatnonzero((episode_step[:-1] >= 0) & (episode_step[1:] == episode_step[:-1] + 1))
        agent = cdred.load(run, seed=seed)
        learned, true = agent.reward(obs[transitions], action[transitions]), reward[transitions]
        last, starts = slice(len(transitions) * 3 // 4, None), np.flatnonzero(episode_step[transitions] == 0)
        row = {
            "run": run.name,
            "seed": seed,
            "all": pearson(learned, true),
            "last_quarter": pearson(learned[last], true[last]),
            "episodes": pearson(np.add.reduceat(learned, starts), np.add.reduceat(true, starts)),
            "steps": len(transitions),
            "unseen": len(unseen),
        }
        if unseen:
            demo_learned = np.concatenate([agent.reward(demo.obs[:-1], demo.action) for demo in unseen])
            demo_true = np.concatenate([demo.reward for demo in unseen])
            row["with_unseen"] = pearson(np.concatenate([learned, demo_learned]), np.concatenate([true, demo_true]))
        rows.append(row)
    return rows


def unseen_demos(config: RunConfig) -> list[Trajectory]:
    """Return the bundled demonstrations after the first `--demos N`; none if the run was given a file."""
    path, num_given = bundled_demos().get(config.task), config.demos
    return list(cdred.load_demos(path).trajectories)[int(num_given) :] if path and num_given.isdigit() else []


def pearson(learned: np.ndarray, true: np.ndarray) -> float:
    """Return Pearson's r of two rewards `[N]`."""
    return float(np.corrcoef(learned, true)[0, 1])


if __name__ == "__main__":
    main()
