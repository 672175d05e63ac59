"""Training loop: collect, learn, log, evaluate and save.

Simulators on the host are stepped between compiled functions; simulators in JAX inside one (`train.device_loop`).
"""

import time
from typing import Any, NamedTuple

import jax
import numpy as np

from cdred.checkpoint import checkpoint
from cdred.config import steps_per_call, total_steps
from cdred.data.replay_images import without_images
from cdred.envs.vector_env import VectorEnv
from cdred.errors import Interrupted, Stopped, UserError
from cdred.train.collect import ActFn, collect, exploring_policy, pretrained_policy, random_policy
from cdred.train.divergence import Metrics
from cdred.train.evaluate import Evaluation, evaluate, evaluation_keys
from cdred.train.finite import FiniteCheck
from cdred.train.metrics import (
    drop_inapplicable,
    episode_logger,
    flush_episode_logs,
    log_train_metrics,
    report_evaluation,
)
from cdred.train.pretraining import pretrain
from cdred.train.saving import (
    interval_elapsed,
    repeats_evaluation,
    save,
    save_if_best,
    save_on_simulator_error,
    snapshot_envs,
    start_or_resume,
)
from cdred.train.selection import acting_names, select_agent
from cdred.train.setup import TrainingRun, initial_steps
from cdred.train.state import TrainState
from cdred.train.timing import RunTimer


class TrainResult(NamedTuple):
    """Result of a finished run.

    `acting` has how the agent of each seed acts, by name in `pretrain.CANDIDATES`; None without pretraining.
    """

    evaluation: Evaluation
    steps: int
    updates: int
    divergence_restarts: list[int]
    acting: list[str] | None
    wall_seconds: float


def train_loop(run: TrainingRun) -> TrainResult:
    """Train from the last checkpoint in the run folder, if any, to the last step, then evaluate.

    The state is saved before the final evaluation, so that a failure there loses nothing.

    The final evaluation repeats the episodes in which the pretrained policy was evaluated, so that both start from the
    same initial states.

    Raises:
        Interrupted: a signal was received; the state is saved.
        Stopped: a callback asked for it; the state is saved.
        DivergenceError: a seed diverged too often; the checkpoints are unaffected.
        UserError: a simulator failed too often. The state before the failing steps is saved; if it failed in an
            evaluation, the run resumes from the last checkpoint.
    """
    config, timer, total = run.config, RunTimer(), total_steps(run.config)
    with run.envs, run.eval_envs:
        resumed = checkpoint.latest(run.checkpoints)
        state, timer.previous_seconds = start_or_resume(run)
        if not state.steps and run.fns.algorithm.pretraining:
            state = pretrain(run, state)
        elif not state.steps and config.init_from:
            state = _evaluate(run, state, config.final_eval_episodes, timer, first_episode=0)[0]
        run.recovery.set_good_state(state)
        updates = int(np.max(jax.device_get(state.learner.updates)))
        if resumed and state.steps < total and repeats_evaluation(config, resumed):
            state = _evaluate(run, state, config.eval_episodes, timer)[0]
        if (initial := initial_steps(run)) > total:
            run.log(
                f"nothing is learned online: learning begins after {initial:,} steps, and the run has {total:,}. "
                f"Raise --steps, or lower {_initial_option(run)}."
            )
        timer.start_interval(int(state.steps))
        while state.steps < total:
            previous = int(state.steps)
            if run.device_loop is None:
                state = snapshot_envs(run, state)
            with save_on_simulator_error(run, state, timer):
                state, updates_now = train_block(run, state, updates)
            steps = int(state.steps)
            if updates_now > updates:
                timer.end_block(steps)
            updates = updates_now
            log_due = interval_elapsed(previous, steps, config.log_every)
            eval_due = interval_elapsed(previous, steps, config.eval_every)
            if log_due or eval_due:
                state = flush_episode_logs(run, state)
            if log_due and run.pending_metrics:
                log_train_metrics(run, state, updates, timer.rates(steps, total, episodes_left(run, previous)))
            if eval_due and steps < total:
                state = _evaluate(run, state, config.eval_episodes, timer)[0]
            save_due = interval_elapsed(previous, steps, config.checkpoint_every) or steps >= total
            if steps >= total and run.fns.algorithm.pretraining and config.pretrain.selection_episodes:
                state = select_agent(run, state)
            if save_due or run.signal_handler.received or run.callbacks.stop_requested:
                state = flush_episode_logs(run, state)
                save(run, snapshot_envs(run, state), timer)
                # Also a signal received during the save needs no second one.
                _stop_if_requested(run, steps, total)
        evaluation = _evaluate(run, state, config.final_eval_episodes, timer, first_episode=0)[1]
    run.log(timer.save_summary())
    restarts, acting = state.divergence_restarts.tolist(), acting_names(run.fns.algorithm, state.learner)
    return TrainResult(evaluation, int(state.steps), updates, restarts, acting, timer.seconds())


def train_block(run: TrainingRun, state: TrainState, updates: int) -> tuple[TrainState, int]:
    """Take one block of steps and make the updates due.

    Args:
        run: the run.
        state: its state.
        updates: updates so far.

    Returns:
        The new state and number of updates.
    """
    if not run.fns.algorithm.uses_env:
        steps = np.array(state.steps + steps_per_call(run.config))
        return _learn(run, state.replace(steps=steps), updates)
    learning = int(state.steps) >= initial_steps(run)
    if isinstance(run.envs, VectorEnv):
        state = _collect(run, run.envs, state, _behaviour(run, run.envs, learning))
        return _learn(run, state, updates)
    assert run.device_loop is not None, "`build_run` makes a device loop for simulators in JAX"
    if not learning:
        if run.fns.algorithm.pretraining:
            state = run.device_loop.pretrained_rollout(state, run.keys)
        else:
            state = run.device_loop.random_rollout(state)
        return _learn(run, state, updates)
    state, metrics, check = run.device_loop.act_and_learn(state, run.expert, run.keys)
    return _recover_if_diverged(run, state, metrics, check, updates + run.config.updates_per_call)


def _behaviour(run: TrainingRun, envs: VectorEnv, learning: bool) -> ActFn:
    """Return the policy that collects: the agent's once it learns, before that the pretrained or a random one."""
    if learning:
        return exploring_policy(run.fns, run.keys, run.recovery.restart_seeds)
    return pretrained_policy(run.fns, run.keys) if run.fns.algorithm.pretraining else random_policy(envs)


def _collect(run: TrainingRun, envs: VectorEnv, state: TrainState, act: ActFn) -> TrainState:
    """Take a block of steps and add it to the replay buffer."""
    block_length = steps_per_call(run.config) // run.config.envs
    state, block = collect(state, envs, act, block_length, on_episode=episode_logger(run))
    return state.replace(replay=run.fns.add_to_replay(state.replay, block, state.learner))


def _learn(run: TrainingRun, state: TrainState, updates: int) -> tuple[TrainState, int]:
    """Make the updates due for the steps so far. Those for the initial episodes are made at once when these end."""
    if int(state.steps) < initial_steps(run):
        return state, updates
    if updates == 0:
        state = _prepare_learning(run, state)
    start = time.perf_counter()
    while updates < int(state.steps) // run.config.steps_per_update:
        learner, metrics, check = run.fns.learn(*_learn_args(run, state, updates))
        call = run.fns.updates_per_call
        if updates == 0:
            jax.block_until_ready(metrics)
            run.log(f"compiled and made the first {call} updates in {time.perf_counter() - start:.0f} s")
        state = state.replace(learner=learner)
        state, updates = _recover_if_diverged(run, state, metrics, check, updates + call)
    return state, updates


def _prepare_learning(run: TrainingRun, state: TrainState) -> TrainState:
    """Set the observation statistics, unless there are some already, and the first good state."""
    run.log("compiling, then learning from the initial episodes" if initial_steps(run) else "compiling")
    # If all of them failed, that is logged before the error that there is nothing to learn from.
    state = flush_episode_logs(run, state)
    _require_segments(run, state)
    if not run.fns.algorithm.pretraining and not run.config.init_from:
        replay = state.replay if run.fns.algorithm.uses_env else None
        state = state.replace(learner=run.fns.set_obs_stats(state.learner, replay, run.expert))
    run.recovery.set_good_state(state)
    return state


def _learn_args(run: TrainingRun, state: TrainState, updates: int) -> tuple[Any, ...]:
    """Return the arguments of `CompiledFns.learn` after `updates` updates."""
    return state.learner, state.replay, run.expert, run.keys.learn, np.int32(updates), run.validation


def _recover_if_diverged(
    run: TrainingRun, state: TrainState, metrics: Metrics, check: FiniteCheck, updates: int
) -> tuple[TrainState, int]:
    """Restart the seeds that diverged in the `learn` call that led to `updates` updates; queue its metrics."""
    if not jax.device_get(check.finite).all():
        # A simulator with non-finite values is the likely cause, and is logged first.
        state = flush_episode_logs(run, state)
    state, metrics = run.recovery.recover(state, metrics, check, updates)
    run.pending_metrics.append(metrics)
    return state, updates


def _require_segments(run: TrainingRun, state: TrainState) -> None:
    horizon = run.config.mppi.horizon
    replay = without_images(state.replay)
    if run.fns.algorithm.uses_env and not int(jax.vmap(lambda r: r.num_segments(horizon))(replay).min()):
        option = _initial_option(run)
        raise UserError(f"no initial episode lasted {horizon} steps: nothing to learn from. Raise {option}.")


def _initial_option(run: TrainingRun) -> str:
    return "--pretrain.steps" if run.fns.algorithm.pretraining else "--random-episodes"


def episodes_left(run: TrainingRun, steps: int) -> int:
    """Return the evaluation episodes per seed after `steps` steps, in which the agent acts as it does in the end.

    Those of the candidates to act are about one evaluation: the others of them act without planning.
    """
    config = run.config
    evaluations = (total_steps(config) - 1) // config.eval_every - steps // config.eval_every
    selected = config.pretrain.selection_episodes if run.fns.algorithm.pretraining else 0
    return evaluations * config.eval_episodes + config.final_eval_episodes + selected


def _evaluate(
    run: TrainingRun, state: TrainState, episodes: int, timer: RunTimer, first_episode: int | None = None
) -> tuple[TrainState, Evaluation]:
    start, step = time.perf_counter(), int(state.steps)
    keys = evaluation_keys(run.keys.evaluate, step)
    result = evaluate(run.fns, state.learner, run.eval_envs, keys, episodes, first_episode=first_episode)
    seconds = time.perf_counter() - start
    timer.record_evaluation(seconds, episodes)
    metrics = drop_inapplicable(run, result.metrics()) | {"seconds": seconds}
    run.logger.log(step, metrics, "eval")
    state = state.replace(eval_envs=run.eval_envs.snapshot())
    save_if_best(run, state, result)
    report_evaluation(run, step, result)
    return state, result


def _stop_if_requested(run: TrainingRun, steps: int, total: int) -> None:
    received = run.signal_handler.received
    where = f"at step {steps:,} of {total:,}, saved in {run.checkpoints.parent}"
    if received:
        raise Interrupted(f"stopped {where}; run the same command to resume.", 128 + received)
    if run.callbacks.stop_requested:
        raise Stopped(f"stopped by a callback {where}; the same call resumes the run.")
