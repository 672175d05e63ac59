"""Benchmarks of updates, planning and the whole training loop: time, operations and fraction of peak FLOP/s.

Times are medians over repeats after compilation. Operations and bytes are the compiler's cost analysis. Peak FLOP/s is
the rate of a large matrix product on the same machine.
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
from cdred.bench.profile import ScopeTime, profile
from cdred.config import RunConfig, steps_per_call
from cdred.data.replay_buffer import ReplayBuffer, Transition
from cdred.loggers.metrics import MultiLogger
from cdred.nn.layers import SharedLatent
from cdred.nn.precision import dot
from cdred.train.collect import random_actions
from cdred.train.keys import ACT, INIT, LEARN, seed_keys
from cdred.train.loop import train_block
from cdred.train.saving import start_or_resume
from cdred.train.setup import build_run, initial_steps, make_compiled_fns
from cdred.types import DemoDataset, EnvSpec, LogFn, Precision

# Shapes and episode length are those of Meta-World.
SPEC = EnvSpec("bench/random", (39,), 4, 100)
NUM_STEPS = 2000
MATMUL_SIZE = {"cpu": 1024, "gpu": 8192}


class Measurement(NamedTuple):
    """Measurement of one compiled function.

    Attributes:
        compile_s: compilation time in seconds.
        ms: median milliseconds per update or plan, of all seeds and environments.
        gflop: operations of it, in 1e9.
        mb: bytes read and written, in 1e6, without caches.
        memory_mb: memory of arguments, results and temporary arrays together, in 1e6 bytes; None where unknown.
        gflops: 1e9 operations per second.
        fraction_of_peak: `gflops` divided by peak GFLOP/s.
        scopes: device time per scope; empty without a profile.
    """

    compile_s: float
    ms: float
    gflop: float
    mb: float
    memory_mb: float | None
    gflops: float
    fraction_of_peak: float
    scopes: list[ScopeTime]


class CompileTime(NamedTuple):
    """Seconds of a compilation and size of its result.

    Attributes:
        trace_s: seconds of tracing and lowering, which no cache saves.
        compile_s: seconds of XLA.
        instructions: lines of the compiled program.
    """

    trace_s: float
    compile_s: float
    instructions: int


class TimedFn(NamedTuple):
    """Compiled function; `call(i)` runs it and makes `rounds` updates or plans."""

    call: Callable[[int], Any]
    compiled: jax.stages.Compiled
    compile_s: float
    rounds: int

    def ms(self, repeats: int) -> float:
        """Measure the median milliseconds per update or plan."""
        return median_ms(self.call, repeats) / self.rounds


class Bench:
    """Compiled functions of a run on random data.

    Args:
        config: all settings.
        num_steps: steps in the agent buffer of each seed.
    """

    def __init__(self, config: RunConfig, num_steps: int = NUM_STEPS):
        self.config, self.fns = config, make_compiled_fns(config, SPEC)
        num_seeds, horizon = len(config.seeds), config.mppi.horizon
        # One seed after another, so that one program serves all numbers of seeds.
        learners = [self.fns.init(seed_keys((seed,), INIT)) for seed in config.seeds]
        self.learner = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *learners)
        self.replay = jax.tree.map(lambda x: jnp.repeat(x[None], num_seeds, axis=0), random_buffer(num_steps, horizon))
        algorithm = self.fns.algorithm
        self.expert = random_buffer(NUM_STEPS, horizon) if algorithm.uses_demos else None
        self.plan_state = self.fns.init_plan(num_seeds, config.envs)
        self.learn_keys, self.act_keys = (seed_keys(config.seeds, purpose) for purpose in (LEARN, ACT))

    def update(self, repeats: int, peak_gflops: float, with_scopes: bool = True) -> Measurement:
        """Measure one gradient step of all seeds."""
        return _measure(self._timed_update(), repeats, peak_gflops, with_scopes=with_scopes)

    def plan(self, repeats: int, peak_gflops: float, with_scopes: bool = True) -> Measurement:
        """Measure the actions of one step of all environments of all seeds."""
        return _measure(self._timed_plan(), 5 * repeats, peak_gflops, self._scan_cost(), with_scopes)

    def compilation(self) -> dict[str, CompileTime]:
        """Measure the compilation of what takes longest in a run, in full unless the persistent cache has it."""
        functions = {
            "init": (self.fns.init, (seed_keys(self.config.seeds, INIT),)),
            "act": (self.fns.act, self.plan_arguments(0)),
            "learn": (self.fns.learn, self.update_arguments(0)),
            "diagnose": (self.fns.diagnose, self.update_arguments(0)),
        }
        # The constructor has compiled `init` already.
        jax.clear_caches()
        return {name: _compile_time(*call) for name, call in functions.items()}

    def milliseconds(self, repeats: int) -> dict[str, float]:
        """Measure `update_ms` and `plan_ms` of all seeds and environments."""
        update, plan = self._timed_update(), self._timed_plan()
        return {"update_ms": update.ms(repeats), "plan_ms": plan.ms(5 * repeats)}

    def update_arguments(self, count: int) -> tuple[Any, ...]:
        """Return the arguments of `learn` after `count` updates."""
        return self.learner, self.replay, self.expert, self.learn_keys, np.int32(count), None

    def plan_arguments(self, count: int) -> tuple[Any, ...]:
        """Return the arguments of `act` after `count` steps."""
        shape = (len(self.config.seeds), self.config.envs)
        obs, is_first = np.zeros((*shape, *SPEC.obs_shape), np.float32), np.full(shape, count == 0)
        return self.learner, self.plan_state, obs, is_first, self.act_keys, np.int32(count), np.True_

    def _timed_update(self) -> TimedFn:
        def learn(count: int):
            self.learner, metrics, _ = compiled(*self.update_arguments(count))
            return metrics["loss"]

        compiled, compile_s = _compile(self.fns.learn, self.update_arguments(0))
        return TimedFn(learn, compiled, compile_s, self.fns.updates_per_call)

    def _timed_plan(self) -> TimedFn:
        def act(count: int):
            action, self.plan_state = compiled(*self.plan_arguments(count))
            return action

        compiled, compile_s = _compile(self.fns.act, self.plan_arguments(0))
        return TimedFn(act, compiled, compile_s, 1)

    def _scan_cost(self) -> np.ndarray:
        """Compute the cost of all planner iterations but one: the cost analysis counts the body of a loop once."""
        algorithm, num_seeds = self.fns.algorithm, len(self.config.seeds)
        if not isinstance(algorithm, WorldModelAgent) or not algorithm.plan_actions:
            return np.zeros(2)
        planner = algorithm.planner.config
        num_samples = planner.num_samples - planner.num_pi_trajs
        z = jnp.zeros((num_seeds, self.config.envs, self.config.model.latent_dim))
        actions = jnp.zeros((num_seeds, self.config.envs, num_samples, planner.horizon, SPEC.action_dim))

        def evaluate(learner, z, actions):
            return jax.vmap(lambda sequence: algorithm.imagined_return(learner, SharedLatent(z), sequence))(actions)

        function = jax.jit(jax.vmap(jax.vmap(evaluate, (None, 0, 0))))
        return (planner.iterations - 1) * _cost(function.lower(self.learner, z, actions).compile())


def loop_rates(config: RunConfig, demos: DemoDataset | None, blocks: int) -> dict[str, float]:
    """Measure the training loop on the task of `config` over `blocks` blocks of steps after the first updates.

    Returns:
        `steps_per_second` of each seed; and per step of all seeds and environments `total_ms`, and `simulators_ms`
        where simulators are stepped on the host, measured separately.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = build_run(config, demos, Path(folder), MultiLogger([]), lambda _: None)
        with run.envs, run.eval_envs:
            (state, _), updates = start_or_resume(run), 0
            warmup = initial_steps(run) + steps_per_call(config)
            while state.steps < warmup:
                state, updates = train_block(run, state, updates)
            jax.block_until_ready(state.learner)
            start = time.perf_counter()
            for _ in range(blocks):
                state, updates = train_block(run, state, updates)
            jax.block_until_ready(state.learner)
            seconds = time.perf_counter() - start
            steps = blocks * steps_per_call(config) // config.envs
            rates = {"steps_per_second": steps * config.envs / seconds, "total_ms": seconds / steps * 1e3}
            if run.device_loop is None:
                start = time.perf_counter()
                for index in range(steps):
                    step = run.envs.step(random_actions(run.envs, index))
                    run.envs.reset(step.needs_reset)
                rates["simulators_ms"] = (time.perf_counter() - start) / steps * 1e3
    return rates


def sweep(config: RunConfig, size: str, repeats: int, log: LogFn) -> dict[int, dict[str, float]]:
    """Measure the milliseconds of an update and a plan at every value of one of `SWEEPS`."""
    values, make_bench = SWEEPS[size]
    rows = {}
    for value in values:
        rows[value] = make_bench(config, value).milliseconds(repeats)
        log(f"{size} {value:,}: update {rows[value]['update_ms']:.2f} ms, plan {rows[value]['plan_ms']:.2f} ms")
    return rows


def with_width(config: RunConfig, width: int) -> RunConfig:
    """Set the hidden dims of all networks and the latent dim to `width`."""
    model = replace(config.model, latent_dim=width, encoder_hidden_dims=(width,), hidden_dims=(width, width))
    cdred = replace(config.cdred, target_hidden_dims=(width, width), predictor_hidden_dims=(width, width))
    return replace(config, model=model, cdred=cdred)


SWEEPS: dict[str, tuple[tuple[int, ...], Callable[[RunConfig, int], Bench]]] = {
    "seeds": ((1, 2, 4, 8, 16), lambda config, n: Bench(replace(config, seeds=tuple(range(n))))),
    "environments": ((1, 2, 4, 8, 16), lambda config, n: Bench(replace(config, envs=n, updates_per_call=16))),
    "targets": ((5, 10, 20), lambda config, n: Bench(replace(config, cdred=replace(config.cdred, num_targets=n)))),
    "width": ((128, 256, 512, 1024), lambda config, n: Bench(with_width(config, n))),
    "replay": ((10_000, 100_000, 1_000_000), Bench),
}


def random_buffer(num_steps: int, horizon: int) -> ReplayBuffer:
    """Make the replay buffer of one environment with random episodes."""
    rng, length = np.random.default_rng(0), SPEC.episode_length
    obs = rng.normal(size=(num_steps + 1, 1, *SPEC.obs_shape)).astype(np.float32)
    action = rng.uniform(-1, 1, (num_steps, 1, SPEC.action_dim)).astype(np.float32)
    reward, false = np.zeros((num_steps, 1), np.float32), np.zeros((num_steps, 1), bool)
    done = (np.arange(1, num_steps + 1) % length == 0)[:, None]
    empty = ReplayBuffer.init(SPEC, 1, num_steps + num_steps // length + 1, horizon)
    return empty.add(Transition(obs[:-1], action, reward, obs[1:], false, done, false))


def matmul_gflops(precision: Precision = "float32") -> float:
    """Measure the rate of a square matrix product with its factors in `precision`, in 1e9 operations per second."""
    size = MATMUL_SIZE.get(jax.default_backend(), 4096)
    x = jnp.ones((size, size))
    product = jax.jit(jax.vmap(lambda row: dot(row, x, precision)))
    return 2 * size**3 / median_ms(lambda _: product(x), 15) / 1e6


def median_ms(call: Callable[[int], Any], repeats: int) -> float:
    """Measure the median milliseconds of `call(i)` over `repeats` calls after a first one."""
    seconds = []
    for i in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(call(i))
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[1:]) * 1e3)


def _compile(function, arguments: tuple) -> tuple[jax.stages.Compiled, float]:
    start = time.perf_counter()
    return function.lower(*arguments).compile(), time.perf_counter() - start


def _compile_time(function, arguments: tuple) -> CompileTime:
    start = time.perf_counter()
    lowered = function.lower(*arguments)
    traced = time.perf_counter()
    compiled = lowered.compile()
    compile_s = time.perf_counter() - traced
    return CompileTime(traced - start, compile_s, len((compiled.as_text() or "").splitlines()))


def _cost(compiled: jax.stages.Compiled) -> np.ndarray:
    """Return operations and bytes according to the compiler."""
    cost = compiled.cost_analysis() or {}
    return np.array([cost.get("flops", np.nan), cost.get("bytes accessed", np.nan)])


def _memory_mb(compiled: jax.stages.Compiled) -> float | None:
    """Return the memory that a call takes; a donated argument and the result in its place count once."""
    sizes = compiled.memory_analysis()
    if sizes is None:
        return None
    kept = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return (kept + sizes.temp_size_in_bytes) / 1e6


def _measure(
    timed: TimedFn,
    repeats: int,
    peak_gflops: float,
    uncounted: np.ndarray | float = 0.0,
    with_scopes: bool = True,
) -> Measurement:
    """Measure a function; `uncounted` are operations and bytes per update or plan missing in the cost analysis."""
    ms, scopes = timed.ms(repeats), []
    if with_scopes:
        times = profile(lambda: jax.block_until_ready(timed.call(repeats + 1)), timed.compiled.as_text() or "")
        scopes = [ScopeTime(x.scope, x.forward_ms / timed.rounds, x.backward_ms / timed.rounds) for x in times]
    gflop, mb = (float(x) for x in (_cost(timed.compiled) + uncounted) / np.array([1e9, 1e6]))
    gflops, memory_mb = gflop / ms * 1e3, _memory_mb(timed.compiled)
    return Measurement(timed.compile_s, ms, gflop, mb, memory_mb, gflops, gflops / peak_gflops, scopes)
