"""How long one update and one plan take, for 1 to 8 seeds in lockstep.

    python benchmarks/programs.py [--preset cpu] [--seeds 1 2 4 8] [--json FILE]

Random data of Meta-World's sizes (39 observed, 4 done). Medians over repeats, after compilation; beside them a matrix
product's rate on the same machine in the same run, so that figures from different machines can be compared.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cdred.config import preset
from cdred.data.replay import Replay, Transition
from cdred.train.loop import make_programs
from cdred.train.origin import origin
from cdred.train.programs import ACT, INIT, LEARN, Programs, seed_keys
from cdred.types import EnvSpec

SPEC = EnvSpec("benchmark", (39,), 4, 100)


def main() -> None:
    """Measure, print, and write JSON if asked."""
    options = arguments()
    programs = make_programs(preset(options.preset), SPEC)
    result = origin() | {"preset": options.preset, "matmul_gflops": matmul_gflops(), "seeds": {}}
    print(f"{result['device']}, matrix product {result['matmul_gflops']:.0f} GFLOP/s")
    for num in options.seeds:
        row = measure(programs, num, options.repeats)
        result["seeds"][num] = row
        print(f"{num:3} seeds: update {row['update_ms']:7.2f} ms, plan {row['plan_ms']:7.2f} ms, all seeds together")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="cpu", choices=("cpu", "paper", "debug"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def measure(programs: Programs, num_seeds: int, repeats: int) -> dict[str, float]:
    """Milliseconds of one update and of one plan of `num_seeds` seeds."""
    seeds = tuple(range(num_seeds))
    learner = programs.init(seed_keys(seeds, INIT))
    replay = programs.store(
        jax.vmap(lambda _: Replay.init(SPEC, 1, 2100, 3))(jnp.arange(num_seeds)), episodes(num_seeds)
    )
    expert = jax.tree.map(lambda x: x[0], replay)
    learn_keys, act_keys = seed_keys(seeds, LEARN), seed_keys(seeds, ACT)
    plan, obs, fresh = (
        programs.init_plan(num_seeds, 1),
        np.zeros((num_seeds, 1, 39), np.float32),
        np.ones((num_seeds, 1), bool),
    )

    def learn(count: int) -> jax.Array:
        nonlocal learner
        learner, metrics = programs.learn(learner, replay, expert, learn_keys, np.int32(count))
        return metrics["loss"]

    def act(count: int) -> jax.Array:
        nonlocal plan
        action, plan = programs.act(learner, plan, obs, fresh, act_keys, np.int32(count), True)
        return action

    return {"update_ms": median_ms(learn, repeats) / programs.updates, "plan_ms": median_ms(act, 5 * repeats)}


def episodes(num_seeds: int) -> Transition:
    """Twenty episodes of noise per seed."""
    rng, shape = np.random.default_rng(0), (num_seeds, 2000, 1)
    obs = rng.normal(size=(num_seeds, 2001, 1, 39)).astype(np.float32)
    action = rng.uniform(-1, 1, (*shape, 4)).astype(np.float32)
    done = np.broadcast_to((np.arange(1, 2001) % 100 == 0)[None, :, None], shape)
    return Transition(obs[:, :-1], action, np.zeros(shape, np.float32), obs[:, 1:], np.zeros(shape, bool), done)


def matmul_gflops() -> float:
    """Rate of a 1024 x 1024 float32 matrix product."""
    x = jnp.ones((1024, 1024))
    product = jax.jit(lambda x: x @ x)
    return 2 * 1024**3 / median_ms(lambda _: product(x), 15) / 1e6


def median_ms(call: Callable[[int], jax.Array], repeats: int) -> float:
    """Median milliseconds of `call(i)`, the first (compilation) not counted."""
    seconds = []
    for i in range(repeats + 1):
        began = time.perf_counter()
        jax.block_until_ready(call(i))
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds[1:]) * 1e3)


if __name__ == "__main__":
    main()
