"""Pretraining of a run on its demonstrations, before the first environment step.

It depends on the demonstrations and the run's keys only. A run that is interrupted in it starts it again.
"""

from typing import Any

import jax
import numpy as np

from cdred.algos.pretrain import CANDIDATES
from cdred.errors import DivergenceError, Interrupted
from cdred.train.compiled import CompiledFns
from cdred.train.evaluate import evaluate, evaluation_keys
from cdred.train.finite import HINT
from cdred.train.metrics import drop_inapplicable, report_evaluation
from cdred.train.saving import save_if_best
from cdred.train.setup import TrainingRun
from cdred.train.state import TrainState

# Metrics are logged this often.
REPORTS = 10


class PretrainedPolicy:
    """Pretrained policy as an `evaluate.Actor`."""

    def __init__(self, fns: CompiledFns):
        self.act, self.init_plan = fns.act_pretrained, fns.init_plan


def pretrain(run: TrainingRun, state: TrainState) -> TrainState:
    """Pretrain the networks, and evaluate the pretrained policy as the run's evaluation at step 0.

    Raises:
        DivergenceError: a loss is not finite.
        Interrupted: a signal was received.
    """
    fns, pretraining = run.fns, run.fns.algorithm.pretraining
    assert pretraining is not None
    assert run.expert is not None
    learner = state.learner
    if not run.config.init_from:
        learner = fns.set_obs_stats(learner, None, run.expert)
    networks = fns.init_pretraining(learner)
    updates, call = pretraining.config.updates, fns.updates_per_call
    run.log(f"pretraining on the demonstrations: {updates:,} updates")
    for count in range(0, updates, call):
        networks, metrics = fns.pretrain(networks, run.expert, run.keys.pretrain, np.int32(count))
        if (count + call) * REPORTS // updates > count * REPORTS // updates:
            _log(run, metrics, count + call)
        if run.signal_handler.received:
            text = "stopped in pretraining; run the same command to start it again."
            raise Interrupted(text, 128 + run.signal_handler.received)
    state = state.replace(learner=fns.finish_pretraining(learner, networks, run.expert))
    return _evaluate(run, state)


def _log(run: TrainingRun, metrics: dict[str, Any], updates: int) -> None:
    values = {name: value.tolist() for name, value in jax.device_get(metrics).items()}
    run.logger.log(0, values | {"updates": updates}, "pretrain")
    for seed, loss in zip(run.config.seeds, values["loss"], strict=True):
        if not np.isfinite(loss):
            raise DivergenceError(f"seed {seed}: the loss of pretraining is not finite at update {updates:,}.\n{HINT}")


def _evaluate(run: TrainingRun, state: TrainState) -> TrainState:
    keys = evaluation_keys(run.keys.evaluate, 0)
    actor, episodes = PretrainedPolicy(run.fns), run.config.final_eval_episodes
    result = evaluate(actor, state.learner, run.eval_envs, keys, episodes, first_episode=0)
    run.logger.log(0, drop_inapplicable(run, result.metrics()), "eval")
    state = state.replace(eval_envs=run.eval_envs.snapshot())
    acting = np.full(len(run.config.seeds), CANDIDATES.index("pretrained"), np.int32)
    save_if_best(run, state.replace(learner=run.fns.set_acting(state.learner, acting)), result)
    report_evaluation(run, 0, result)
    return state
