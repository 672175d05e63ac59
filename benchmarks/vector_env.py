"""Measure steps per second of `VectorEnv` and EnvPool on the same tasks with random actions, and EnvPool's seeding.

    python benchmarks/vector_env.py --json results/benchmarks/vector_env_vs_envpool.json

A step is two simulator frames with one action, as everywhere in this package; time spent in resets counts. The engines
take turns, round by round, so that a busy machine slows all of them.
"""

import argparse
import json
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import envpool
import numpy as np
from json_output import write_json

from cdred.envs.vector_env import VectorEnv

# EnvPool's name of each task, and the options that make it the same task.
TASKS = {
    "metaworld/bin-picking": ("MetaWorld/BinPicking-v3", {"partially_observable": False, "max_episode_steps": 200}),
    "metaworld/drawer-close": ("MetaWorld/DrawerClose-v3", {"partially_observable": False, "max_episode_steps": 200}),
    "dmc/cheetah-run": ("CheetahRun-v1", {}),
    "dmc/walker-run": ("WalkerRun-v1", {}),
}
ENVIRONMENTS = (1, 3, 16)
ACTION_REPEAT = 2

StepFn = Callable[[], None]


def vector_env_engine(task: str, count: int) -> StepFn:
    """Return a function that steps `count` environments of `VectorEnv` once."""
    envs = VectorEnv(task, range(count))
    generator = np.random.default_rng(0)
    envs.reset()

    def step_once() -> None:
        step = envs.step(generator.uniform(-1, 1, (count, 1, envs.spec.action_dim)).astype(np.float32))
        done = step.terminated | step.truncated
        if done.any():
            envs.reset(done)

    return step_once


def envpool_engine(task: str, count: int, threads: int) -> StepFn:
    """Return a function that steps `count` environments of EnvPool once; they reset themselves."""
    pool = make_pool(task, count, threads)
    generator = np.random.default_rng(0)
    pool.reset()
    size, dtype = pool.action_space.shape[0], pool.action_space.dtype

    def step_once() -> None:
        action = generator.uniform(-1, 1, (count, size)).astype(dtype)
        for _ in range(ACTION_REPEAT):
            pool.step(action)

    return step_once


def make_pool(task: str, count: int, threads: int, seed: int = 0):
    """Return EnvPool's environments of this task."""
    name, options = TASKS[task]
    return envpool.make(name, env_type="gymnasium", num_envs=count, num_threads=threads, seed=seed, **options)


def steps_per_second(step_once: StepFn, count: int, seconds: float) -> float:
    """Return the rate of all `count` environments together."""
    start, steps = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        step_once()
        steps += count
    return steps / elapsed


def compare(task: str, count: int, rounds: int, seconds: float) -> dict[str, object]:
    """Return the median rates of the engines and their ratios to `VectorEnv`."""
    cores = os.cpu_count() or 1
    engines = {"vector_env": vector_env_engine(task, count)}
    for threads in sorted({1, min(count, cores)}):
        engines[f"envpool_{threads}_threads"] = envpool_engine(task, count, threads)
    rates: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, step_once in engines.items():
            rates[name].append(steps_per_second(step_once, count, seconds))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ratios = {name: round(rate / medians["vector_env"], 2) for name, rate in medians.items() if name != "vector_env"}
    rounded = {name: round(rate) for name, rate in medians.items()}
    return {"task": task, "environments": count, **rounded, "over_vector_env": ratios}


def first_obs(pool, **options) -> np.ndarray:
    """Return the first observation of the pool's next episode, flattened."""
    obs = pool.reset(**options)[0]
    return np.concatenate([np.ravel(array) for array in (obs.values() if isinstance(obs, dict) else [obs])])


def envpool_facts(task: str) -> dict[str, object]:
    """Test what EnvPool does with seeds and with the step after an episode's end."""
    start = time.perf_counter()
    pool = make_pool(task, 1, 1, seed=7)
    first = first_obs(pool)
    seconds = time.perf_counter() - start
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same_by_reset = np.array_equal(first, first_obs(pool, seed=7))
    same_by_construction = np.array_equal(first, first_obs(make_pool(task, 1, 1, seed=7)))
    action = np.zeros((1, *pool.action_space.shape), pool.action_space.dtype)
    pool.reset()
    while not np.any(pool.step(action)[3]):
        pass
    elapsed = int(pool.step(action)[4]["elapsed_step"][0])
    return {
        "reset_seed_reproduces_episode": same_by_reset,
        "construction_seed_reproduces_first_episode": same_by_construction,
        "seconds_from_construction_to_first_observation": round(seconds, 3),
        "step_after_end_resets_and_drops_the_action": elapsed == 0,
    }


def main() -> None:
    """Compare the engines on all tasks and write the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rates here")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.7, help="of one round of one engine")
    options = parser.parse_args()
    load_before = os.getloadavg()[0]
    rows = []
    for task in TASKS:
        for count in ENVIRONMENTS:
            rows.append(compare(task, count, options.rounds, options.seconds))
            print(rows[-1], flush=True)
    result = {
        "machine": {"cores": os.cpu_count(), "cpu": platform.machine(), "load_before": round(load_before, 2)},
        "versions": {name: version(name) for name in ("envpool", "metaworld", "dm-control", "mujoco", "numpy")},
        "method": {"rounds": options.rounds, "seconds": options.seconds, "statistic": "median of rounds"},
        "unit": "steps per second, all environments together",
        "rates": rows,
        "envpool_facts": {task: envpool_facts(task) for task in ("metaworld/bin-picking", "dmc/cheetah-run")},
    }
    print(json.dumps(result["envpool_facts"], indent=1))
    write_json(options.json, result)


if __name__ == "__main__":
    main()
