"""How long updates, plans and whole loops take, what they compute, and how near that is to the machine's best.

Times are medians over repeats after compilation; operations and bytes are the compiler's own count; the ceiling is a
large matrix product's rate, measured in the same run.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cdred.algos.world_model_agent import WorldModelAgent
from cdred.bench.profile import Share, profile
from cdred.config import RunConfig, steps_per_call
from cdred.data.replay_buffer import ReplayBuffer, Transition
from cdred.loggers.metrics import MultiLogger
from cdred.nn.layers import Fixed
from cdred.nn.precision import dot
from cdred.train.collect import random_actions
from cdred.train.compiled import ACT, INIT, LEARN, seed_keys
from cdred.train.loop import advance, start_or_resume
from cdred.train.setup import build_run, make_compiled_fns, random_steps
from cdred.types import DemoDataset, EnvSpec, LogFn, Precision

# Meta-World's sizes.
SPEC = EnvSpec("bench/random", (39,), 4, 100)
ROWS = 2000
CEILING_SIZE = {"cpu": 1024, "gpu": 8192}


class Measured(NamedTuple):
    """One compiled program.

    Attributes:
        compile_s: seconds until it was ready to run.
        ms: median milliseconds of one update or plan of all seeds and environments.
        gflop: what is computed meanwhile, 1e9 operations.
        mb: what is read and written meanwhile, 1e6 bytes, as if there were no caches.
        gflops: the rate, 1e9 operations per second.
        share: of the machine's ceiling, from 0 to 1.
        parts: where the time of one of them goes.
    """

    compile_s: float
    ms: float
    gflop: float
    mb: float
    gflops: float
    share: float
    parts: list[Share]


class Timed(NamedTuple):
    """A compiled program, and how to run it: `call(i)` makes `rounds` updates or plans."""

    call: Callable[[int], Any]
    compiled: jax.stages.Compiled
    compile_s: float
    rounds: int

    def ms(self, repeats: int) -> float:
        """Median milliseconds of one update or plan."""
        return median_ms(self.call, repeats) / self.rounds


class Bench:
    """A run's programs on random data of Meta-World's sizes.

    Args:
        config: all settings.
        rows: steps in each seed's store.
    """

    def __init__(self, config: RunConfig, rows: int = ROWS):
        self.config, self.programs = config, make_compiled_fns(config, SPEC)
        num, horizon = len(config.seeds), config.mppi.horizon
        self.learner = self.programs.init(seed_keys(config.seeds, INIT))
        self.replay = jax.tree.map(lambda x: jnp.repeat(x[None], num, axis=0), store(rows, horizon))
        algorithm = self.programs.algorithm
        self.expert = store(ROWS, horizon) if algorithm.uses_demos else None
        self.validation = store(ROWS, horizon) if algorithm.uses_validation_demos else None
        self.plans = self.programs.init_plan(num, config.envs)
        self.learn_keys, self.act_keys = (seed_keys(config.seeds, purpose) for purpose in (LEARN, ACT))

    def update(self, repeats: int, ceiling: float) -> Measured:
        """One gradient step of all seeds; `ceiling` in GFLOP/s."""
        return _measured(self._updating(), repeats, ceiling)

    def plan(self, repeats: int, ceiling: float) -> Measured:
        """One action for all environments of all seeds; `ceiling` in GFLOP/s."""
        return _measured(self._planning(), 5 * repeats, ceiling, self._other_rounds())

    def milliseconds(self, repeats: int) -> dict[str, float]:
        """`update_ms` and `plan_ms`, for all seeds and environments together."""
        updating, planning = self._updating(), self._planning()
        return {"update_ms": updating.ms(repeats), "plan_ms": planning.ms(5 * repeats)}

    def _updating(self) -> "Timed":
        def arguments(count: int) -> tuple:
            return self.learner, self.replay, self.expert, self.learn_keys, np.int32(count), self.validation

        def learn(count: int):
            self.learner, metrics, _ = compiled(*arguments(count))
            return metrics["loss"]

        compiled, compile_s = _compiled(self.programs.learn, arguments(0))
        return Timed(learn, compiled, compile_s, self.programs.updates)

    def _planning(self) -> "Timed":
        shape = (len(self.config.seeds), self.config.envs)
        obs = np.zeros((*shape, *SPEC.obs_shape), np.float32)

        def arguments(count: int) -> tuple:
            return self.learner, self.plans, obs, np.full(shape, count == 0), self.act_keys, np.int32(count), np.True_

        def act(count: int):
            action, self.plans = compiled(*arguments(count))
            return action

        compiled, compile_s = _compiled(self.programs.act, arguments(0))
        return Timed(act, compiled, compile_s, 1)

    def _other_rounds(self) -> np.ndarray:
        """What the planner's iterations but one cost: the compiler counts a loop's body once."""
        algorithm, seeds = self.programs.algorithm, len(self.config.seeds)
        if not isinstance(algorithm, WorldModelAgent) or not algorithm.plan_actions:
            return np.zeros(2)
        planner = algorithm.planner
        num = planner.num_samples - planner.num_pi_trajs
        z = jnp.zeros((seeds, self.config.envs, self.config.model.latent_dim))
        actions = jnp.zeros((seeds, self.config.envs, num, planner.horizon, SPEC.action_dim))

        def evaluate(learner, z, actions):
            return jax.vmap(lambda sequence: algorithm.imagined_return(learner, Fixed(z), sequence))(actions)

        program = jax.jit(jax.vmap(jax.vmap(evaluate, (None, 0, 0))))
        return (planner.iterations - 1) * _cost(program.lower(self.learner, z, actions).compile())


def loop_rates(config: RunConfig, demos: DemoDataset | None, blocks: int) -> dict[str, float]:
    """The whole loop on the task of `config`, timed over `blocks` learn calls after the first.

    Returns:
        `steps_per_second` of each seed; per step of all seeds and environments `total_ms`, and `simulators_ms`
        where they are stepped from the host, measured alone.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = build_run(config, demos, Path(folder), MultiLogger([]), lambda _: None)
        with run.grid, run.eval_grid:
            (state, _), updates = start_or_resume(run), 0
            learning = random_steps(run) + steps_per_call(config)
            while state.steps < learning:
                state, updates = advance(run, state, updates)
            jax.block_until_ready(state.learner)
            began = time.perf_counter()
            for _ in range(blocks):
                state, updates = advance(run, state, updates)
            jax.block_until_ready(state.learner)
            seconds = time.perf_counter() - began
            steps = blocks * steps_per_call(config) // config.envs
            rates = {"steps_per_second": steps * config.envs / seconds, "total_ms": seconds / steps * 1e3}
            if run.scanned is None:
                began = time.perf_counter()
                for index in range(steps):
                    step = run.grid.step(random_actions(run.grid, index))
                    run.grid.reset(step.ended)
                rates["simulators_ms"] = (time.perf_counter() - began) / steps * 1e3
    return rates


def sweep(config: RunConfig, size: str, repeats: int, say: LogFn) -> dict[int, dict[str, float]]:
    """Milliseconds of one update and of one plan at each value of one of `SWEEPS`, the others as they are."""
    values, grown = SWEEPS[size]
    rows = {}
    for value in values:
        bench = grown(config, value)
        rows[value] = bench.milliseconds(repeats)
        say(f"{size} {value:,}: update {rows[value]['update_ms']:.2f} ms, plan {rows[value]['plan_ms']:.2f} ms")
    return rows


def wide(config: RunConfig, width: int) -> RunConfig:
    """All networks, and the latent, `width` wide."""
    model = replace(config.model, latent_dim=width, encoder_hidden_dims=(width,), hidden_dims=(width, width))
    reward = replace(config.reward, target_hidden_dims=(width, width), predictor_hidden_dims=(width, width))
    return replace(config, model=model, reward=reward)


SWEEPS: dict[str, tuple[tuple[int, ...], Callable[[RunConfig, int], Bench]]] = {
    "seeds": ((1, 2, 4, 8, 16), lambda config, n: Bench(replace(config, seeds=tuple(range(n))))),
    "environments": ((1, 2, 4, 8, 16), lambda config, n: Bench(replace(config, envs=n, updates_per_call=16))),
    "targets": ((5, 10, 20), lambda config, n: Bench(replace(config, reward=replace(config.reward, num_targets=n)))),
    "width": ((128, 256, 512, 1024), lambda config, n: Bench(wide(config, n))),
    "replay": ((10_000, 100_000, 1_000_000), Bench),
}


def store(rows: int, horizon: int) -> ReplayBuffer:
    """One lane of episodes of noise."""
    rng, length = np.random.default_rng(0), SPEC.episode_length
    obs = rng.normal(size=(rows + 1, 1, *SPEC.obs_shape)).astype(np.float32)
    action = rng.uniform(-1, 1, (rows, 1, SPEC.action_dim)).astype(np.float32)
    ended, no = (np.arange(1, rows + 1) % length == 0)[:, None], np.zeros((rows, 1), bool)
    empty = ReplayBuffer.init(SPEC, 1, rows + rows // length + 1, horizon)
    return empty.add(Transition(obs[:-1], action, np.zeros((rows, 1), np.float32), obs[1:], no, ended, no))


def matmul_gflops(precision: Precision = "float32") -> float:
    """Rate of a square matrix product with the factors in `precision`, 1e9 operations per second."""
    size = CEILING_SIZE.get(jax.default_backend(), 4096)
    x = jnp.ones((size, size))
    product = jax.jit(jax.vmap(lambda row: dot(row, x, precision)))
    return 2 * size**3 / median_ms(lambda _: product(x), 15) / 1e6


def median_ms(call: Callable[[int], Any], repeats: int) -> float:
    """Median milliseconds of `call(i)`, the first not counted."""
    seconds = []
    for i in range(repeats + 1):
        began = time.perf_counter()
        jax.block_until_ready(call(i))
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds[1:]) * 1e3)


def _compiled(program, arguments: tuple) -> tuple[jax.stages.Compiled, float]:
    began = time.perf_counter()
    return program.lower(*arguments).compile(), time.perf_counter() - began


def _cost(compiled: jax.stages.Compiled) -> np.ndarray:
    """Operations and bytes."""
    cost = compiled.cost_analysis() or {}
    return np.array([cost.get("flops", np.nan), cost.get("bytes accessed", np.nan)])


def _measured(timed: Timed, repeats: int, ceiling: float, uncounted: np.ndarray | float = 0.0) -> Measured:
    """`uncounted`: operations and bytes of one update or plan that the compiler's count leaves out."""
    ms = timed.ms(repeats)
    shares = profile(lambda: jax.block_until_ready(timed.call(repeats + 1)), timed.compiled.as_text() or "")
    parts = [Share(one.part, one.forward_ms / timed.rounds, one.backward_ms / timed.rounds) for one in shares]
    gflop, mb = (_cost(timed.compiled) + uncounted) / np.array([1e9, 1e6])
    gflops = gflop / ms * 1e3
    return Measured(timed.compile_s, ms, float(gflop), float(mb), float(gflops), float(gflops / ceiling), parts)
