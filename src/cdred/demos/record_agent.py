"""Demonstrations by a trained agent: episodes without exploration, kept if their return reaches a threshold."""

from collections.abc import Callable, Iterator

import jax
import numpy as np
from jaxtyping import PyTree

from cdred.data.action_repeat import REPEAT_KEY
from cdred.data.formats.obs_keys import parts_provenance
from cdred.data.rescale import BOUNDS_KEY, normalized_bounds
from cdred.demos.episodes import stack_obs
from cdred.demos.reference_scores import mean_score
from cdred.envs.base import Obs, VectorStep
from cdred.envs.make import AnyVectorEnv
from cdred.errors import UserError
from cdred.train.compiled import CompiledFns
from cdred.train.keys import EVALUATE, seed_keys
from cdred.types import DemoDataset, EnvSpec, ImageObs, Trajectory

# Maximum number of attempts: so many per episode to keep, plus a constant.
ATTEMPTS_PER_EPISODE, EXTRA_ATTEMPTS = 10, 50


def record_agent(
    compiled: CompiledFns,
    learner: PyTree,
    envs: AnyVectorEnv,
    num: int,
    *,
    threshold: float = -np.inf,
    provenance: dict[str, object] | None = None,
    on_episode: Callable[[int, int], None] | None = None,
) -> DemoDataset:
    """Record `num` episodes of an agent with a return of at least `threshold`.

    Args:
        compiled: compiled functions of the agent.
        learner: state of the agent, with a leading axis of one seed.
        envs: vector env of shape `[1, E]`.
        num: number of episodes to keep.
        threshold: smallest return of an episode that is kept.
        provenance: additional entries of the provenance, which has the expert's score over all attempts.
        on_episode: called after each attempt with the numbers of kept and of attempted episodes.

    Raises:
        UserError: too few episodes reach the threshold.
    """
    attempts: list[Trajectory] = []
    kept: list[Trajectory] = []
    for episode in agent_episodes(compiled, learner, envs):
        attempts.append(episode)
        if _return_of(episode) >= threshold:
            kept.append(episode)
        if on_episode:
            on_episode(len(kept), len(attempts))
        if len(kept) == num:
            break
        if len(attempts) >= ATTEMPTS_PER_EPISODE * num + EXTRA_ATTEMPTS:
            raise UserError(_too_few(kept, attempts, num, threshold))
    recording = {
        "threshold": float(threshold) if np.isfinite(threshold) else None,
        "attempts": len(attempts),
        "returns": [round(_return_of(episode), 3) for episode in kept],
        "expert_level": mean_score(attempts)._asdict(),
        REPEAT_KEY: envs.spec.action_repeat,
        BOUNDS_KEY: normalized_bounds(envs.spec.action_dim),
        **parts_provenance(envs.spec.obs_parts),
    }
    return DemoDataset(envs.spec.task, tuple(kept), (provenance or {}) | recording)


def _return_of(episode: Trajectory) -> float:
    assert episode.episode_return is not None, "environments return rewards"
    return episode.episode_return


def _too_few(kept: list[Trajectory], attempts: list[Trajectory], num: int, threshold: float) -> str:
    best = max(map(_return_of, attempts))
    return (
        f"only {len(kept)} of {len(attempts)} episodes have a return of at least {threshold:g}, expected {num}; the "
        f"best return is {best:.1f}. Lower the threshold, or train the expert for longer."
    )


def agent_episodes(compiled: CompiledFns, learner: PyTree, envs: AnyVectorEnv) -> Iterator[Trajectory]:
    """Run an agent without exploration and yield completed episodes, without end, in the order of completion.

    Aborted episodes are skipped.

    Args:
        compiled: as in `record_agent`.
        learner: as in `record_agent`.
        envs: as in `record_agent`.
    """
    keys = seed_keys(envs.seeds, EVALUATE)
    plan, obs, is_first, counter = compiled.init_plan(*envs.shape), envs.reset(), np.ones(envs.shape, bool), 0
    recorders = [EpisodeRecorder(envs, e, obs) for e in range(envs.shape[1])]
    while True:
        device_action, plan = compiled.act(learner, plan, obs, is_first, keys, np.int32(counter), False)
        action = np.asarray(jax.device_get(device_action))
        step = envs.step(action)
        is_first, counter = step.needs_reset, counter + 1
        for e in range(envs.shape[1]):
            recorders[e].add(action[0, e], step)
            if step.done[0, e]:
                yield recorders[e].trajectory()
        obs = envs.reset(is_first) if is_first.any() else step.obs
        for e in np.flatnonzero(is_first[0]):
            recorders[e] = EpisodeRecorder(envs, int(e), obs)


class EpisodeRecorder:
    """Recorder of the current episode of one environment of a vector env with one seed.

    Args:
        envs: the vector env.
        e: index of the environment.
        obs: first observations of all environments.
    """

    def __init__(self, envs: AnyVectorEnv, e: int, obs: np.ndarray | ImageObs):
        self._spec: EnvSpec = envs.spec
        self._e, self._seed = e, envs.episode_seed(0, e)
        self._obs, self._actions, self._steps = [self._newest(obs)], [], []

    def _newest(self, obs: np.ndarray | ImageObs) -> Obs:
        if isinstance(obs, ImageObs):
            return ImageObs(obs.state[0, self._e].copy(), obs.image[0, self._e, -1].copy())
        return obs[0, self._e].copy()

    def add(self, action: np.ndarray, step: VectorStep) -> None:
        """Append a step: the action of this environment and the result of all."""
        self._actions.append(action)
        self._obs.append(self._newest(step.obs))
        self._steps.append(VectorStep(self._obs[-1], *(field[0, self._e] for field in step[1:])))

    def trajectory(self) -> Trajectory:
        """Return the episode; its last step must be done."""
        last = self._steps[-1]
        obs, image = stack_obs(self._obs)
        return Trajectory(
            obs=obs,
            image=image,
            action=np.stack(self._actions),
            reward=np.array([step.reward for step in self._steps], np.float32),
            terminated=bool(last.terminated),
            truncated=bool(last.truncated),
            success=np.array([step.success for step in self._steps], bool) if self._spec.has_success else None,
            seed=self._seed,
        )
