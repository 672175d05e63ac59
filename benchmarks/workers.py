"""Steps per second of `VectorEnv` stepped in the calling thread, by threads and by processes, with random actions.

    python benchmarks/workers.py --json results/grid/workers.json

All environments of a grid are one seed's, so a row of 16 is 16 environments stepped in lockstep; time lost in resets
counts. Ways take turns, round by round, so that a busy machine slows all of them.
"""

import argparse
import json
import os
import platform
import statistics
import time
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import numpy as np

from cdred.envs.executors import usable_cores
from cdred.envs.vector_env import VectorEnv
from cdred.errors import UserError
from cdred.types import VectorizationMode

TASKS = ("metaworld/bin-picking", "dmc/walker-run", "dmc/dog-stand", "gym/HalfCheetah-v5", "maniskill/PickCube")
ENVIRONMENTS = (1, 2, 4, 8, 16)


def rate(grid: VectorEnv, generator: np.random.Generator, seconds: float) -> float:
    """Steps of all environments a second."""
    start, steps = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        step = grid.step(generator.uniform(-1, 1, (*grid.shape, grid.spec.action_dim)).astype(np.float32))
        done = step.terminated | step.truncated
        if done.any():
            grid.reset(done)
        steps += done.size
    return steps / elapsed


def compare(task: str, count: int, rounds: int, seconds: float) -> dict[str, object]:
    """Median rates of the ways, which take turns, and what they cost to start."""
    with ExitStack() as stack:
        grids, started = {}, {}
        for way in get_args(VectorizationMode):
            begin = time.perf_counter()
            grids[way] = stack.enter_context(VectorEnv(task, [0], count, vectorization=way))
            grids[way].reset()
            started[way] = round(time.perf_counter() - begin, 2)
        generator, rates = np.random.default_rng(0), {way: [] for way in grids}
        for _ in range(rounds):
            for way, grid in grids.items():
                rates[way].append(rate(grid, generator, seconds))
    medians = {way: round(statistics.median(values), 1) for way, values in rates.items()}
    return {"task": task, "environments": count, **medians, "seconds_to_start": started}


def measured(tasks: list[str], counts: list[int], rounds: int, seconds: float) -> list[dict[str, object]]:
    """One row for each task and number of environments; a task that cannot be made here says why."""
    rows = []
    for task in tasks:
        for count in counts:
            try:
                rows.append(compare(task, count, rounds, seconds))
            except UserError as error:
                rows.append({"task": task, "left_out": str(error)})
            print(rows[-1], flush=True)
            if "left_out" in rows[-1]:
                break
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--environments", nargs="+", type=int, default=list(ENVIRONMENTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one round of one way")
    options = parser.parse_args()
    load_before = os.getloadavg()[0]
    result = {
        "machine": {"cores": usable_cores(), "cpu": platform.machine(), "load_before": round(load_before, 2)},
        "versions": {name: version(name) for name in ("metaworld", "dm-control", "gymnasium", "mujoco", "numpy")},
        "method": {"rounds": options.rounds, "seconds": options.seconds, "statistic": "median of rounds"},
        "unit": "steps per second, all environments together",
        "rates": measured(options.tasks, options.environments, options.rounds, options.seconds),
    }
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
