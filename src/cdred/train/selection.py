"""Choice of what acts after training, without a reward.

The agent as trained, its policy and the pretrained policy each act in the same unseen episodes, and their successes are
detected. In different episodes the success rates of one policy may differ by more than those of two policies.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Float64, Int64, PyTree

from cdred.algos.base import Algorithm
from cdred.algos.pretrain import CANDIDATES, MIN_DETECTED
from cdred.train.evaluate import evaluate, evaluation_keys, unseen_episode
from cdred.train.setup import TrainingRun
from cdred.train.state import TrainState


class DetectedSuccesses:
    """Detected successes of every counted episode, as a callback of `evaluate`.

    Attributes:
        success: per seed, a value per episode.
    """

    def __init__(self, run: TrainingRun, learner: PyTree):
        detector = learner.pretrained.detector
        self._distance, self._learner = run.fns.distance_from_ends, learner
        self._threshold = np.asarray(detector.threshold)
        self._nearest = np.full((len(run.config.seeds), run.envs.shape[1]), np.inf)
        self.success: list[list[bool]] = [[] for _ in run.config.seeds]

    def __call__(self, obs: Float32[np.ndarray, "S E ..."], done: np.ndarray, counted: np.ndarray) -> None:
        self._nearest = np.minimum(self._nearest, np.asarray(self._distance(self._learner, obs)))
        for s, e in np.argwhere(counted):
            self.success[s].append(bool(self._nearest[s, e] <= self._threshold[s]))
        self._nearest[done] = np.inf


def select_agent(run: TrainingRun, state: TrainState) -> TrainState:
    """Let each candidate act in `pretrain.selection_episodes` episodes; choose that of the most detected successes.

    Another candidate replaces the pretrained policy only if it has more. If no candidate has any, or the detector of a
    seed does not detect the demonstrations either, the agent acts as trained.
    """
    reliable = np.asarray(state.learner.pretrained.demos_detected) >= MIN_DETECTED
    if not reliable.any():
        run.log("the agent acts as trained: demonstrations do not end where others end, so no success can be detected")
        return state
    first = unseen_episode(run.eval_envs, run.config.final_eval_episodes)
    detected = [_detect(run, state, index, first).success for index in range(len(CANDIDATES))]
    success = np.mean(detected, axis=2)
    best = np.where(reliable, choose_candidate(success), CANDIDATES.index("agent"))
    metrics = {f"{name}_detected_success": row.tolist() for name, row in zip(CANDIDATES, success, strict=True)}
    run.logger.log(int(state.steps), metrics | {"chosen": best.tolist()}, "selection")
    learner = run.fns.set_acting(state.learner, jnp.asarray(best, jnp.int32))
    state = state.replace(learner=learner, eval_envs=run.eval_envs.snapshot())
    names = ", ".join(acting_names(run.fns.algorithm, learner) or [])
    episodes = run.config.pretrain.selection_episodes
    run.log(f"chosen to act, by detected successes in {episodes} episodes each: {names}")
    return state


def choose_candidate(success: Float64[np.ndarray, "C S"]) -> Int64[np.ndarray, " S"]:
    """Return the index in `CANDIDATES` of the highest success rate of each seed.

    Ties go to the pretrained policy, then to the agent; if all rates are 0, to the agent.
    """
    agent, pretrained = CANDIDATES.index("agent"), CANDIDATES.index("pretrained")
    best = np.where(success[pretrained] == success.max(axis=0), pretrained, np.argmax(success, axis=0))
    return np.where(success.any(axis=0), best, agent)


def acting_names(algorithm: Algorithm, learner: PyTree) -> list[str] | None:
    """Return the name in `pretrain.CANDIDATES` of what acts for each seed; None without pretraining."""
    if algorithm.pretraining is None:
        return None
    return [CANDIDATES[index] for index in jax.device_get(learner.pretrained.acting)]


def _detect(run: TrainingRun, state: TrainState, candidate: int, first_episode: int) -> DetectedSuccesses:
    """Let a candidate act from episode `first_episode` on."""
    seeds = len(run.config.seeds)
    learner = run.fns.set_acting(state.learner, jnp.full(seeds, candidate, jnp.int32))
    successes = DetectedSuccesses(run, learner)
    # The final evaluation uses the key of the step count, and `cdred eval` that of the next number.
    keys = evaluation_keys(run.keys.evaluate, int(state.steps) + 2 + candidate)
    episodes = run.config.pretrain.selection_episodes
    evaluate(run.fns, learner, run.eval_envs, keys, episodes, successes, first_episode=first_episode)
    return successes
