"""Construction of a run: environments, compiled functions, buffers of demonstrations and loggers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import PyTree

from cdred.algos.factory import make_algorithm
from cdred.config import RunConfig, steps_per_call, total_steps
from cdred.data.replay_buffer import ReplayBuffer, from_trajectories
from cdred.envs.jax_vector_env import JaxVectorEnv
from cdred.envs.make import AnyVectorEnv, make_vector_env
from cdred.errors import UserError
from cdred.loggers.metrics import Logger
from cdred.train.callbacks import Callbacks
from cdred.train.compiled import CompiledFns
from cdred.train.device_loop import DeviceLoop
from cdred.train.devices import seed_mesh
from cdred.train.divergence import DivergenceRecovery
from cdred.train.host_images import HostImageFns
from cdred.train.interrupt import SignalHandler
from cdred.train.keys import RunKeys
from cdred.types import DemoDataset, EnvSpec, LogFn, Trajectory


@dataclass
class TrainingRun:
    """Fixed parts of a run, its last checkpoint, and the metrics of the updates since the last log line.

    Attributes:
        config: all settings.
        fns: compiled functions.
        keys: keys of all seeds.
        envs: training environments.
        eval_envs: evaluation environments.
        expert: expert buffer; None for an algorithm without demonstrations.
        validation: buffer of the validation demonstrations, if any.
        logger: receives the metrics.
        log: receives messages.
        checkpoints: folder of the checkpoints.
        recovery: restarts diverged seeds.
        device_loop: collects and learns on the device; None for simulators on the host.
        last_checkpoint: folder of the last checkpoint.
        signal_handler: polled for signals after every block of steps.
        callbacks: called after every evaluation, and polled with the signals.
        initialize: replaces the networks of a new learner by those of another run; None without `init_from`.
        pending_metrics: metrics of `learn` calls, still on the device.
    """

    config: RunConfig
    fns: CompiledFns
    keys: RunKeys
    envs: AnyVectorEnv
    eval_envs: AnyVectorEnv
    expert: ReplayBuffer | None
    validation: ReplayBuffer | None
    logger: Logger
    log: LogFn
    checkpoints: Path
    recovery: DivergenceRecovery
    device_loop: DeviceLoop | None = None
    last_checkpoint: Path | None = None
    signal_handler: SignalHandler = field(default_factory=SignalHandler)
    callbacks: Callbacks = field(default_factory=Callbacks)
    initialize: Callable[[PyTree], PyTree] | None = None
    pending_metrics: list = field(default_factory=list)


def build_run(config: RunConfig, demos: DemoDataset | None, folder: Path, logger: Logger, log: LogFn) -> TrainingRun:
    """Make environments, compiled functions and buffers of demonstrations.

    Raises:
        UserError: the task, its simulators or the demonstrations cannot be used.
    """
    envs = make_vector_env(config.task, config.seeds, config.envs, "train", **env_options(config, log))
    eval_envs = make_vector_env(config.task, config.seeds, config.envs, "eval", **env_options(config, log))
    fns, keys = make_compiled_fns(config, envs.spec), RunKeys(config.seeds)
    expert, validation = split_demos(demos, envs.spec, fns, config.num_validation_demos)
    device_loop = None
    if isinstance(envs, JaxVectorEnv):
        device_loop = DeviceLoop(fns, envs, steps_per_call(config) // config.envs, config.steps_per_update)
    return TrainingRun(
        config,
        fns,
        keys,
        envs,
        eval_envs,
        expert,
        validation,
        logger,
        log,
        checkpoints=folder / "checkpoints",
        recovery=DivergenceRecovery(fns, config.seeds, keys, expert, validation, logger, log),
        device_loop=device_loop,
    )


def env_options(config: RunConfig, log: LogFn) -> dict[str, Any]:
    """Return the options of `make_vector_env` for the training and evaluation environments of a run."""
    return {"vectorization": config.vectorization, "env_step_timeout": config.env_step_timeout, "log": log}


def split_demos(
    demos: DemoDataset | None, spec: EnvSpec, fns: CompiledFns, num_validation: int
) -> tuple[ReplayBuffer | None, ReplayBuffer | None]:
    """Make the expert buffer and the validation buffer.

    Args:
        demos: demonstrations, or None for an algorithm without.
        spec: the task.
        fns: compiled functions of the run.
        num_validation: number of validation demonstrations, taken from the end.

    Raises:
        UserError: too few demonstrations, or none as long as a segment.
    """
    if demos is None:
        return None, None
    trajectories = list(demos.trajectories)
    if num_validation >= len(trajectories):
        raise UserError(
            f"--num-validation-demos {num_validation} of {len(trajectories)} demonstrations leaves none to train on."
        )
    if not num_validation:
        return _expert_buffer(trajectories, spec, fns.horizon), None
    num_train = len(trajectories) - num_validation
    parts = trajectories[:num_train], trajectories[num_train:]
    expert, validation = (_expert_buffer(part, spec, fns.horizon) for part in parts)
    return expert, validation


def _expert_buffer(trajectories: list[Trajectory], spec: EnvSpec, horizon: int) -> ReplayBuffer:
    expert = from_trajectories(trajectories, spec, horizon)
    if not int(expert.num_segments(horizon)):
        raise UserError(f"no demonstration is as long as the horizon of {horizon} steps.")
    return expert


def make_compiled_fns(config: RunConfig, spec: EnvSpec) -> CompiledFns:
    """Make the compiled functions of a run with these settings on this task."""
    algorithm = make_algorithm(config, spec)
    on_host = config.replay_images == "host" and spec.image_size is not None and algorithm.uses_env
    return (HostImageFns if on_host else CompiledFns)(
        algorithm,
        horizon=config.mppi.horizon,
        batch_size=config.optim.batch_size,
        updates_per_call=config.updates_per_call,
        episode_length=spec.episode_length,
        mesh=seed_mesh(len(config.seeds)),
        image_shift=None if spec.image_size is None else config.model.image_shift,
    )


def buffer_capacity(config: RunConfig, spec: EnvSpec, uses_env: bool) -> int:
    """Compute the rows of the agent buffer per environment: `buffer_size`, or fewer if the run cannot fill them.

    Args:
        config: settings of the run.
        spec: the task.
        uses_env: `Algorithm.uses_env`.
    """
    if not uses_env:
        return config.mppi.horizon + 2
    steps_per_env = -(-total_steps(config) // config.envs)
    if spec.can_terminate:
        # An episode takes one row more than it has steps, and as many absorbing rows as a segment has transitions. If
        # episodes are shorter than that on average, the oldest ones are overwritten.
        return min(config.buffer_size, 2 * steps_per_env + config.mppi.horizon + 2)
    episodes = -(-steps_per_env // spec.episode_length) + 1
    return min(config.buffer_size, steps_per_env + episodes + 1)


def initial_steps(run: TrainingRun) -> int:
    """Compute the number of steps per seed, of the pretrained or else of a random policy, before the first update."""
    if not run.fns.algorithm.uses_env:
        return 0
    config = run.config
    # Of one episode in every environment.
    episode_steps = run.envs.spec.episode_length * config.envs
    if run.fns.algorithm.pretraining:
        return -(-config.pretrain.steps // episode_steps) * episode_steps
    return config.random_episodes * episode_steps
