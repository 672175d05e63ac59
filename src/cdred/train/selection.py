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

PRETRAINED = CANDIDATES.index("pretrained")


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
    """Let each candidate act in `pretrain.selection_episodes` episodes, and choose by detected successes.

    The choice is that of `choose_candidate`; where the detector of a seed does not detect the demonstrations either,
    the agent acts as trained.
    """
    reliable = np.asarray(state.learner.pretrained.demos_detected) >= MIN_DETECTED
    if not reliable.any():
        run.log("the agent acts as trained: demonstrations do not end where others end, so no success can be detected")
        return state
    first = unseen_episode(run.eval_envs, run.config.final_eval_episodes)
    detected = [_detect(run, state, index, first).success for index in range(len(CANDIDATES))]
    success, episodes = np.mean(detected, axis=2), run.config.pretrain.selection_episodes
    error = standard_error(success, episodes)
    best = np.where(reliable, choose_candidate(success, error), CANDIDATES.index("agent"))
    metrics = {f"{name}_detected_success": row.tolist() for name, row in zip(CANDIDATES, success, strict=True)}
    metrics["standard_error"] = error.tolist()
    run.logger.log(int(state.steps), metrics | {"chosen": best.tolist()}, "selection")
    learner = run.fns.set_acting(state.learner, jnp.asarray(best, jnp.int32))
    state = state.replace(learner=learner, eval_envs=run.eval_envs.snapshot())
    names = ", ".join(acting_names(run.fns.algorithm, learner) or [])
    run.log(f"chosen to act, by detected successes in {episodes} episodes each: {names}")
    return state


def choose_candidate(success: Float64[np.ndarray, "C S"], error: Float64[np.ndarray, " S"]) -> Int64[np.ndarray, " S"]:
    """Return the index in `CANDIDATES` of what acts for each seed.

    The candidate of the highest success rate, of equal ones the agent, replaces the pretrained policy if it leads by
    more than one standard error; otherwise the lead may be chance, and BC is what the user would have without training.
    If all rates are 0, the agent acts.

    Args:
        success: success rate of each candidate and seed.
        error: as from `standard_error`.
    """
    lead = success.max(axis=0) - success[PRETRAINED]
    chosen = np.where(lead > error, np.argmax(success, axis=0), PRETRAINED)
    return np.where(success.any(axis=0), chosen, CANDIDATES.index("agent"))


def standard_error(success: Float64[np.ndarray, "C S"], episodes: int) -> Float64[np.ndarray, " S"]:
    """Return the standard error of the lead of the highest rate over the pretrained policy, if both are equal in truth.

    A success and a failure are added to those of both: otherwise that of two rates of 0, or of 1, would be 0.

    Args:
        success: success rate of each candidate and seed.
        episodes: number of episodes of each rate.
    """
    rate = (episodes * (success.max(axis=0) + success[PRETRAINED]) + 1) / (2 * episodes + 2)
    return np.sqrt(2 * rate * (1 - rate) / episodes)


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
