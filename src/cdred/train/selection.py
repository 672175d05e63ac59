"""Choice of the agent at the end of training, without a reward.

The planner, the policy and the pretrained policy each act in fresh episodes, which the judge of pretraining compares
with the demonstrations.
"""

from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, PyTree

from cdred.algos.base import Algorithm
from cdred.algos.pretrain import CANDIDATES
from cdred.train.evaluate import evaluate, evaluation_keys
from cdred.train.setup import TrainingRun
from cdred.train.state import TrainState


class JudgedEpisodes:
    """Judgement of every counted episode, as a callback of `evaluate`.

    Attributes:
        passed: whether each episode passes, per seed.
    """

    def __init__(self, run: TrainingRun, learner: PyTree):
        judge = learner.pretrained.judge
        self._distance, self._learner = run.fns.judge_distance, learner
        self._threshold = np.asarray(judge.threshold)
        self._recent = [[deque(maxlen=judge.window) for _ in range(run.envs.shape[1])] for _ in run.config.seeds]
        self.passed: list[list[bool]] = [[] for _ in run.config.seeds]

    def __call__(self, obs: Float32[np.ndarray, "S E ..."], done: np.ndarray, counted: np.ndarray) -> None:
        distance = np.asarray(self._distance(self._learner, obs))
        for s, e in np.ndindex(done.shape):
            recent = self._recent[s][e]
            recent.append(distance[s, e])
            if counted[s, e]:
                self.passed[s].append(bool(min(recent) <= self._threshold[s]))
            if done[s, e]:
                recent.clear()


def select_agent(run: TrainingRun, state: TrainState) -> TrainState:
    """Let each candidate act in `pretrain.selection_episodes` fresh episodes; keep the one that passes most of them.

    Of equal candidates the first is kept: the agent as trained, if the judge passes no episode of any.
    """
    passed = np.array([np.mean(_judge(run, state, index).passed, axis=1) for index in range(len(CANDIDATES))])
    best = np.argmax(passed, axis=0)
    metrics = {f"{name}_passed": row.tolist() for name, row in zip(CANDIDATES, passed, strict=True)}
    run.logger.log(int(state.steps), metrics | {"chosen": best.tolist()}, "selection")
    learner = run.fns.set_acting(state.learner, jnp.asarray(best, jnp.int32))
    state = state.replace(learner=learner, eval_envs=run.eval_envs.snapshot())
    names = ", ".join(acting_names(run.fns.algorithm, learner) or [])
    run.log(f"chosen by {run.config.pretrain.selection_episodes} episodes each, without a reward: {names}")
    return state


def acting_names(algorithm: Algorithm, learner: PyTree) -> list[str] | None:
    """Return the name in `pretrain.CANDIDATES` of what acts for each seed; None without pretraining."""
    if algorithm.pretraining is None:
        return None
    return [CANDIDATES[index] for index in jax.device_get(learner.pretrained.acting)]


def _judge(run: TrainingRun, state: TrainState, candidate: int) -> JudgedEpisodes:
    seeds = len(run.config.seeds)
    learner = run.fns.set_acting(state.learner, jnp.full(seeds, candidate, jnp.int32))
    episodes = JudgedEpisodes(run, learner)
    # The final evaluation's keys are those of the step count, which this candidate's must not be.
    keys = evaluation_keys(run.keys.evaluate, int(state.steps) + 2 + candidate)
    evaluate(run.fns, learner, run.eval_envs, keys, run.config.pretrain.selection_episodes, episodes)
    return episodes
