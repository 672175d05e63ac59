"""Reference scores of a task, between which returns are normalized: of its expert and of a random policy."""

from collections.abc import Sequence
from itertools import count, islice
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from cdred.demos.episodes import Policy, RestartingEnv
from cdred.envs.base import Env
from cdred.envs.failures import warn
from cdred.envs.make import AnyVectorEnv, make_vector_env
from cdred.envs.registry import jax_env, without_images
from cdred.envs.remote.client import STEP_TIMEOUT
from cdred.envs.seeding import episode_seed
from cdred.train.collect import random_actions
from cdred.train.evaluate import evaluate
from cdred.train.keys import EVALUATE, seed_keys
from cdred.types import DemoDataset, LogFn, Trajectory, VectorizationMode


class ReferenceScore(NamedTuple):
    """Mean return and success rates over episodes; each is None if it is not known of all episodes."""

    episode_return: float | None
    success: float | None
    success_at_end: float | None


def mean_score(trajectories: Sequence[Trajectory]) -> ReferenceScore:
    """Compute the mean return and the success rates of episodes."""
    names = ("episode_return", "success_once", "success_at_end")
    return ReferenceScore(*(_known_mean([getattr(one, name) for one in trajectories]) for name in names))


def _known_mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def expert_score(dataset: DemoDataset) -> ReferenceScore:
    """Return the expert's score: over all of its attempts if the provenance has it, else over the demonstrations."""
    recorded = dataset.provenance.get("expert_level")
    if isinstance(recorded, dict) and set(recorded) == set(ReferenceScore._fields):
        return ReferenceScore(**recorded)
    return mean_score(dataset.trajectories)


def random_score(
    task: str,
    episodes: int,
    seed: int = 0,
    *,
    vectorization: VectorizationMode = "sync",
    env_step_timeout: float = STEP_TIMEOUT,
    log: LogFn = warn,
) -> ReferenceScore:
    """Measure the score of actions drawn uniformly from [-1, 1].

    An episode that fails is replaced by another one. Simulators in JAX run all episodes at once, on the device.

    Args:
        task: as in `registry.make`.
        episodes: number of episodes.
        seed: seed of episodes and actions.
        vectorization: as in `RestartingEnv`.
        env_step_timeout: as in `RestartingEnv`.
        log: as in `RestartingEnv`.

    Raises:
        SimulatorError: too many consecutive episodes failed.
    """
    task = without_images(task)
    if jax_env(task) is not None:
        return _random_score_on_device(task, episodes, seed, log)
    seeds = (episode_seed(seed, "random", 0, index) for index in count())
    with RestartingEnv(task, vectorization=vectorization, env_step_timeout=env_step_timeout, log=log) as env:
        return mean_score(list(islice(env.episodes(seeds, _uniform_policy), episodes)))


def _uniform_policy(env: Env, seed: int) -> Policy:
    generator, size = np.random.default_rng(seed), env.spec.action_dim
    return lambda _obs, _success: generator.uniform(-1.0, 1.0, size).astype(np.float32)


def _random_score_on_device(task: str, episodes: int, seed: int, log: LogFn) -> ReferenceScore:
    with make_vector_env(task, (seed,), episodes, "random", log=log) as envs:
        result = evaluate(RandomPolicy(envs), None, envs, seed_keys((seed,), EVALUATE), episodes)
    return ReferenceScore(*(float(getattr(result, name)[0]) for name in ReferenceScore._fields))


class RandomPolicy:
    """`train.evaluate.Actor` with uniform actions."""

    def __init__(self, envs: AnyVectorEnv):
        self._envs = envs

    def init_plan(self, num_seeds: int, num_envs: int) -> None:
        pass

    def act(
        self, _learner, _plan, _obs, _is_first, _keys, counter, _explore
    ) -> tuple[Float32[np.ndarray, "S E A"], None]:
        return random_actions(self._envs, int(counter)), None
