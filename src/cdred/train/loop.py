"""The training loop: collect, store, learn; log, evaluate and save on the way.

Simulators on the host are stepped between compiled programs; those in JAX inside of one (`scanned`).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from cdred.algos.make import make_algorithm
from cdred.config import RunConfig, total_decisions
from cdred.data.replay import Replay, from_trajectories, replay_bytes
from cdred.envs.grid import EnvGrid
from cdred.envs.jax_grid import Grid, JaxGrid, open_grid
from cdred.errors import Interrupted, UserError
from cdred.track.sinks import Tracker
from cdred.train import checkpoint
from cdred.train.collect import OnEpisode, collect
from cdred.train.evaluate import Evaluation, evaluate, evaluation_keys
from cdred.train.interrupt import Stop
from cdred.train.programs import ACT, EVALUATE, LEARN, Programs, seed_keys
from cdred.train.scanned import Scanned
from cdred.train.state import TrainState
from cdred.types import DemoDataset, EnvSpec, Trajectory

Say = Callable[[str], None]
# Share of the demonstrations that a method with early stopping does not learn from.
HELD_OUT = 0.1


class Outcome(NamedTuple):
    """What a finished run has to tell."""

    evaluation: Evaluation
    decisions: int
    updates: int
    wall_seconds: float


@dataclass
class Run:
    """A run's fixed parts, opened once, and the learning metrics since the last log line."""

    config: RunConfig
    programs: Programs
    grid: Grid
    eval_grid: Grid
    expert: Replay | None
    held_out: Replay | None
    tracker: Tracker
    say: Say
    checkpoints: Path
    scanned: Scanned | None = None
    stop: Stop = field(default_factory=Stop)
    pending: list = field(default_factory=list)

    def __post_init__(self):
        self.act_keys, self.learn_keys, self.eval_keys = (
            seed_keys(self.config.seeds, purpose) for purpose in (ACT, LEARN, EVALUATE)
        )


def open_run(config: RunConfig, demos: DemoDataset | None, folder: Path, tracker: Tracker, say: Say) -> Run:
    """Make simulators, programs and the expert's store."""
    grid = open_grid(config.task, config.seeds, config.envs, "train", workers=config.workers)
    eval_grid = open_grid(config.task, config.seeds, config.envs, "eval", workers=config.workers)
    programs = make_programs(config, grid.spec)
    expert, held_out = _expert_stores(demos, grid.spec, programs)
    steps = config.updates_per_learn // config.envs
    scanned = Scanned(programs, grid, steps) if isinstance(grid, JaxGrid) else None
    return Run(config, programs, grid, eval_grid, expert, held_out, tracker, say, folder / "checkpoints", scanned)


def _expert_stores(demos: DemoDataset | None, spec: EnvSpec, programs: Programs) -> tuple[Replay | None, Replay | None]:
    """What is learned from, and the last demonstrations for a method that wants some held out."""
    if demos is None:
        return None, None
    given = list(demos.trajectories)
    if not programs.algorithm.validates:
        return _expert_store(given, spec, programs.horizon), None
    if len(given) < 2:
        raise UserError("one demonstration is not enough: some are held out, to see when learning has to stop.")
    kept = len(given) - max(1, round(HELD_OUT * len(given)))
    learned, held_out = (_expert_store(part, spec, programs.horizon) for part in (given[:kept], given[kept:]))
    return learned, held_out


def _expert_store(trajectories: list[Trajectory], spec: EnvSpec, horizon: int) -> Replay:
    expert = from_trajectories(trajectories, spec, horizon)
    if not int(expert.num_segments(horizon)):
        raise UserError(f"no demonstration is as long as the horizon of {horizon} decisions.")
    return expert


def make_programs(config: RunConfig, spec: EnvSpec) -> Programs:
    """The compiled programs of a run with these settings on this task."""
    return Programs(
        make_algorithm(config, spec),
        horizon=config.mppi.horizon,
        batch_size=config.optim.batch_size,
        updates=config.updates_per_learn,
    )


def train_loop(run: Run) -> Outcome:
    """Train to the end from wherever the run's folder says it is, then evaluate.

    The state is saved after the last decision and before the last evaluation, so nothing learned can be lost to it.

    Raises:
        Interrupted: it was told to stop, and has saved the state.
    """
    config, clock = run.config, Clock()
    with run.grid, run.eval_grid:
        state, clock.before = start_or_resume(run)
        total = total_decisions(config)
        updates = int(np.max(jax.device_get(state.learner.updates)))
        clock.mark(int(state.decisions))
        while state.decisions < total:
            before = int(state.decisions)
            state, updates = _collect_and_learn(run, state, updates)
            now = int(state.decisions)
            save = bool(crossed(before, now, config.checkpoint_every) or now >= total or run.stop)
            if save or crossed(before, now, config.log_every) or crossed(before, now, config.eval_every):
                state = _tell(run, state)
            if run.pending and crossed(before, now, config.log_every):
                run.tracker.log(now, _drain(run) | clock.rates(now, total) | {"updates": updates}, "train")
            if crossed(before, now, config.eval_every) and now < total:
                state = _evaluate(run, state, config.eval_episodes)[0]
            if save:
                _save(run, state, clock)
            if run.stop.signal:
                where = f"stopped at decision {now:,} of {total:,}, saved in {run.checkpoints.parent}"
                raise Interrupted(f"{where}; the same command goes on.", 128 + run.stop.signal)
        evaluation = _evaluate(run, state, config.final_episodes)[1]
    return Outcome(evaluation, int(state.decisions), updates, clock.seconds())


def crossed(before: int, now: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (before, now]."""
    return now // every > before // every


def start_or_resume(run: Run) -> tuple[TrainState, float]:
    """The state to go on from, simulators brought along, and the seconds spent before."""
    config, capacity = run.config, _capacity(run)
    size = len(config.seeds) * replay_bytes(run.grid.spec, config.envs, capacity)
    run.say(f"replay: {len(config.seeds)} x {config.envs} x {capacity:,} rows, {size / 2**20:,.1f} MiB on the device")
    run.grid.reset()
    parts = (run.programs, run.grid, run.eval_grid, capacity)
    folder = checkpoint.latest(run.checkpoints)
    if folder is None:
        return TrainState.create(*parts), 0.0
    state, meta = checkpoint.load(folder, TrainState.like(*parts))
    run.grid.restore(state.grid)
    run.eval_grid.restore(state.eval_grid)
    run.say(f"resuming at decision {int(state.decisions):,} from {folder}")
    return state, float(meta["wall_seconds"])


def _capacity(run: Run) -> int:
    """Rows per lane: as many as asked for, but no more than the run can fill."""
    config, spec = run.config, run.grid.spec
    if not run.programs.algorithm.interacts:
        return config.mppi.horizon + 2
    steps = -(-total_decisions(config) // config.envs)
    if spec.terminates:
        # Every episode takes one row more than decisions, and as many absorbing ones as a segment is long. A run of
        # episodes shorter than that on average forgets the oldest of them.
        return min(config.replay_capacity, 2 * steps + config.mppi.horizon + 2)
    episodes = -(-steps // spec.episode_length) + 1
    return min(config.replay_capacity, steps + episodes + 1)


def _collect_and_learn(run: Run, state: TrainState, updates: int) -> tuple[TrainState, int]:
    if not run.programs.algorithm.interacts:
        decisions = np.array(state.decisions + run.config.updates_per_learn)
        return _learn(run, state.replace(decisions=decisions), updates)
    random = int(state.decisions) < seed_decisions(run)
    if run.scanned is None:
        return _learn(run, _collect(run, state, random), updates)
    if random:
        return _learn(run, run.scanned.act_at_random(state), updates)
    state, metrics = run.scanned.act_and_learn(state, run.expert, run.act_keys, run.learn_keys)
    run.pending.append(metrics)
    return state, updates + run.config.updates_per_learn


def _collect(run: Run, state: TrainState, random: bool) -> TrainState:
    assert isinstance(run.grid, EnvGrid), "a grid on the device is stepped by `Scanned`"
    steps = run.config.updates_per_learn // run.config.envs
    state, block = collect(
        run.programs, state, run.grid, run.act_keys, steps, random=random, on_episode=_episode_log(run)
    )
    return state.replace(replay=run.programs.store(state.replay, block))


def _tell(run: Run, state: TrainState) -> TrainState:
    """Log the episodes that ended on the device; those on the host have been."""
    return run.scanned.tell(state, _episode_log(run)) if run.scanned else state


def _episode_log(run: Run) -> OnEpisode:
    return lambda step, means: run.tracker.log(step, _told(run, means), "episode")


def _told(run: Run, metrics: dict) -> dict:
    """Without the success of a task that never says whether its goal is reached."""
    told = run.grid.spec.has_success
    return {name: value for name, value in metrics.items() if told or not name.startswith("success")}


def seed_decisions(run: Run) -> int:
    """Random decisions per seed before learning begins."""
    if not run.programs.algorithm.interacts:
        return 0
    return run.config.seed_episodes * run.grid.spec.episode_length * run.config.envs


def _learn(run: Run, state: TrainState, updates: int) -> tuple[TrainState, int]:
    """As many updates as there have been decisions: those owed for the random episodes are made good at once."""
    if int(state.decisions) < seed_decisions(run):
        return state, updates
    if updates == 0:
        run.say("compiling, then learning from the random episodes" if seed_decisions(run) else "compiling")
        _require_segments(run, state)
        state = state.replace(learner=run.programs.standardise(state.learner, state.replay, run.expert))
    while updates < int(state.decisions):
        learner, metrics = run.programs.learn(
            state.learner, state.replay, run.expert, run.learn_keys, np.int32(updates), run.held_out
        )
        state, updates = state.replace(learner=learner), updates + run.config.updates_per_learn
        run.pending.append(metrics)
    return state, updates


def _require_segments(run: Run, state: TrainState) -> None:
    horizon = run.config.mppi.horizon
    if run.programs.algorithm.interacts and not int(jax.vmap(lambda r: r.num_segments(horizon))(state.replay).min()):
        raise UserError(f"no random episode lasted {horizon} decisions: nothing to learn from. Raise --seed-episodes.")


def _drain(run: Run) -> dict[str, list[float]]:
    """Per-seed means of the learning metrics since the last call; the only place that waits for the device."""
    rows = jax.device_get(run.pending)
    run.pending.clear()
    reduce = {"grad_norm_max": np.max}
    return {name: reduce.get(name, np.mean)([row[name] for row in rows], axis=0).tolist() for name in rows[0]}


def _evaluate(run: Run, state: TrainState, episodes: int) -> tuple[TrainState, Evaluation]:
    began, step = time.perf_counter(), int(state.decisions)
    keys = evaluation_keys(run.eval_keys, step)
    result = evaluate(run.programs, state.learner, run.eval_grid, keys, episodes)
    metrics = _told(run, result.metrics()) | {"seconds": time.perf_counter() - began}
    run.tracker.log(step, metrics, "eval")
    return state.replace(eval_grid=run.eval_grid.snapshot()), result


def _save(run: Run, state: TrainState, clock: "Clock") -> None:
    state = state.replace(grid=run.grid.snapshot())
    meta = {"wall_seconds": clock.seconds(), "task": run.config.task, "seeds": list(run.config.seeds)}
    checkpoint.save(run.checkpoints, int(state.decisions), state, meta)


class Clock:
    """Seconds spent, also before a resume, and the pace of the last stretch."""

    def __init__(self):
        self.before, self._began, self._marked = 0.0, time.perf_counter(), (0, time.perf_counter())

    def seconds(self) -> float:
        """Wall seconds of the whole run."""
        return self.before + time.perf_counter() - self._began

    def mark(self, decisions: int) -> None:
        """Begin a stretch."""
        self._marked = (decisions, time.perf_counter())

    def rates(self, decisions: int, total: int) -> dict[str, float]:
        """Decisions per second and seed since the last mark, and the seconds left at that pace."""
        then, at = self._marked
        pace = (decisions - then) / max(time.perf_counter() - at, 1e-9)
        self.mark(decisions)
        return {"decisions_per_second": pace, "eta_seconds": (total - decisions) / max(pace, 1e-9)}
