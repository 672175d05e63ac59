"""Episode seeds, on the host and on the device."""

import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdred.envs.seeding import STREAMS, check_args, episode_seed
from cdred.envs.seeding_jax import EpisodeKey, episode_seeds
from cdred.errors import UserError

index = st.integers(0, 10**6)


@given(seeds=st.tuples(index, index), envs=st.tuples(index, index), episodes=st.tuples(index, index))
def test_streams_never_share_an_episode(seeds, envs, episodes):
    train = episode_seed(seeds[0], "train", envs[0], episodes[0])
    others = {episode_seed(seeds[1], stream, envs[1], episodes[1]) for stream in STREAMS if stream != "train"}
    assert train not in others
    assert 0 <= train < 2**32
    # By construction, not by chance: a seed encodes its stream.
    assert {seed % len(STREAMS) for seed in others} == set(range(1, len(STREAMS)))
    assert train % len(STREAMS) == 0
    assert train == episode_seed(seeds[0], "train", envs[0], episodes[0])


@given(
    seed=st.integers(0, 2**32 - 1),
    stream=st.sampled_from(STREAMS),
    env=st.integers(0, 10**6),
    episode=st.integers(0, 2**31 - 1),
)
def test_device_seed_equals_host_seed(seed, stream, env, episode):
    words = [jnp.full((1, 1), word, jnp.uint32) for word in (seed, STREAMS.index(stream), env, episode)]
    assert int(episode_seeds(EpisodeKey(*words[:3]), words[3])[0, 0]) == episode_seed(seed, stream, env, episode)


@pytest.mark.parametrize("seeds", [[], [-1]])
def test_missing_or_negative_seeds_are_rejected(seeds):
    with pytest.raises(UserError, match="seeds must be one or more integers >= 0"):
        check_args(seeds, 1, "train")


@pytest.mark.parametrize(("num_envs", "stream"), [(0, "train"), (1, "test")])
def test_invalid_size_or_stream_is_rejected(num_envs, stream):
    with pytest.raises(ValueError, match=r"num_envs >= 1 and a stream of .*'random'"):
        check_args([0], num_envs, stream)
