"""Checkpoints of a run: saving, resuming, and keeping the best agents."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from cdred.algos.pretrain import CANDIDATES
from cdred.checkpoint import checkpoint
from cdred.config import RunConfig, steps_per_call, total_steps
from cdred.envs.failures import SimulatorError
from cdred.errors import UserError
from cdred.files import format_mib
from cdred.host_memory import host_memory
from cdred.train.enlarge import enlarge
from cdred.train.evaluate import Evaluation
from cdred.train.memory import agent_buffer_bytes, check_host_images
from cdred.train.metrics import drop_inapplicable
from cdred.train.setup import TrainingRun, buffer_capacity
from cdred.train.state import TrainState
from cdred.train.timing import RunTimer

# A save that takes longer, in seconds, is reported.
SLOW_SAVE = 3.0
# Key of the number of steps that the run was to have, in the metadata of a checkpoint.
TOTAL_STEPS = "total_steps"


def start_or_resume(run: TrainingRun) -> tuple[TrainState, float]:
    """Make the initial state, or load the last checkpoint and restore the environments and keys.

    The number of steps of the run may have changed since.

    Returns:
        The state and the wall-clock seconds spent before.
    """
    config, folder = run.config, checkpoint.latest(run.checkpoints)
    capacity = buffer_capacity(config, run.envs.spec, run.fns.algorithm.uses_env)
    saved_shape = checkpoint.read_shape(folder, "replay/episode_step") if folder else None
    saved_capacity = saved_shape[-1] if saved_shape else capacity
    capacity = max(capacity, saved_capacity)
    _log_buffer_size(run, capacity)
    run.envs.reset()
    parts = (run.fns, run.envs, run.eval_envs)
    if folder is None:
        # Left by an earlier run in this folder, possibly with other settings.
        checkpoint.remove_best(run.checkpoints)
        state = TrainState.create(*parts, capacity)
        if run.initialize is not None:
            state = state.replace(learner=run.initialize(state.learner))
        return state.shard(run.fns.mesh), 0.0
    state, meta = checkpoint.load(folder, TrainState.abstract(*parts, saved_capacity))
    if capacity > saved_capacity:
        state = state.replace(replay=enlarge(state.replay, capacity))
    else:
        # Only then the next save may share shards with it.
        run.last_checkpoint = folder
    if int(state.steps) < total_steps(config) and run.fns.algorithm.pretraining:
        # Chosen when the run ended, before it was lengthened.
        agent = np.full(len(config.seeds), CANDIDATES.index("agent"), np.int32)
        state = state.replace(learner=run.fns.set_acting(state.learner, agent))
    run.keys.set_restarts(state.divergence_restarts)
    run.envs.restore(state.envs)
    run.eval_envs.restore(state.eval_envs)
    run.log(f"resuming at step {int(state.steps):,} from {folder}")
    _log_changed_steps(run, meta.get(TOTAL_STEPS))
    return state.shard(run.fns.mesh), float(meta["wall_seconds"])


def _log_buffer_size(run: TrainingRun, capacity: int) -> None:
    """Log the size of the agent buffer; raises UserError if this machine cannot hold its images in host memory."""
    config = run.config
    size, images = agent_buffer_bytes(config, run.envs.spec, capacity)
    shape = f"{len(config.seeds)} x {config.envs} x {capacity:,} rows"
    if run.fns.images_on_host:
        run.log(f"agent buffer: {shape}, {format_mib(size)} on the device, {check_host_images(images, host_memory())}")
    else:
        run.log(f"agent buffer: {shape}, {format_mib(size + images)} on the device")


def _log_changed_steps(run: TrainingRun, before: int | None) -> None:
    total, fraction = total_steps(run.config), run.config.optim.lr_decay_fraction
    if before in (None, total):
        return
    text = f"the run has {total:,} steps now instead of {before:,}"
    if fraction:
        text += f"; from here on, its learning rate is that of a run of {total:,} steps, which falls to zero in the "
        text += f"last {fraction:.0%} of them (--optim.lr-decay-fraction)"
    run.log(text)


def repeats_evaluation(config: RunConfig, folder: Path) -> bool:
    """Check if an evaluation at the step of a checkpoint follows it.

    It does after the last checkpoint, because the final evaluation follows, and after what was the last one before the
    run was lengthened, if a regular evaluation is due at its step.
    """
    step, total = int(folder.name), total_steps(config)
    was_last = step >= checkpoint.read_meta(folder).get(TOTAL_STEPS, total)
    return step >= total or (was_last and interval_elapsed(step - steps_per_call(config), step, config.eval_every))


def interval_elapsed(previous: int, steps: int, every: int) -> bool:
    """Check for a multiple of `every` in (previous, steps]."""
    return steps // every > previous // every


def snapshot_envs(run: TrainingRun, state: TrainState) -> TrainState:
    """Put a snapshot of the training environments into the state."""
    return state.replace(envs=run.envs.snapshot())


def save(run: TrainingRun, state: TrainState, timer: RunTimer) -> None:
    """Save a checkpoint, and set it as the good state from which diverged seeds restart."""
    start, step = time.perf_counter(), int(state.steps)
    meta = {"wall_seconds": timer.seconds(), "task": run.config.task, "seeds": list(run.config.seeds)}
    meta[TOTAL_STEPS] = total_steps(run.config)
    run.last_checkpoint = checkpoint.save(run.checkpoints, step, state, meta, base=run.last_checkpoint)
    run.recovery.set_good_state(state)
    size, seconds = checkpoint.size(run.last_checkpoint), time.perf_counter() - start
    run.logger.log(step, {"seconds": seconds, "bytes": size.total, "bytes_written": size.written}, "checkpoint")
    if seconds > SLOW_SAVE:
        run.log(f"saved {format_mib(size.written)} of {format_mib(size.total)} in {seconds:.0f} s")
    timer.record_save(seconds, size.total)


def save_if_best(run: TrainingRun, state: TrainState, result: Evaluation) -> None:
    """Save the agents if their evaluation is the best one so far: by success if the task has it, then by return."""
    score = [float(np.mean(result.success))] if run.envs.spec.has_success else []
    agents = {"learner": state.learner, "eval_envs": state.eval_envs}
    meta = {"evaluation": drop_inapplicable(run, result.metrics())}
    score.append(float(np.mean(result.episode_return)))
    checkpoint.save_best(run.checkpoints, int(state.steps), agents, meta, score)


@contextmanager
def save_on_simulator_error(run: TrainingRun, state: TrainState, timer: RunTimer) -> Iterator[None]:
    """Save `state`, that before the steps in this context, if a simulator fails in them; not before the first step."""
    try:
        yield
    except SimulatorError as error:
        if not state.steps:
            raise
        save(run, state, timer)
        saved = f"The state at step {int(state.steps):,} is saved in {run.checkpoints.parent}"
        raise UserError(f"{error}\n{saved}; run the same command to resume.") from error
