"""Measure the time of an action in a 20 Hz control loop, by the policy and by the planner.

    taskset -c 0 python benchmarks/control_loop.py RUN --json results/benchmarks/control_loop.json

The agent acts in its task's environment, and sleeps for the rest of every period as a robot's loop would. The first
action after `Agent.warm_up` counts too.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
from json_output import write_json

import cdred
from cdred.envs.registry import make
from cdred.provenance import provenance


def action_seconds(agent: cdred.Agent, steps: int, period: float) -> list[float]:
    """Return the seconds that each of `steps` actions took."""
    env, seconds, seed = make(agent.spec.task), [], 0
    obs, _ = env.reset(seed), agent.warm_up().reset()
    while len(seconds) < steps:
        start = time.perf_counter()
        action = agent.act(obs, normalized=True)
        seconds.append(time.perf_counter() - start)
        step = env.step(action)
        obs = step.obs
        if step.terminated or step.truncated:
            seed += 1
            obs, _ = env.reset(seed), agent.reset()
        time.sleep(max(0.0, period - (time.perf_counter() - start)))
    env.close()
    return seconds


def main() -> None:
    """Measure both ways to act, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=20.0, help="actions per second")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = {}
    for planner in ("policy", "mppi"):
        agent = cdred.load(options.run, planner=planner)
        milliseconds = 1000 * np.array(action_seconds(agent, options.steps, 1 / options.rate))
        p50, p99 = np.percentile(milliseconds, (50, 99))
        late = float(np.mean(milliseconds > 1000 / options.rate))
        rows[planner] = {"p50_ms": p50, "p99_ms": p99, "max_ms": milliseconds.max(), "late": late}
        print(f"{planner:<7} p50 {p50:.2f} ms, p99 {p99:.2f} ms, late {late:.1%} of {options.steps} actions")
    cores = len(os.sched_getaffinity(0))
    facts = {"task": agent.spec.task, "rate_hz": options.rate, "steps": options.steps, "cores": cores}
    write_json(options.json, provenance() | facts | {"times": rows})


if __name__ == "__main__":
    main()
