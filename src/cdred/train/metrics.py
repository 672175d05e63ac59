"""Metrics of a run: fetched from the device and logged."""

from collections.abc import Mapping

import jax
import numpy as np

from cdred.config import total_steps
from cdred.train.callbacks import EvaluationRecord
from cdred.train.collect import OnEpisode
from cdred.train.evaluate import Evaluation
from cdred.train.setup import TrainingRun
from cdred.train.state import TrainState


def log_train_metrics(run: TrainingRun, state: TrainState, updates: int, rates: dict[str, float | None]) -> None:
    """Log the metrics of the updates since the last call, then the diagnostics."""
    metrics = _fetch_metrics(run) | _restart_counts(state)
    run.logger.log(int(state.steps), metrics | rates | {"updates": updates} | _failure_counts(run), "train")
    _log_diagnostics(run, state, metrics)


def flush_episode_logs(run: TrainingRun, state: TrainState) -> TrainState:
    """Log the episodes that ended on the device; those on the host are logged when they end."""
    return run.device_loop.flush_logs(state, episode_logger(run)) if run.device_loop else state


def episode_logger(run: TrainingRun) -> OnEpisode:
    """Make the function that logs the means of the episodes that ended."""
    return lambda step, means: run.logger.log(step, drop_inapplicable(run, means), "rollout")


def report_evaluation(run: TrainingRun, step: int, evaluation: Evaluation) -> None:
    """Call the callbacks with an evaluation."""
    success = tuple(evaluation.success.tolist()) if run.envs.spec.has_success else None
    run.callbacks(
        EvaluationRecord(
            step=step,
            total_steps=total_steps(run.config),
            seeds=run.config.seeds,
            episode_return=tuple(evaluation.episode_return.tolist()),
            success=success,
            folder=run.checkpoints.parent,
        )
    )


def drop_inapplicable(run: TrainingRun, metrics: dict) -> dict:
    """Drop what needs a success signal in a task without, and the length of episodes in a task without termination."""
    spec = run.envs.spec
    applicable = {
        "success": spec.has_success,
        "success_at_end": spec.has_success,
        "episode_length": spec.can_terminate,
        "detector_precision": spec.has_success,
        "detector_recall": spec.has_success,
    }
    return {name: value for name, value in metrics.items() if applicable.get(name, True)}


def reward_margin(expert: np.ndarray, agent: np.ndarray) -> np.ndarray:
    """Compute (R_E - R_A) / (|R_E| + |R_A|) of the mean rewards of expert and agent batches."""
    return (expert - agent) / np.maximum(np.abs(expert) + np.abs(agent), 1e-12)


def _fetch_metrics(run: TrainingRun) -> dict[str, list[float]]:
    """Average the metrics since the last call per seed. Waits for the device."""
    rows = jax.device_get(run.pending_metrics)
    run.pending_metrics.clear()
    reduce = {"grad_norm_max": np.max}
    return {name: reduce.get(name, np.mean)([row[name] for row in rows], axis=0).tolist() for name in rows[0]}


def _restart_counts(state: TrainState) -> dict[str, list[int]]:
    restarts = state.divergence_restarts
    return {"divergence_restarts": restarts.tolist()} if restarts.any() else {}


def _failure_counts(run: TrainingRun) -> dict[str, list[int]]:
    failed = run.envs.failed_episodes
    return {"failed_episodes": failed.tolist()} if failed.any() else {}


def _log_diagnostics(run: TrainingRun, state: TrainState, metrics: Mapping[str, list]) -> None:
    """Log the diagnostics of an algorithm that uses the environment; the reward margin is that of `metrics`."""
    if not run.fns.algorithm.uses_env:
        return
    args = (state.learner, state.replay, run.expert, run.keys.diagnostics, np.int32(state.steps), run.validation)
    diagnostics = {name: value.tolist() for name, value in jax.device_get(run.fns.diagnose(*args)).items()}
    if "reward_expert" in metrics:
        rewards = (np.array(metrics[name]) for name in ("reward_expert", "reward_agent"))
        diagnostics["reward_margin"] = reward_margin(*rewards).tolist()
    if diagnostics:
        run.logger.log(int(state.steps), drop_inapplicable(run, diagnostics), "diagnostics")
