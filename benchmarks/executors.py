"""Measure steps per second of `VectorEnv` in the calling thread, in threads and in processes, with random actions.

    python benchmarks/executors.py --json results/benchmarks/executors.json

All environments of a `VectorEnv` belong to one seed and are stepped together; time spent in resets counts. The
executors take turns, round by round, so that a busy machine slows all of them.
"""

import argparse
import os
import platform
import statistics
import time
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import numpy as np
from json_output import write_json

from cdred.envs.executors import usable_cores
from cdred.envs.vector_env import VectorEnv
from cdred.errors import UserError
from cdred.types import VectorizationMode

TASKS = ("metaworld/bin-picking", "dmc/walker-run", "dmc/dog-stand", "gym/HalfCheetah-v5", "maniskill/PickCube")
ENVIRONMENTS = (1, 2, 4, 8, 16)


def steps_per_second(envs: VectorEnv, generator: np.random.Generator, seconds: float) -> float:
    """Return the rate of all environments together."""
    start, steps = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        step = envs.step(generator.uniform(-1, 1, (*envs.shape, envs.spec.action_dim)).astype(np.float32))
        done = step.terminated | step.truncated
        if done.any():
            envs.reset(done)
        steps += done.size
    return steps / elapsed


def compare(task: str, count: int, rounds: int, seconds: float) -> dict[str, object]:
    """Return the median rate and the start-up time of every executor."""
    with ExitStack() as stack:
        vector_envs, start_up = {}, {}
        for mode in get_args(VectorizationMode):
            start = time.perf_counter()
            vector_envs[mode] = stack.enter_context(VectorEnv(task, [0], count, vectorization=mode))
            vector_envs[mode].reset()
            start_up[mode] = round(time.perf_counter() - start, 2)
        generator, rates = np.random.default_rng(0), {mode: [] for mode in vector_envs}
        for _ in range(rounds):
            for mode, envs in vector_envs.items():
                rates[mode].append(steps_per_second(envs, generator, seconds))
    medians = {mode: round(statistics.median(values), 1) for mode, values in rates.items()}
    return {"task": task, "environments": count, **medians, "seconds_to_start": start_up}


def compare_all(tasks: list[str], counts: list[int], rounds: int, seconds: float) -> list[dict[str, object]]:
    """Return one row per task and number of environments, or the reason why a task could not be made."""
    rows = []
    for task in tasks:
        for count in counts:
            try:
                rows.append(compare(task, count, rounds, seconds))
            except UserError as error:
                rows.append({"task": task, "skipped": str(error)})
            print(rows[-1], flush=True)
            if "skipped" in rows[-1]:
                break
    return rows


def main() -> None:
    """Compare the executors on all tasks and write the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rates here")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--environments", nargs="+", type=int, default=list(ENVIRONMENTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one round of one executor")
    options = parser.parse_args()
    load_before = os.getloadavg()[0]
    result = {
        "machine": {"cores": usable_cores(), "cpu": platform.machine(), "load_before": round(load_before, 2)},
        "versions": {name: version(name) for name in ("metaworld", "dm-control", "gymnasium", "mujoco", "numpy")},
        "method": {"rounds": options.rounds, "seconds": options.seconds, "statistic": "median of rounds"},
        "unit": "steps per second, all environments together",
        "rates": compare_all(options.tasks, options.environments, options.rounds, options.seconds),
    }
    write_json(options.json, result)


if __name__ == "__main__":
    main()
