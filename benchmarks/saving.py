"""What a checkpoint of a large replay takes: all of it in one file, as a first save, and as a save of what changed.

    python benchmarks/saving.py --json results/reliability/saving.json

A replay of Meta-World's sizes (39 observed, 4 done) and the learner of a preset. The kinds of saves take turns, so that
a busy machine slows all of them. Every file is brought to the disk itself (fsync).
"""

import argparse
import json
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

from cdred.bench.benchmarks import SPEC
from cdred.checkpoint import checkpoint
from cdred.config import preset
from cdred.data.replay_buffer import ReplayBuffer, Transition
from cdred.files import write
from cdred.provenance import origin
from cdred.train.compiled import INIT, seed_keys
from cdred.train.setup import make_compiled_fns


class State(NamedTuple):
    """As much of a run's state as is large."""

    learner: Any
    replay: ReplayBuffer


class Timed(NamedTuple):
    """One save or load: median and longest seconds over the rounds, and bytes brought to the disk."""

    seconds: float
    longest: float
    bytes: int


def whole(folder: Path, state: State) -> int:
    """Every array in one file, as checkpoints of format 1 were; its bytes."""
    leaves = {str(i): np.asarray(x) for i, x in enumerate(jax.tree.leaves(state)) if isinstance(x, jax.Array)}
    data = safetensors.numpy.save(leaves)
    write(folder / "whole.safetensors", data)
    return len(data)


def filled(steps: int, generator: np.random.Generator) -> ReplayBuffer:
    """One seed's, one lane's, with room for no more than it holds: as `ReplayBuffer.add` would leave it."""
    length = SPEC.episode_length
    rows = steps + steps // length + 1
    time = np.arange(rows) % (length + 1)
    return ReplayBuffer(
        obs=jnp.asarray(generator.normal(size=(1, 1, rows, *SPEC.obs_shape)).astype(np.float32)),
        action=jnp.asarray(generator.uniform(-1, 1, (1, 1, rows, SPEC.action_dim)).astype(np.float32)),
        reward=jnp.zeros((1, 1, rows), jnp.float32),
        absorbing=jnp.zeros((1, 1, rows), bool),
        time=jnp.asarray(time[None, None], jnp.int32).at[0, 0, -1].set(-1),
        head=jnp.array([[rows - 1]], jnp.int32),
        tail=0,
    )


def lived(state: State, steps: int, add: Callable[..., ReplayBuffer], generator: np.random.Generator) -> State:
    """The state after `steps` more of random content."""
    obs = generator.normal(size=(1, steps + 1, 1, *SPEC.obs_shape)).astype(np.float32)
    action = generator.uniform(-1, 1, (1, steps, 1, SPEC.action_dim)).astype(np.float32)
    ended = (np.arange(1, steps + 1) % SPEC.episode_length == 0)[None, :, None]
    reward, never = np.zeros((1, steps, 1), np.float32), np.zeros((1, steps, 1), bool)
    block = Transition(obs[:, :-1], action, reward, obs[:, 1:], never, ended)
    return State(state.learner, jax.block_until_ready(add(state.replay, block)))


def measured(rows: int, steps: int, rounds: int, learner: Any, folder: Path) -> dict[str, Timed]:
    """Seconds and bytes of each kind of save, and of reading one back."""
    generator = np.random.default_rng(0)
    state = State(learner, filled(rows, generator))
    add = jax.jit(jax.vmap(ReplayBuffer.add), donate_argnums=0)
    seconds, size = {}, {}

    def clock(kind: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        result = call(*arguments, **options)
        seconds.setdefault(kind, []).append(time.perf_counter() - began)
        return result

    step, since = rows, checkpoint.save(folder / "run", rows, state, {})
    for _ in range(rounds):
        size["whole, one file"] = clock("whole, one file", whole, folder, state)
        shutil.rmtree(folder / "first", ignore_errors=True)
        first = clock("first save", checkpoint.save, folder / "first", step, state, {})
        size["first save"] = checkpoint.size(first).written
        state, step = lived(state, steps, add, generator), step + steps
        since = clock("later save", checkpoint.save, folder / "run", step, state, {}, since=since)
        size["later save"] = checkpoint.size(since).written
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
    restored, _ = jax.block_until_ready(clock("load", checkpoint.load, since, like))
    size["load"] = checkpoint.size(since).total
    same = jax.tree.map(lambda one, other: bool(jnp.array_equal(one, other)), restored, state)
    assert all(jax.tree.leaves(same)), "what was read back is not what was saved"
    return {kind: Timed(statistics.median(all_), max(all_), size[kind]) for kind, all_ in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="steps in the replay")
    parser.add_argument("--steps", type=int, default=1000, help="between two saves")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--preset", choices=("cpu", "paper"), default="cpu", help="whose learner is saved, too")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder if not given")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    config = replace(preset(options.preset), algo="cdred")
    learner = make_compiled_fns(config, SPEC).init(seed_keys((0,), INIT))
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        kinds = measured(options.rows, options.steps, options.rounds, learner, Path(folder))
    print(f"{'':16} {'median s':>9} {'longest s':>9} {'MiB':>8}")
    for kind, one in kinds.items():
        print(f"{kind:16} {one.seconds:9.3f} {one.longest:9.3f} {one.bytes / 2**20:8.1f}")
    if options.json:
        asked = {key: getattr(options, key) for key in ("rows", "steps", "rounds", "preset")}
        result = origin() | asked | {"load_average": os.getloadavg()[0]}
        result |= {"kinds": {kind: one._asdict() for kind, one in kinds.items()}}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
