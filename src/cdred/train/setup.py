"""A run's fixed parts: simulators, programs, the expert's store, and where what comes of it goes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cdred.algos.factory import make_algorithm
from cdred.config import RunConfig, steps_per_call, total_steps
from cdred.data.replay_buffer import ReplayBuffer, from_trajectories
from cdred.envs.jax_vector_env import Grid, JaxVectorEnv, make_vector_env
from cdred.errors import UserError
from cdred.loggers.metrics import Logger
from cdred.train.compiled import DIAGNOSTICS, EVALUATE, CompiledFns, seed_keys
from cdred.train.device_loop import DeviceLoop
from cdred.train.devices import seed_mesh
from cdred.train.divergence import DivergenceRecovery
from cdred.train.interrupt import Stop
from cdred.types import DemoDataset, EnvSpec, LogFn, Trajectory

# Share of the demonstrations that a method with early stopping does not learn from.
VALIDATION_FRACTION = 0.1


@dataclass
class Run:
    """A run's fixed parts, opened once, its last checkpoint, and the learning metrics since the last log line."""

    config: RunConfig
    programs: CompiledFns
    grid: Grid
    eval_grid: Grid
    expert: ReplayBuffer | None
    validation: ReplayBuffer | None
    tracker: Logger
    say: LogFn
    checkpoints: Path
    rollback: DivergenceRecovery
    scanned: DeviceLoop | None = None
    saved: Path | None = None
    stop: Stop = field(default_factory=Stop)
    pending: list = field(default_factory=list)

    def __post_init__(self):
        self.eval_keys, self.diagnostics_keys = (
            seed_keys(self.config.seeds, purpose) for purpose in (EVALUATE, DIAGNOSTICS)
        )


def build_run(config: RunConfig, demos: DemoDataset | None, folder: Path, tracker: Logger, say: LogFn) -> Run:
    """Make simulators, programs and the expert's store.

    Raises:
        UserError: whatever about the task, its simulators or the demonstrations cannot be used.
    """
    grid = make_vector_env(config.task, config.seeds, config.envs, "train", **stepping(config, say))
    eval_grid = make_vector_env(config.task, config.seeds, config.envs, "eval", **stepping(config, say))
    programs = make_compiled_fns(config, grid.spec)
    expert, validation = _expert_stores(demos, grid.spec, programs, config.num_validation_demos)
    steps_per_env = steps_per_call(config) // config.envs
    scanned = (
        DeviceLoop(programs, grid, steps_per_env, config.steps_per_update) if isinstance(grid, JaxVectorEnv) else None
    )
    if scanned and config.overlap:
        raise UserError(f"--overlap is for simulators on the host; {config.task} is simulated on the device.")
    rollback = DivergenceRecovery(programs, config.seeds, expert, validation, tracker, say)
    checkpoints = folder / "checkpoints"
    return Run(config, programs, grid, eval_grid, expert, validation, tracker, say, checkpoints, rollback, scanned)


def stepping(config: RunConfig, say: LogFn) -> dict[str, Any]:
    """Who steps_per_env a run's simulators, and how: what `make_vector_env` and `random_level` take."""
    return {"vectorization": config.vectorization, "env_step_timeout": config.env_step_timeout, "say": say}


def _expert_stores(
    demos: DemoDataset | None, spec: EnvSpec, programs: CompiledFns, num: int
) -> tuple[ReplayBuffer | None, ReplayBuffer | None]:
    """What is learned from, and the last `num` demonstrations; a share of them for a method that needs some."""
    if demos is None:
        return None, None
    given = list(demos.trajectories)
    if programs.algorithm.uses_validation_demos:
        num = max(1, round(VALIDATION_FRACTION * len(given)))
        if len(given) < 2:
            raise UserError("one demonstration is not enough: some are held out, to see when learning has to stop.")
    if num >= len(given):
        raise UserError(f"--num-validation-demos {num} of {len(given)} demonstrations leaves none to learn from.")
    if not num:
        return _expert_store(given, spec, programs.horizon), None
    kept = len(given) - num
    learned, validation = (_expert_store(part, spec, programs.horizon) for part in (given[:kept], given[kept:]))
    return learned, validation


def _expert_store(trajectories: list[Trajectory], spec: EnvSpec, horizon: int) -> ReplayBuffer:
    expert = from_trajectories(trajectories, spec, horizon)
    if not int(expert.num_segments(horizon)):
        raise UserError(f"no demonstration is as long as the horizon of {horizon} steps.")
    return expert


def make_compiled_fns(config: RunConfig, spec: EnvSpec) -> CompiledFns:
    """The compiled programs of a run with these settings on this task."""
    algorithm = make_algorithm(config, spec)
    # A method that steps_per_env no simulators has nothing to learn beside.
    stepwise = config.overlap and algorithm.uses_env
    return CompiledFns(
        algorithm,
        horizon=config.mppi.horizon,
        batch_size=config.optim.batch_size,
        updates=config.envs // config.steps_per_update if stepwise else config.updates_per_call,
        mesh=seed_mesh(len(config.seeds)),
    )


def capacity(run: Run) -> int:
    """Rows per lane: as many as asked for, but no more than the run can fill."""
    config, spec = run.config, run.grid.spec
    if not run.programs.algorithm.uses_env:
        return config.mppi.horizon + 2
    steps_per_env = -(-total_steps(config) // config.envs)
    if spec.can_terminate:
        # Every episode takes one row more than steps, and as many absorbing ones as a segment is long. A run of
        # episodes shorter than that on average forgets the oldest of them.
        return min(config.buffer_size, 2 * steps_per_env + config.mppi.horizon + 2)
    episodes = -(-steps_per_env // spec.episode_length) + 1
    return min(config.buffer_size, steps_per_env + episodes + 1)


def random_steps(run: Run) -> int:
    """Random steps per seed before learning begins."""
    if not run.programs.algorithm.uses_env:
        return 0
    return run.config.random_episodes * run.grid.spec.episode_length * run.config.envs
