"""Replay of recorded actions from recorded seeds, to see if an environment reproduces demonstrations."""

from collections.abc import Iterator
from math import prod
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from cdred.demos.episodes import stack_obs
from cdred.envs.base import Env
from cdred.envs.failures import SimulatorError, format_exception
from cdred.errors import UserError
from cdred.types import DemoDataset, Trajectory

NUM_SEEDS = 2**32


class Replay(NamedTuple):
    """Comparison of an episode with its replay, up to the earlier end of the two.

    Attributes:
        episode: index of the episode.
        seed: its seed.
        max_difference: largest absolute difference of a component of an observation, or mean difference of an image.
        first_step: steps before the first observation that differs by more than the tolerance; None if none does.
        recorded_return: sum of the recorded rewards; None if none are recorded.
        replayed_return: sum of the environment's rewards.
        end: how the ends differ; empty if they do not.
        agrees: observations, returns (relative to the sum of the rewards' magnitudes) and ends agree.
    """

    episode: int
    seed: int
    max_difference: float
    first_step: int | None
    recorded_return: float | None
    replayed_return: float
    end: str
    agrees: bool


def replay_demos(dataset: DemoDataset, source: str, env: Env, tolerance: float) -> Iterator[Replay]:
    """Replay the episodes that have a seed.

    Args:
        dataset: demonstrations that are valid for the task of `env`, with actions in [-1, 1].
        source: its path, for messages.
        env: environment to replay them in.
        tolerance: largest difference that counts as agreement.

    Raises:
        UserError: no episode has a seed.
        SimulatorError: the simulator failed.
    """
    if not any(has_seed(trajectory) for trajectory in dataset):
        raise UserError(
            f"{source}: nothing can be checked, because no episode has a seed, from which {env.spec.task} would start "
            "it. Recordings by cdred have seeds."
        )
    for index, trajectory in enumerate(dataset):
        if has_seed(trajectory):
            yield compare(index, trajectory, replay(env, trajectory), tolerance)


def has_seed(trajectory: Trajectory) -> bool:
    """Return True if the episode has a seed that `Env.reset` accepts."""
    return trajectory.seed is not None and 0 <= trajectory.seed < NUM_SEEDS


def replay(env: Env, trajectory: Trajectory) -> Trajectory:
    """Take the recorded actions from the recorded seed, until the episode ends.

    Raises:
        SimulatorError: the simulator failed.
    """
    assert trajectory.seed is not None
    try:
        obs, steps = [env.reset(trajectory.seed)], []
        for action in trajectory.action:
            steps.append(env.step(action))
            obs.append(steps[-1].obs)
            if steps[-1].terminated or steps[-1].truncated:
                break
    except UserError:
        raise
    except Exception as error:
        raise SimulatorError(f"{env.spec.task}, seed {trajectory.seed}: {format_exception(error)}.") from error
    states, image = stack_obs(obs)
    return Trajectory(
        obs=states,
        image=image,
        action=trajectory.action[: len(steps)],
        reward=np.array([step.reward for step in steps], np.float32),
        terminated=steps[-1].terminated,
        truncated=steps[-1].truncated,
    )


def compare(index: int, recorded: Trajectory, replayed: Trajectory, tolerance: float) -> Replay:
    """Compare episode `index` with its replay; `tolerance` is the largest difference that counts as agreement."""
    assert recorded.seed is not None
    assert replayed.episode_return is not None
    steps = len(replayed)
    differences = _differences(recorded, replayed)
    beyond = np.flatnonzero(differences > tolerance)
    recorded_return, returns_agree = _compare_returns(recorded, replayed.episode_return, steps, tolerance)
    end = _compare_ends(recorded, replayed)
    return Replay(
        episode=index,
        seed=recorded.seed,
        max_difference=float(differences.max()),
        first_step=int(beyond[0]) if len(beyond) else None,
        recorded_return=recorded_return,
        replayed_return=replayed.episode_return,
        end=end,
        agrees=not len(beyond) and returns_agree and not end,
    )


def _differences(recorded: Trajectory, replayed: Trajectory) -> Float64[np.ndarray, " T+1"]:
    """Return the largest difference of a component of each observation; without a vector, that of the images.

    It is the mean over an image, 1 for black and white, because graphics libraries round in different ways.
    """
    num = len(replayed) + 1
    if recorded.obs.size or recorded.image is None or replayed.image is None:
        difference = np.abs(recorded.obs[:num].astype(np.float64) - replayed.obs)
        return difference.reshape(num, prod(difference.shape[1:])).max(axis=1, initial=0.0)
    return np.abs(recorded.image[:num].astype(np.float64) - replayed.image).mean(axis=(1, 2, 3)) / 255


def _compare_returns(
    recorded: Trajectory, replayed_return: float, steps: int, tolerance: float
) -> tuple[float | None, bool]:
    """Return the recorded return of the first `steps` steps, and if it agrees with that of the replay or is unknown."""
    if recorded.reward is None:
        return None, True
    rewards = recorded.reward[:steps].astype(np.float64)
    difference = abs(float(rewards.sum()) - replayed_return)
    return float(rewards.sum()), difference <= tolerance * max(1.0, float(np.abs(rewards).sum()))


def _compare_ends(recorded: Trajectory, replayed: Trajectory) -> str:
    """Describe how the ends differ. A recording may have been stopped early, but not after the episode's end."""
    if len(replayed) < len(recorded):
        return f"ends after {len(replayed)} of {len(recorded)} steps"
    if recorded.terminated != replayed.terminated:
        return f"terminated in the {'recording' if recorded.terminated else 'replay'} only"
    return ""
