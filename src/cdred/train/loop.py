"""The training loop: collect, store, learn; log, evaluate and save on the way.

Simulators on the host are stepped between compiled programs; those in JAX inside of one (`scanned`).
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cdred.checkpoint import checkpoint
from cdred.config import steps_per_call, total_steps
from cdred.data.replay_buffer import replay_bytes
from cdred.envs.failures import SimulatorError
from cdred.envs.vector_env import VectorEnv
from cdred.errors import Interrupted, UserError
from cdred.files import format_mib
from cdred.train.collect import Decide, OnEpisode, at_random, collect
from cdred.train.compiled import FiniteCheck
from cdred.train.divergence import Metrics
from cdred.train.evaluate import Evaluation, evaluate, evaluation_keys
from cdred.train.setup import Run, capacity, random_steps
from cdred.train.state import TrainState
from cdred.train.timing import Clock

# Seconds from which on a save is worth a line to whoever waits for it.
SLOW_SAVE = 3.0


class Outcome(NamedTuple):
    """What a finished run has to tell."""

    evaluation: Evaluation
    steps: int
    updates: int
    divergence_restarts: list[int]
    wall_seconds: float


def train_loop(run: Run) -> Outcome:
    """Train to the end from wherever the run's folder says it is, then evaluate.

    The state is saved after the last step and before the last evaluation, so nothing learned can be lost to it.

    Raises:
        Interrupted: it was told to stop, and has saved the state.
        Diverged: a seed left the numbers again and again; what was saved before is as it was.
        UserError: there is no going on with a simulator. If it failed in a step, the state before it is saved; if
            in an evaluation, the run goes on from the last checkpoint.
    """
    config, clock = run.config, Clock()
    with run.grid, run.eval_grid:
        state, clock.before = start_or_resume(run)
        run.rollback.keep(state)
        total = total_steps(config)
        updates = int(np.max(jax.device_get(state.learner.updates)))
        clock.mark(int(state.steps))
        while state.steps < total:
            before = int(state.steps)
            if run.scanned is None:
                state = _with_grid(run, state)
            with _saved_if_a_simulator_fails(run, state, clock):
                state, updates = advance(run, state, updates)
            now = int(state.steps)
            if crossed(before, now, config.log_every) or crossed(before, now, config.eval_every):
                state = _tell(run, state)
            if run.pending and crossed(before, now, config.log_every):
                metrics = _drain(run) | _rollbacks(state)
                counts = {"updates": updates} | _broken(run)
                run.tracker.log(now, metrics | clock.rates(now, total) | counts, "train")
                _log_health(run, state, metrics)
            if crossed(before, now, config.eval_every) and now < total:
                state = _evaluate(run, state, config.eval_episodes)[0]
            if crossed(before, now, config.checkpoint_every) or now >= total or run.stop:
                state = _tell(run, state)
                _save(run, _with_grid(run, state), clock)
                # Asked again: a signal that came while this was saved finds it saved.
                if run.stop.signal:
                    where = f"stopped at step {now:,} of {total:,}, saved in {run.checkpoints.parent}"
                    raise Interrupted(f"{where}; the same command goes on.", 128 + run.stop.signal)
        evaluation = _evaluate(run, state, config.final_eval_episodes)[1]
    run.say(clock.savings())
    return Outcome(evaluation, int(state.steps), updates, state.divergence_restarts.tolist(), clock.seconds())


def _rollbacks(state: TrainState) -> dict[str, list[int]]:
    return {"divergence_restarts": state.divergence_restarts.tolist()} if state.divergence_restarts.any() else {}


def crossed(before: int, now: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (before, now]."""
    return now // every > before // every


def start_or_resume(run: Run) -> tuple[TrainState, float]:
    """The state to go on from, simulators brought along, and the seconds spent before."""
    config, rows = run.config, capacity(run)
    size = len(config.seeds) * replay_bytes(run.grid.spec, config.envs, rows)
    run.say(f"replay: {len(config.seeds)} x {config.envs} x {rows:,} rows, {size / 2**20:,.1f} MiB on the device")
    run.grid.reset()
    parts = (run.programs, run.grid, run.eval_grid, rows)
    folder = checkpoint.latest(run.checkpoints)
    if folder is None:
        # Of a run that was begun here before, perhaps with other settings.
        checkpoint.forget_best(run.checkpoints)
        return TrainState.create(*parts).spread(run.programs.mesh), 0.0
    state, meta = checkpoint.load(folder, TrainState.like(*parts))
    run.saved = folder
    run.grid.restore(state.grid)
    run.eval_grid.restore(state.eval_grid)
    run.say(f"resuming at step {int(state.steps):,} from {folder}")
    return state.spread(run.programs.mesh), float(meta["wall_seconds"])


def advance(run: Run, state: TrainState, updates: int) -> tuple[TrainState, int]:
    """One block of steps and as many updates, `updates` having been made before; the state and their new count."""
    if not run.programs.algorithm.uses_env:
        steps = np.array(state.steps + steps_per_call(run.config))
        return _learn(run, state.replace(steps=steps), updates)
    random = int(state.steps) < random_steps(run)
    if isinstance(run.grid, VectorEnv):
        if run.config.overlap and not random:
            return _collect_and_learn(run, run.grid, state, updates)
        decide = at_random(run.grid) if random else run.rollback.decide
        return _learn(run, _collect(run, run.grid, state, decide), updates)
    assert run.scanned is not None, "a grid on the device comes with its programs"
    if random:
        return _learn(run, run.scanned.act_at_random(state), updates)
    keys = run.rollback.act_keys, run.rollback.learn_keys
    return _checked(run, *run.scanned.act_and_learn(state, run.expert, *keys), updates + run.config.updates_per_call)


def _collect(run: Run, grid: VectorEnv, state: TrainState, decide: Decide) -> TrainState:
    """A block of steps, stored."""
    block_length = steps_per_call(run.config) // run.config.envs
    state, block = collect(state, grid, decide, block_length, on_episode=_episode_log(run))
    return state.replace(replay=run.programs.store(state.replay, block))


def _collect_and_learn(run: Run, grid: VectorEnv, state: TrainState, updates: int) -> tuple[TrainState, int]:
    """A block of steps, each one's updates being made while its simulators step, from what was stored before."""
    under_way: list[tuple[Metrics, FiniteCheck]] = []

    def learned(state: TrainState) -> TrainState:
        nonlocal updates
        for metrics, verdict in under_way:
            state, updates = _checked(run, state, metrics, verdict, updates + run.programs.updates)
        under_way.clear()
        return state

    def decide(state: TrainState, obs: np.ndarray) -> tuple[TrainState, np.ndarray]:
        state, action = run.rollback.decide(learned(state), obs)
        # Nobody waits for it before the simulators have stepped.
        learner, *told = run.programs.learn(*_studied(run, state, updates))
        under_way.append(tuple(told))
        return state.replace(learner=learner), action

    # A copy: where a simulator fails, the state before the block is saved.
    state = state.replace(learner=jax.tree.map(jnp.copy, state.learner))
    state = learned(_collect(run, grid, state, decide))
    return state, updates


def _tell(run: Run, state: TrainState) -> TrainState:
    """Log the episodes that ended on the device; those on the host have been."""
    return run.scanned.tell(state, _episode_log(run)) if run.scanned else state


def _episode_log(run: Run) -> OnEpisode:
    return lambda step, means: run.tracker.log(step, _told(run, means), "rollout")


def _told(run: Run, metrics: dict) -> dict:
    """Without the success of a task that never says whether its goal is reached, and lengths that are all the same."""
    spec = run.grid.spec
    told = {"success": spec.has_success, "success_at_end": spec.has_success, "episode_length": spec.can_terminate}
    return {name: value for name, value in metrics.items() if told.get(name, True)}


def _learn(run: Run, state: TrainState, updates: int) -> tuple[TrainState, int]:
    """The updates that the steps so far are worth: those owed for the random episodes are made good at once."""
    if int(state.steps) < random_steps(run):
        return state, updates
    if updates == 0:
        run.say("compiling, then learning from the random episodes" if random_steps(run) else "compiling")
        # That all of them broke is then said before that there is nothing to learn from.
        state = _tell(run, state)
        _require_segments(run, state)
        state = state.replace(learner=run.programs.set_obs_stats(state.learner, state.replay, run.expert))
        run.rollback.keep(state)
    began = time.perf_counter()
    while updates < int(state.steps) // run.config.steps_per_update:
        learner, metrics, verdict = run.programs.learn(*_studied(run, state, updates))
        if updates == 0:
            jax.block_until_ready(metrics)
            seconds = time.perf_counter() - began
            run.say(f"compiled, and the first {run.programs.updates} updates made, in {seconds:.0f} s")
        more = updates + run.programs.updates
        state, updates = _checked(run, state.replace(learner=learner), metrics, verdict, more)
    return state, updates


def _studied(run: Run, state: TrainState, updates: int) -> tuple[Any, ...]:
    """What `CompiledFns.learn` takes after so many updates."""
    return state.learner, state.replay, run.expert, run.rollback.learn_keys, np.int32(updates), run.validation


def _checked(run: Run, state: TrainState, metrics: dict, verdict: FiniteCheck, updates: int) -> tuple[TrainState, int]:
    """The state after updates that are finite: those of a seed that were not have been made anew."""
    if not jax.device_get(verdict.finite).all():
        # A simulator that left the numbers explains it all, and says so.
        state = _tell(run, state)
    state, metrics = run.rollback.checked(state, metrics, verdict, updates)
    run.pending.append(metrics)
    return state, updates


def _require_segments(run: Run, state: TrainState) -> None:
    horizon = run.config.mppi.horizon
    if run.programs.algorithm.uses_env and not int(jax.vmap(lambda r: r.num_segments(horizon))(state.replay).min()):
        raise UserError(f"no random episode lasted {horizon} steps: nothing to learn from. Raise --random-episodes.")


def _drain(run: Run) -> dict[str, list[float]]:
    """Per-seed means of the learning metrics since the last call; the only place that waits for the device."""
    rows = jax.device_get(run.pending)
    run.pending.clear()
    reduce = {"grad_norm_max": np.max}
    return {name: reduce.get(name, np.mean)([row[name] for row in rows], axis=0).tolist() for name in rows[0]}


def _log_health(run: Run, state: TrainState, metrics: Mapping[str, list]) -> None:
    """Signs of health, of a method that lives through anything: the reward's gap is that of the log interval."""
    if not run.programs.algorithm.uses_env:
        return
    args = (state.learner, state.replay, run.expert, run.diagnostics_keys, np.int32(state.steps), run.validation)
    signs = {name: value.tolist() for name, value in jax.device_get(run.programs.diagnose(*args)).items()}
    if "reward_expert" in metrics:
        signs["reward_margin"] = reward_margin(
            *(np.array(metrics[name]) for name in ("reward_expert", "reward_agent"))
        ).tolist()
    if signs:
        run.tracker.log(int(state.steps), signs, "diagnostics")


def reward_margin(expert: np.ndarray, own: np.ndarray) -> np.ndarray:
    """(R_E - R_own) / (|R_E| + |R_own|) of mean rewards: 1 if they are apart by all they amount to, 0 if not at all."""
    return (expert - own) / np.maximum(np.abs(expert) + np.abs(own), 1e-12)


def _evaluate(run: Run, state: TrainState, episodes: int) -> tuple[TrainState, Evaluation]:
    began, step = time.perf_counter(), int(state.steps)
    keys = evaluation_keys(run.eval_keys, step)
    result = evaluate(run.programs, state.learner, run.eval_grid, keys, episodes)
    metrics = _told(run, result.metrics()) | {"seconds": time.perf_counter() - began}
    run.tracker.log(step, metrics, "eval")
    state = state.replace(eval_grid=run.eval_grid.snapshot())
    _keep_if_best(run, state, result)
    return state, result


def _keep_if_best(run: Run, state: TrainState, result: Evaluation) -> None:
    """By success first, where the task knows it; then by return."""
    score = [float(np.mean(result.success_once))] if run.grid.spec.has_success else []
    agent = {"learner": state.learner, "eval_grid": state.eval_grid}
    meta = {"evaluation": _told(run, result.metrics())}
    checkpoint.save_best(
        run.checkpoints, int(state.steps), agent, meta, [*score, float(np.mean(result.episode_return))]
    )


def _broken(run: Run) -> dict[str, list[int]]:
    """Episodes given up so far, if any were."""
    broken = run.grid.broken
    return {"failed_episodes": broken.tolist()} if broken.any() else {}


def _with_grid(run: Run, state: TrainState) -> TrainState:
    return state.replace(grid=run.grid.snapshot())


@contextmanager
def _saved_if_a_simulator_fails(run: Run, state: TrainState, clock: Clock) -> Iterator[None]:
    """`state` is that before the steps in which it failed; before the first of all there is nothing to save."""
    try:
        yield
    except SimulatorError as failed:
        if not state.steps:
            raise
        _save(run, state, clock)
        where = f"step {int(state.steps):,}, saved in {run.checkpoints.parent}"
        raise UserError(f"{failed}\nThe run then goes on from {where}.") from failed


def _save(run: Run, state: TrainState, clock: Clock) -> None:
    began, step = time.perf_counter(), int(state.steps)
    meta = {"wall_seconds": clock.seconds(), "task": run.config.task, "seeds": list(run.config.seeds)}
    run.saved = checkpoint.save(run.checkpoints, step, state, meta, since=run.saved)
    run.rollback.keep(state)
    size, seconds = checkpoint.size(run.saved), time.perf_counter() - began
    run.tracker.log(step, {"seconds": seconds, "bytes": size.total, "bytes_written": size.written}, "checkpoint")
    if seconds > SLOW_SAVE:
        run.say(f"saved {format_mib(size.written)} of {format_mib(size.total)} in {seconds:.0f} s")
    clock.saved(seconds, size.total)
