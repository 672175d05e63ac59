"""Measure how often, and how soon, ManiSkill's motion planners succeed when replayed with the agent's actions.

    python benchmarks/maniskill_planners.py --json results/benchmarks/maniskill_planners.json

Every episode is stepped in cdred's environment from its seed, with the whole episode's actions of `PlannedExpert`.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from json_output import write_json

from cdred.demos.episodes import rollout
from cdred.envs.suites.maniskill import PlannedExpert, make, planned_expert, task_names

# Steps at which success is reported, in addition to the episode's end.
SUCCESS_STEPS = (50, 100)


def measure(name: str, episodes: int) -> dict[str, object]:
    """Return success rates and times of `episodes` planned episodes of one task."""
    env, rows, seconds, no_plan = make(name), [], 0.0, 0
    try:
        for seed in range(episodes):
            start = time.perf_counter()
            expert = PlannedExpert(env, seed)
            seconds += time.perf_counter() - start
            no_plan += not len(env.plan(seed))
            rows.append(rollout(env, seed, expert).success)
    finally:
        env.close()
    success = np.array(rows)
    first = [int(np.argmax(row)) + 1 for row in success if row.any()]
    return {
        "task": f"maniskill/{name}",
        "episodes": episodes,
        "steps": success.shape[1],
        "no_plan": no_plan,
        "success": round(float(success.any(axis=1).mean()), 2),
        "success_at_end": round(float(success[:, -1].mean()), 2),
        **{f"success_after_{t}": round(float(success[:, t - 1].mean()), 2) for t in SUCCESS_STEPS},
        "first_success": [min(first), int(np.median(first)), max(first)] if first else None,
        "seconds_per_plan": round(seconds / episodes, 1),
    }


def main() -> None:
    """Measure the tasks one by one; write the JSON file after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the results here, task by task")
    parser.add_argument("--tasks", nargs="+", default=[name for name in task_names() if planned_expert(name)])
    parser.add_argument("--episodes", type=int, default=8)
    options = parser.parse_args()
    rows = []
    for name in options.tasks:
        rows.append(measure(name, options.episodes))
        print(rows[-1], flush=True)
        write_json(options.json, rows)


if __name__ == "__main__":
    main()
