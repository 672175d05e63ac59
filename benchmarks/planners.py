"""How often, and how soon, ManiSkill's motion planners succeed once they are redone in the agent's actions.

    python benchmarks/planners.py --json results/maniskill/planners.json

Every episode is stepped in our own environment from its seed, with the whole episode's actions of `PlannedExpert`.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from cdred.demos.episodes import rollout
from cdred.envs.suites.maniskill import PlannedExpert, make, names, planned_expert

# Steps after which a success counts as kept, in addition to the episode's end.
AFTER = (50, 100)


def measure(name: str, episodes: int) -> dict[str, object]:
    """What `episodes` planned episodes came to."""
    env, rows, seconds, unplanned = make(name), [], 0.0, 0
    try:
        for seed in range(episodes):
            begin = time.perf_counter()
            expert = PlannedExpert(env, seed)
            seconds += time.perf_counter() - begin
            unplanned += not len(env.plan(seed))
            rows.append(rollout(env, seed, expert).success)
    finally:
        env.close()
    success = np.array(rows)
    first = [int(np.argmax(row)) + 1 for row in success if row.any()]
    return {
        "task": f"maniskill/{name}",
        "episodes": episodes,
        "steps": success.shape[1],
        "no_plan": unplanned,
        "success": round(float(success.any(axis=1).mean()), 2),
        "success_at_end": round(float(success[:, -1].mean()), 2),
        **{f"success_after_{t}": round(float(success[:, t - 1].mean()), 2) for t in AFTER},
        "first_success": [min(first), int(np.median(first)), max(first)] if first else None,
        "seconds_per_plan": round(seconds / episodes, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here, task by task")
    parser.add_argument("--tasks", nargs="+", default=[name for name in names() if planned_expert(name)])
    parser.add_argument("--episodes", type=int, default=8)
    options = parser.parse_args()
    rows = []
    for name in options.tasks:
        rows.append(measure(name, options.episodes))
        print(rows[-1], flush=True)
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
