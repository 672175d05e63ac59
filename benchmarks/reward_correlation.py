"""How a run's learned reward goes with the environment's own, which no imitation method has seen.

    python benchmarks/reward_correlation.py RUN [RUN ...] [--json FILE]

Pearson's correlation over everything that the agent lived through, from its random episodes to its last, by the reward
of the final agent (arXiv 2410.14081 does so for IQ-MPC's decoded reward); and over the last quarter alone.
"""

import argparse
import json
from pathlib import Path

import numpy as np

import cdred
from cdred.train import checkpoint
from cdred.train.origin import origin


def main() -> None:
    """Print a line per run and seed, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [row for run in options.runs for row in correlations(run)]
    for row in rows:
        print(f"{row['run']:30} seed {row['seed']}  all {row['all']:+.2f}  last quarter {row['last_quarter']:+.2f}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(origin() | {"rows": rows}, indent=1) + "\n")


def correlations(run: Path) -> list[dict[str, object]]:
    """Pearson's r per seed of a finished run with one environment per seed."""
    seeds = json.loads((run / "result.json").read_text())["seeds"]
    newest = checkpoint.latest(run / "checkpoints")
    assert newest, f"{run} has no checkpoint"
    saved = checkpoint.load_arrays(newest)
    rows = []
    for index, seed in enumerate(seeds):
        obs, action, reward, time = (saved[f"replay/{name}"][index, 0] for name in ("obs", "action", "reward", "time"))
        # A row is a transition if the next one continues its episode.
        lived = np.flatnonzero((time[:-1] >= 0) & (time[1:] == time[:-1] + 1))
        said = cdred.load(run, seed=seed).reward(obs[lived], action[lived])
        last = slice(len(lived) * 3 // 4, None)
        true = reward[lived]
        rows.append(
            {
                "run": run.name,
                "seed": seed,
                "all": float(np.corrcoef(said, true)[0, 1]),
                "last_quarter": float(np.corrcoef(said[last], true[last])[0, 1]),
                "decisions": len(lived),
            }
        )
    return rows


if __name__ == "__main__":
    main()
