"""Seeds of episodes: a pure function of run seed, stream, environment and episode number."""

from collections.abc import Sequence

import numpy as np

from cdred.errors import UserError

# The lowest two bits of an episode seed are the index of its stream, so different streams never share an episode.
STREAMS = ("train", "eval", "demos", "random")


def episode_seed(seed: int, stream: str, env: int, episode: int) -> int:
    """Compute the seed of an episode, 0 <= . < 2**32.

    It depends on the arguments only, so the episodes of a run are independent of the other seeds it is vmapped with.

    Args:
        seed: seed of the run.
        stream: one of `STREAMS`.
        env: index of the environment within the run.
        episode: number of the episode within the environment, from 0.
    """
    word = int(np.random.SeedSequence([seed, STREAMS.index(stream), env, episode]).generate_state(1)[0])
    return word // len(STREAMS) * len(STREAMS) + STREAMS.index(stream)


def check_args(seeds: Sequence[int], num_envs: int, stream: str) -> None:
    """Validate the arguments that identify the environments of a vector env.

    Raises:
        UserError: `seeds` is empty or has a negative seed.
        ValueError: `num_envs` is below 1, or `stream` is unknown.
    """
    if not seeds or min(seeds) < 0:
        raise UserError(f"seeds must be one or more integers >= 0, got {list(seeds)}.")
    if num_envs < 1 or stream not in STREAMS:
        raise ValueError(f"expected num_envs >= 1 and a stream of {STREAMS}, got {num_envs} and {stream!r}")
