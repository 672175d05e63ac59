"""How a run's learned reward goes with the environment's own, which no imitation method has seen.

    python benchmarks/reward_correlation.py RUN [RUN ...] [--json FILE]

Pearson's correlation over everything that the agent lived through, from its random episodes to its last, by the reward
of the final agent (arXiv 2410.14081 does so for IQ-MPC's decoded reward); over the last quarter alone; of the sums over
each of its episodes; and, step by step, over everything and those of the package's demonstrations that the run
was not given, where there are any.
"""

import argparse
import json
from pathlib import Path

import numpy as np

import cdred
from cdred.checkpoint import checkpoint
from cdred.config import RunConfig
from cdred.config_file import read_config
from cdred.data.shipped import shipped
from cdred.provenance import origin
from cdred.types import Trajectory


def main() -> None:
    """Print a line per run and seed, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [row for run in options.runs for row in correlations(run)]
    for row in rows:
        told = "{run:30} seed {seed}  all {all:+.2f}  last quarter {last_quarter:+.2f}  episodes {episodes:+.2f}"
        print(told.format(**row), end="")
        print("  with {unseen} unseen {with_unseen:+.2f}".format(**row) if row["unseen"] else "")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(origin() | {"rows": rows}, indent=1) + "\n")


def correlations(run: Path) -> list[dict[str, object]]:
    """Pearson's r per seed of a finished run with one environment per seed."""
    result = json.loads((run / "result.json").read_text())
    newest = checkpoint.latest(run / "checkpoints")
    assert newest, f"{run} has no checkpoint"
    saved, unseen = checkpoint.load_arrays(newest), unseen_demos(read_config(run / "config.yaml"))
    rows = []
    for index, seed in enumerate(result["seeds"]):
        obs, action, reward, time = (saved[f"replay/{name}"][index, 0] for name in ("obs", "action", "reward", "time"))
        # A row is a transition if the next one continues its episode.
        lived = np.flatnonzero((time[:-1] >= 0) & (time[1:] == time[:-1] + 1))
        agent = cdred.load(run, seed=seed)
        said, true = agent.reward(obs[lived], action[lived]), reward[lived]
        last, begins = slice(len(lived) * 3 // 4, None), np.flatnonzero(time[lived] == 0)
        row = {
            "run": run.name,
            "seed": seed,
            "all": pearson(said, true),
            "last_quarter": pearson(said[last], true[last]),
            "episodes": pearson(np.add.reduceat(said, begins), np.add.reduceat(true, begins)),
            "steps": len(lived),
            "unseen": len(unseen),
        }
        if unseen:
            theirs = np.concatenate([agent.reward(one.obs[:-1], one.action) for one in unseen])
            rewards = np.concatenate([one.reward for one in unseen])
            row["with_unseen"] = pearson(np.concatenate([said, theirs]), np.concatenate([true, rewards]))
        rows.append(row)
    return rows


def unseen_demos(config: RunConfig) -> list[Trajectory]:
    """What comes with the package beyond the run's own, the first `--demos N`; none if it was given a file."""
    path, given = shipped(config.task), config.demos
    return list(cdred.load_demos(path).trajectories)[int(given) :] if path and given.isdigit() else []


def pearson(said: np.ndarray, true: np.ndarray) -> float:
    """Pearson's r of two rewards `[N]`."""
    return float(np.corrcoef(said, true)[0, 1])


if __name__ == "__main__":
    main()
