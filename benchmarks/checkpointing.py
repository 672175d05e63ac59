"""Measure how long checkpoints of a large replay buffer take: one file, a first save, and a save of what changed.

    python benchmarks/checkpointing.py --rounds 3 --json results/benchmarks/checkpointing.json

A replay buffer of Meta-World's sizes (39 observations, 4 actions) and the agent's state of a preset. The kinds of saves
take turns, so that a busy machine slows all of them. Every file is flushed to the disk by itself (fsync).
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from json_output import write_json

from cdred.bench.benchmarks import SPEC
from cdred.checkpoint import checkpoint
from cdred.config import preset
from cdred.data.replay_buffer import ReplayBuffer, Transition
from cdred.files import write_synced
from cdred.provenance import provenance
from cdred.train.keys import INIT, seed_keys
from cdred.train.setup import make_compiled_fns


class State(NamedTuple):
    """The large parts of a run's state."""

    learner: Any
    replay: ReplayBuffer


class Timing(NamedTuple):
    """One kind of save or load: median and longest seconds over the rounds, and bytes written or read."""

    seconds: float
    longest: float
    bytes: int


def save_one_file(folder: Path, state: State) -> int:
    """Write every array to one file, as checkpoints of format 1 were; return its bytes."""
    leaves = {str(i): np.asarray(x) for i, x in enumerate(jax.tree.leaves(state)) if isinstance(x, jax.Array)}
    data = safetensors.numpy.save(leaves)
    write_synced(folder / "whole.safetensors", data)
    return len(data)


def filled_buffer(steps: int, generator: np.random.Generator) -> ReplayBuffer:
    """Return a full buffer of one seed and one environment, as `ReplayBuffer.add` would leave it."""
    length = SPEC.episode_length
    rows = steps + steps // length + 1
    time = np.arange(rows) % (length + 1)
    return ReplayBuffer(
        obs=jnp.asarray(generator.normal(size=(1, 1, rows, *SPEC.obs_shape)).astype(np.float32)),
        action=jnp.asarray(generator.uniform(-1, 1, (1, 1, rows, SPEC.action_dim)).astype(np.float32)),
        reward=jnp.zeros((1, 1, rows), jnp.float32),
        absorbing=jnp.zeros((1, 1, rows), bool),
        episode_step=jnp.asarray(time[None, None], jnp.int32).at[0, 0, -1].set(-1),
        insert_index=jnp.array([[rows - 1]], jnp.int32),
        num_absorbing=0,
    )


def add_steps(state: State, steps: int, add: Callable[..., ReplayBuffer], generator: np.random.Generator) -> State:
    """Return the state after `steps` more transitions of noise."""
    obs = generator.normal(size=(1, steps + 1, 1, *SPEC.obs_shape)).astype(np.float32)
    action = generator.uniform(-1, 1, (1, steps, 1, SPEC.action_dim)).astype(np.float32)
    done = (np.arange(1, steps + 1) % SPEC.episode_length == 0)[None, :, None]
    reward, never = np.zeros((1, steps, 1), np.float32), np.zeros((1, steps, 1), bool)
    block = Transition(obs[:, :-1], action, reward, obs[:, 1:], terminated=never, done=done, invalid=never)
    return State(state.learner, jax.block_until_ready(add(state.replay, block)))


def measure(rows: int, steps: int, rounds: int, learner: Any, folder: Path) -> dict[str, Timing]:
    """Return seconds and bytes of each kind of save, and of loading one."""
    generator = np.random.default_rng(0)
    state = State(learner, filled_buffer(rows, generator))
    add = jax.jit(jax.vmap(ReplayBuffer.add), donate_argnums=0)
    seconds, size = {}, {}

    def timed(kind: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        result = call(*arguments, **options)
        seconds.setdefault(kind, []).append(time.perf_counter() - start)
        return result

    step, base = rows, checkpoint.save(folder / "run", rows, state, {})
    for _ in range(rounds):
        size["whole, one file"] = timed("whole, one file", save_one_file, folder, state)
        shutil.rmtree(folder / "first", ignore_errors=True)
        first = timed("first save", checkpoint.save, folder / "first", step, state, {})
        size["first save"] = checkpoint.size(first).written
        state, step = add_steps(state, steps, add, generator), step + steps
        base = timed("later save", checkpoint.save, folder / "run", step, state, {}, base=base)
        size["later save"] = checkpoint.size(base).written
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
    restored, _ = jax.block_until_ready(timed("load", checkpoint.load, base, like))
    size["load"] = checkpoint.size(base).total
    equal = jax.tree.map(lambda loaded, saved: bool(jnp.array_equal(loaded, saved)), restored, state)
    assert all(jax.tree.leaves(equal)), "the loaded checkpoint differs from the saved state"
    return {kind: Timing(statistics.median(times), max(times), size[kind]) for kind, times in seconds.items()}


def main() -> None:
    """Measure, print a table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="steps in the replay buffer")
    parser.add_argument("--steps", type=int, default=1000, help="steps between two saves")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--preset", choices=("cpu", "paper"), default="cpu", help="preset of the agent that is saved")
    parser.add_argument("--folder", type=Path, help="folder to write to; a temporary one if not given")
    parser.add_argument("--json", type=Path, help="write the timings here")
    options = parser.parse_args()
    config = replace(preset(options.preset), algo="cdred")
    learner = make_compiled_fns(config, SPEC).init(seed_keys((0,), INIT))
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        kinds = measure(options.rows, options.steps, options.rounds, learner, Path(folder))
    print(f"{'':16} {'median s':>9} {'longest s':>9} {'MiB':>8}")
    for kind, timing in kinds.items():
        print(f"{kind:16} {timing.seconds:9.3f} {timing.longest:9.3f} {timing.bytes / 2**20:8.1f}")
    arguments = {key: getattr(options, key) for key in ("rows", "steps", "rounds", "preset")}
    result = provenance() | arguments | {"load_average": os.getloadavg()[0]}
    write_json(options.json, result | {"kinds": {kind: timing._asdict() for kind, timing in kinds.items()}})


if __name__ == "__main__":
    main()
