"""A run's fixed parts: simulators, programs, the expert's store, and where what comes of it goes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cdred.algos.factory import make_algorithm
from cdred.config import RunConfig, decisions_per_learn, total_decisions
from cdred.data.replay_buffer import Replay, from_trajectories
from cdred.envs.jax_vector_env import Grid, JaxGrid, open_grid
from cdred.errors import UserError
from cdred.loggers.metrics import Tracker
from cdred.train.compiled import EVALUATE, HEALTH, Programs, seed_keys
from cdred.train.device_loop import Scanned
from cdred.train.devices import seed_mesh
from cdred.train.divergence import Rollback
from cdred.train.interrupt import Stop
from cdred.types import DemoDataset, EnvSpec, Say, Trajectory

# Share of the demonstrations that a method with early stopping does not learn from.
HELD_OUT = 0.1


@dataclass
class Run:
    """A run's fixed parts, opened once, its last checkpoint, and the learning metrics since the last log line."""

    config: RunConfig
    programs: Programs
    grid: Grid
    eval_grid: Grid
    expert: Replay | None
    held_out: Replay | None
    tracker: Tracker
    say: Say
    checkpoints: Path
    rollback: Rollback
    scanned: Scanned | None = None
    saved: Path | None = None
    stop: Stop = field(default_factory=Stop)
    pending: list = field(default_factory=list)

    def __post_init__(self):
        self.eval_keys, self.health_keys = (seed_keys(self.config.seeds, purpose) for purpose in (EVALUATE, HEALTH))


def open_run(config: RunConfig, demos: DemoDataset | None, folder: Path, tracker: Tracker, say: Say) -> Run:
    """Make simulators, programs and the expert's store.

    Raises:
        UserError: whatever about the task, its simulators or the demonstrations cannot be used.
    """
    grid = open_grid(config.task, config.seeds, config.envs, "train", **stepping(config, say))
    eval_grid = open_grid(config.task, config.seeds, config.envs, "eval", **stepping(config, say))
    programs = make_programs(config, grid.spec)
    expert, held_out = _expert_stores(demos, grid.spec, programs, config.held_out)
    steps = decisions_per_learn(config) // config.envs
    scanned = Scanned(programs, grid, steps, config.decisions_per_update) if isinstance(grid, JaxGrid) else None
    if scanned and config.overlap:
        raise UserError(f"--overlap is for simulators on the host; {config.task} is simulated on the device.")
    rollback = Rollback(programs, config.seeds, expert, held_out, tracker, say)
    checkpoints = folder / "checkpoints"
    return Run(config, programs, grid, eval_grid, expert, held_out, tracker, say, checkpoints, rollback, scanned)


def stepping(config: RunConfig, say: Say) -> dict[str, Any]:
    """Who steps a run's simulators, and how: what `open_grid` and `random_level` take."""
    return {"workers": config.workers, "step_timeout": config.step_timeout, "say": say}


def _expert_stores(
    demos: DemoDataset | None, spec: EnvSpec, programs: Programs, num: int
) -> tuple[Replay | None, Replay | None]:
    """What is learned from, and the last `num` demonstrations; a share of them for a method that needs some."""
    if demos is None:
        return None, None
    given = list(demos.trajectories)
    if programs.algorithm.validates:
        num = max(1, round(HELD_OUT * len(given)))
        if len(given) < 2:
            raise UserError("one demonstration is not enough: some are held out, to see when learning has to stop.")
    if num >= len(given):
        raise UserError(f"--held-out {num} of {len(given)} demonstrations leaves none to learn from.")
    if not num:
        return _expert_store(given, spec, programs.horizon), None
    kept = len(given) - num
    learned, held_out = (_expert_store(part, spec, programs.horizon) for part in (given[:kept], given[kept:]))
    return learned, held_out


def _expert_store(trajectories: list[Trajectory], spec: EnvSpec, horizon: int) -> Replay:
    expert = from_trajectories(trajectories, spec, horizon)
    if not int(expert.num_segments(horizon)):
        raise UserError(f"no demonstration is as long as the horizon of {horizon} decisions.")
    return expert


def make_programs(config: RunConfig, spec: EnvSpec) -> Programs:
    """The compiled programs of a run with these settings on this task."""
    algorithm = make_algorithm(config, spec)
    # A method that steps no simulators has nothing to learn beside.
    stepwise = config.overlap and algorithm.interacts
    return Programs(
        algorithm,
        horizon=config.mppi.horizon,
        batch_size=config.optim.batch_size,
        updates=config.envs // config.decisions_per_update if stepwise else config.updates_per_learn,
        mesh=seed_mesh(len(config.seeds)),
    )


def capacity(run: Run) -> int:
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


def seed_decisions(run: Run) -> int:
    """Random decisions per seed before learning begins."""
    if not run.programs.algorithm.interacts:
        return 0
    return run.config.seed_episodes * run.grid.spec.episode_length * run.config.envs
