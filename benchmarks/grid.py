"""Steps per second of `VectorEnv` beside EnvPool, on the same tasks with random actions; and what EnvPool can seed.

    python benchmarks/grid.py --json results/grid/grid.json

A step is two simulator frames with one action, as everywhere in this package; time lost in resets counts. Engines
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

Advance = Callable[[], None]


def grid_engine(task: str, count: int) -> Advance:
    """One step of `count` environments of ours."""
    grid = VectorEnv(task, range(count))
    generator = np.random.default_rng(0)
    grid.reset()

    def advance() -> None:
        step = grid.step(generator.uniform(-1, 1, (count, 1, grid.spec.action_dim)).astype(np.float32))
        done = step.terminated | step.truncated
        if done.any():
            grid.reset(done)

    return advance


def pool_engine(task: str, count: int, threads: int) -> Advance:
    """One step of `count` of EnvPool's environments, which reset themselves."""
    pool = make_pool(task, count, threads)
    generator = np.random.default_rng(0)
    pool.reset()
    size, dtype = pool.action_space.shape[0], pool.action_space.dtype

    def advance() -> None:
        action = generator.uniform(-1, 1, (count, size)).astype(dtype)
        for _ in range(ACTION_REPEAT):
            pool.step(action)

    return advance


def make_pool(task: str, count: int, threads: int, seed: int = 0):
    name, options = TASKS[task]
    return envpool.make(name, env_type="gymnasium", num_envs=count, num_threads=threads, seed=seed, **options)


def rate(advance: Advance, count: int, seconds: float) -> float:
    """Steps of all `count` environments a second."""
    start, steps = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        advance()
        steps += count
    return steps / elapsed


def compare(task: str, count: int, rounds: int, seconds: float) -> dict[str, object]:
    """Median rates of the engines, which run in turns."""
    cores = os.cpu_count() or 1
    engines = {"grid": grid_engine(task, count)}
    for threads in sorted({1, min(count, cores)}):
        engines[f"envpool_{threads}_threads"] = pool_engine(task, count, threads)
    rates: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, advance in engines.items():
            rates[name].append(rate(advance, count, seconds))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ratios = {name: median / medians["grid"] for name, median in medians.items() if name != "grid"}
    rounded = {name: round(median) for name, median in medians.items()}
    return {"task": task, "environments": count, **rounded, "over_grid": {k: round(v, 2) for k, v in ratios.items()}}


def observed(pool, **options) -> np.ndarray:
    """The first observation of the pool's next episode, flattened."""
    obs = pool.reset(**options)[0]
    return np.concatenate([np.ravel(part) for part in (obs.values() if isinstance(obs, dict) else [obs])])


def facts(task: str) -> dict[str, object]:
    """What EnvPool does with seeds and ended episodes, tried rather than read."""
    start = time.perf_counter()
    pool = make_pool(task, 1, 1, seed=7)
    first = observed(pool)
    seconds = time.perf_counter() - start
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same_by_reset = np.array_equal(first, observed(pool, seed=7))
    same_by_construction = np.array_equal(first, observed(make_pool(task, 1, 1, seed=7)))
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
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
        "envpool_facts": {task: facts(task) for task in ("metaworld/bin-picking", "dmc/cheetah-run")},
    }
    print(json.dumps(result["envpool_facts"], indent=2))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
