"""Replay buffer compared with a plain Python model of the rows that each environment writes."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cdred.data.replay_buffer import ReplayBuffer, Transition, from_trajectories, replay_bytes
from cdred.types import EnvSpec, Segment, Trajectory

SPEC = EnvSpec("probe/fake", (3,), 2, 100, can_terminate=True)
ENVS, CAPACITY, BLOCK, NUM_ABSORBING = 2, 16, 4, 3

add = jax.jit(ReplayBuffer.add)
index = jax.jit(ReplayBuffer.index, static_argnums=1)
sample = jax.jit(ReplayBuffer.sample, static_argnums=(3, 4))


def observation(env, episode, step):
    return np.array([env, episode, step], np.float32)


def action_at(env, episode, step):
    return np.array([env + 0.5, 100 * episode + step], np.float32)


def reward_at(env, episode, step):
    return np.float32(1 + env + episode / 10 + step / 100)


FAILS = None
"""Ending of an episode with an invalid last step, besides True for termination and False for truncation."""


class FakeEnv:
    """Environment with scripted episodes that records the rows it should write: (episode, step, absorbing).

    Args:
        number: index of the environment.
        episodes: pairs (length, how it ends), repeated for ever.
    """

    def __init__(self, number, episodes):
        self.number, self.episodes = number, episodes
        self.episode, self.time = 0, 0
        self.rows = [(0, 0, False)]

    def step(self):
        length, terminates = self.episodes[self.episode % len(self.episodes)]
        now = self.episode, self.time
        done = self.time + 1 == length
        if done and terminates is FAILS:
            return self.failed_step()
        self.rows.append((self.episode, self.time + 1, done and terminates))
        if done:
            extra = [(self.episode, self.time + 2 + i, True) for i in range(NUM_ABSORBING)]
            self.rows += extra if terminates else []
            self.begin_episode()
        else:
            self.time += 1
        return (
            observation(self.number, *now),
            action_at(self.number, *now),
            reward_at(self.number, *now),
            observation(self.number, now[0], now[1] + 1),
            done and terminates,
            done,
            False,
        )

    def begin_episode(self):
        self.episode, self.time = self.episode + 1, 0
        self.rows.append((self.episode, 0, False))

    def failed_step(self):
        """Return an invalid step of NaN with all flags set, none of which may be stored."""
        if self.time == 0:
            self.rows.pop()
        obs = observation(self.number, self.episode, self.time)
        self.begin_episode()
        nan = np.full(3, np.nan, np.float32)
        return obs, nan[:2], nan[0], nan, True, True, True

    def segments(self, horizon):
        """Return the absorbing flags of every stored segment, by (env, episode, step) of its start."""
        stored = self.rows[-CAPACITY:]
        if self.time == 0:
            stored = stored[:-1]
        windows = (stored[i : i + horizon + 1] for i in range(len(stored) - horizon))
        return {
            (self.number, *window[0][:2]): [row[2] for row in window]
            for window in windows
            if window[0][0] == window[-1][0]
        }


def collect(envs, blocks):
    """Return a replay buffer filled with `blocks` blocks of `BLOCK` steps of every environment."""
    replay = ReplayBuffer.init(SPEC, len(envs), CAPACITY, NUM_ABSORBING)
    for _ in range(blocks):
        steps = [[env.step() for env in envs] for _ in range(BLOCK)]
        fields = (np.array(x) for x in zip(*(zip(*s, strict=True) for s in steps), strict=True))
        replay = add(replay, Transition(*map(jnp.asarray, fields)))
    return replay


endings = st.sampled_from([False, True, FAILS])
episodes = st.lists(st.tuples(st.integers(1, 15), endings), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(st.tuples(episodes, episodes), st.integers(0, 9), st.sampled_from([1, 3]))
def test_segments_are_exactly_the_stored_windows(scripts, blocks, horizon):
    envs = [FakeEnv(i, script) for i, script in enumerate(scripts)]
    replay = collect(envs, blocks)
    expected = {start: flags for env in envs for start, flags in env.segments(horizon).items()}
    counts = np.asarray(index(replay, horizon))
    assert counts[-1] == len(expected)
    assert set(np.diff(counts, prepend=0)) <= {0, 1}
    assert all(np.isfinite(x).all() for x in (replay.obs, replay.action, replay.reward))
    if not expected:
        return
    # Only starts outside absorbing states can be identified, because absorbing rows keep no observation.
    batch = jax.tree.map(np.asarray, sample(replay, jnp.asarray(counts), jax.random.key(0), 512, horizon))
    alive = ~batch.absorbing[:, 0]
    starts = [tuple(int(x) for x in obs) for obs in batch.obs[alive, 0]]
    assert set(starts) == {start for start, flags in expected.items() if not flags[0]}
    assert batch.absorbing[~alive].all()
    assert (~alive).any() == any(flags[0] for flags in expected.values())
    for start, *row in zip(starts, *(x[alive] for x in batch), strict=True):
        check_segment(start, Segment(*row), expected[start], horizon)


def check_segment(start, segment, flags, horizon):
    env, episode, step = start
    assert segment.absorbing.tolist() == flags
    with_action = [h for h in range(horizon) if not flags[h]]
    with_obs = [h for h in range(horizon + 1) if not flags[h]]
    np.testing.assert_array_equal(segment.obs[with_obs], [observation(env, episode, step + h) for h in with_obs])
    np.testing.assert_array_equal(segment.action[with_action], [action_at(env, episode, step + h) for h in with_action])
    expected = [0.0 if flags[h] else reward_at(env, episode, step + h) for h in range(horizon)]
    np.testing.assert_array_equal(segment.reward, np.array(expected, np.float32))


def test_true_final_observation_of_truncated_episode_is_kept():
    replay = collect([FakeEnv(0, [(4, False), (50, False)])], 1)
    batch = sample(replay, index(replay, 3), jax.random.key(0), 64, 3)
    assert (batch.obs[:, -1, 2] == 4).any()
    assert not batch.absorbing.any()


def test_failed_episode_is_kept_up_to_its_last_valid_step():
    # Three valid steps and their final observation; then an episode that failed at once; then the next.
    replay = collect([FakeEnv(0, [(4, FAILS), (1, FAILS), (50, False)])], 2)
    assert replay.episode_step[0, :8].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert [int(replay.num_segments(h)) for h in (1, 3, 4)] == [6, 2, 0]


def test_absorbing_states_have_random_actions_and_no_reward():
    replay = collect([FakeEnv(0, [(4, True), (50, False)])], 1)
    batch = sample(replay, index(replay, NUM_ABSORBING), jax.random.key(0), 256, NUM_ABSORBING)
    flags = {tuple(row.tolist()) for row in np.asarray(batch.absorbing)}
    assert flags == {(False,) * k + (True,) * (4 - k) for k in range(5)}
    random_actions = np.asarray(batch.action)[np.asarray(batch.absorbing[:, :-1])]
    assert not np.asarray(batch.reward)[np.asarray(batch.absorbing[:, :-1])].any()
    assert stats.kstest(random_actions.ravel(), stats.uniform(-1, 2).cdf).pvalue > 1e-3


def test_task_without_termination_has_no_absorbing_rows():
    replay = ReplayBuffer.init(EnvSpec("probe/fake", (3,), 2, 100), 1, CAPACITY, NUM_ABSORBING)
    assert replay.num_absorbing == 0


def test_segments_are_sampled_uniformly():
    envs = [FakeEnv(0, [(7, False), (3, False)]), FakeEnv(1, [(4, False)])]
    replay = collect(envs, 8)
    segments = [start for env in envs for start in env.segments(1)]
    batch = sample(replay, index(replay, 1), jax.random.key(0), 20_000, 1)
    starts, counts = np.unique(np.asarray(batch.obs[:, 0]), axis=0, return_counts=True)
    assert len(starts) == len(segments) > 12
    assert stats.chisquare(counts).pvalue > 1e-3


def test_empty_buffer_has_no_segments():
    assert int(ReplayBuffer.init(SPEC, ENVS, CAPACITY, NUM_ABSORBING).num_segments(1)) == 0


def test_segment_is_not_longer_than_the_episode():
    replay = collect([FakeEnv(0, [(50, False)])], 1)
    assert [int(replay.num_segments(h)) for h in (1, 3, 4, 5)] == [4, 2, 1, 0]


@pytest.fixture
def trajectories():
    def build(episode, steps, terminated):
        return Trajectory(
            obs=np.array([observation(0, episode, t) for t in range(steps + 1)]),
            action=np.array([action_at(0, episode, t) for t in range(steps)]),
            reward=np.array([reward_at(0, episode, t) for t in range(steps)]),
            terminated=terminated,
            truncated=not terminated,
        )

    return [build(0, 5, True), build(1, 2, False), build(2, 7, False)]


def test_unknown_rewards_are_not_zero(trajectories):
    unknown = replace(trajectories[1], reward=None)
    replay = from_trajectories([trajectories[0], unknown], SPEC, NUM_ABSORBING)
    first, *_ = np.flatnonzero(np.isnan(np.asarray(replay.reward[0])))
    assert np.isnan(np.asarray(replay.reward[0])).sum() == len(unknown)
    assert first == len(trajectories[0]) + 1 + NUM_ABSORBING


def test_from_trajectories_equals_adding_their_steps(trajectories):
    loaded = from_trajectories(trajectories, SPEC, NUM_ABSORBING)
    added = ReplayBuffer.init(SPEC, 1, loaded.episode_step.shape[1], NUM_ABSORBING)
    for trajectory in trajectories:
        is_last = np.arange(len(trajectory)) == len(trajectory) - 1
        obs, action, reward = trajectory.obs, trajectory.action, trajectory.reward
        block = (obs[:-1], action, reward, obs[1:], is_last & trajectory.terminated, is_last, is_last & False)
        added = added.add(Transition(*(jnp.asarray(x)[:, None] for x in block)))
    for name, value in vars(loaded).items():
        np.testing.assert_array_equal(value, getattr(added, name), err_msg=name)
    assert jax.tree.map(lambda x: x.dtype, loaded) == jax.tree.map(lambda x: x.dtype, added)
    assert int(loaded.num_segments(3)) == (5 + 1) + 0 + 5
    assert int(loaded.num_segments(1)) == (5 + 3) + 2 + 7


def test_obs_stats_exclude_terminal_observations(trajectories):
    mean, variance = from_trajectories(trajectories, SPEC, NUM_ABSORBING).obs_stats()
    obs = np.concatenate(
        [trajectory.obs[: len(trajectory) + (not trajectory.terminated)] for trajectory in trajectories]
    )
    np.testing.assert_allclose(mean, obs.mean(0), rtol=1e-6)
    np.testing.assert_allclose(variance, obs.var(0), rtol=1e-5)


@pytest.mark.parametrize("shape", [(3,), (8, 8, 9)])
def test_replay_bytes_is_exact(shape):
    spec = EnvSpec("probe/fake", shape, 2, 100)
    actual = sum(leaf.nbytes for leaf in jax.tree.leaves(ReplayBuffer.init(spec, 2, 50, 3)))
    assert replay_bytes(spec, 2, 50) == actual > 2 * 50 * 4 * np.prod(shape)


def test_vmapped_seeds_equal_single_seeds():
    singles = [collect([FakeEnv(0, [(length, True)])], 5) for length in (3, 9)]
    keys = jax.random.split(jax.random.key(0), 2)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *singles)
    block = Transition(
        jnp.ones((4, 1, 3)), jnp.ones((4, 1, 2)), jnp.ones((4, 1)), jnp.ones((4, 1, 3)), *jnp.zeros((3, 4, 1), bool)
    )
    stacked = jax.vmap(partial(ReplayBuffer.add, block=block))(stacked)
    sampled = jax.vmap(lambda r, k: r.sample(r.index(3), k, 16, 3))(stacked, keys)
    for i, single in enumerate(singles):
        expected = single.add(block)
        segments = expected.sample(expected.index(3), keys[i], 16, 3)
        equal = jax.tree.map(lambda x, y, i=i: jnp.array_equal(x[i], y), (stacked, sampled), (expected, segments))
        assert jax.tree.all(equal)


def test_most_recent_returns_the_last_segments():
    """Two environments of 7 steps in a ring of 6 + 2 rows: the oldest rows are overwritten."""
    spec, horizon = EnvSpec("probe/fake", (1,), 1, 100), 2
    obs = np.arange(8, dtype=np.float32)[:, None, None] + np.array([0.0, 100.0], np.float32)[None, :, None]
    false = np.zeros((7, 2), bool)
    block = Transition(obs[:-1], obs[:-1] / 1000, obs[:-1, :, 0], obs[1:], false, false, false)
    replay = add(ReplayBuffer.init(spec, 2, 8, horizon), block)
    segments, valid = jax.jit(ReplayBuffer.most_recent, static_argnums=(1, 2))(replay, 3, horizon)
    assert valid.tolist() == [True] * 6
    assert segments.obs[:, :, 0].tolist() == [
        [env + start + i for i in range(3)] for env in (0, 100) for start in (5, 4, 3)
    ]
    np.testing.assert_allclose(segments.action[:, :, 0], segments.obs[:, :-1, 0] / 1000)
    _, valid = ReplayBuffer.most_recent(replay, 8, horizon)
    assert valid.reshape(2, 8).sum(axis=1).tolist() == [int(replay.num_segments(horizon)) // 2] * 2


def ring_of_episodes(lengths, capacity, terminated=False, success=()):
    """Add episodes of one environment, each of which has a success at its second step if it is among `success`."""
    spec = EnvSpec("probe/fake", (1,), 1, 100, can_terminate=terminated)
    replay, rows = ReplayBuffer.init(spec, 1, capacity, 2), []
    for number, length in enumerate(lengths):
        for step in range(length):
            done = step == length - 1
            rows.append((number, step, done, number in success and step == 1))
    number, step, done, succeeded = (np.array(x)[:, None] for x in zip(*rows, strict=True))
    obs = (100.0 * number + step).astype(np.float32)
    block = Transition(
        obs[..., None], obs[..., None], obs, obs[..., None] + 1, done & terminated, done, np.zeros_like(done), succeeded
    )
    return jax.jit(ReplayBuffer.add)(replay, jax.tree.map(jnp.asarray, block))


def final_obs(replay, mask):
    return sorted(float(x) for x in replay.obs[0, np.asarray(mask)[0], 0])


def test_final_rows_are_those_of_ended_episodes():
    replay = ring_of_episodes([4, 3, 5], 40)
    assert final_obs(replay, replay.final_rows()) == [4.0, 103.0, 205.0]


def test_final_row_of_a_terminated_episode_is_its_last_absorbing_row():
    replay = ring_of_episodes([4, 3], 40, terminated=True)
    rows = np.flatnonzero(replay.final_rows()[0])
    assert replay.absorbing[0, rows].all()
    assert replay.episode_step[0, rows].tolist() == [4 + 2, 3 + 2]


@pytest.mark.parametrize("capacity", [40, 17])
def test_success_belongs_to_its_episode(capacity):
    replay = ring_of_episodes([4, 3, 5, 6], capacity, success={0, 2})
    assert final_obs(replay, replay.episode_success()) == ([4.0, 205.0] if capacity == 40 else [205.0])


@pytest.mark.parametrize("capacity", [40, 17])
def test_segments_of_selected_episodes_only(capacity):
    replay = ring_of_episodes([4, 3, 5, 6], capacity)
    assert int(replay.selected_index(2)[-1]) == 0
    ends = [[4.0, 205.0] if capacity == 40 else [205.0]]
    mask = replay.final_rows() & jnp.isin(replay.obs[..., 0], jnp.array(ends[0]))
    rows = jnp.arange(capacity)[None]
    replay = replay.select(rows, mask)
    counts = replay.selected_index(2)
    assert int(counts[-1]) == (3 + 4 if capacity == 40 else 4)
    batch = sample(replay, counts, jax.random.key(0), 128, 2)
    assert set(np.unique(batch.obs // 100)) == ({0.0, 2.0} if capacity == 40 else {2.0})


def test_overwritten_episode_is_no_longer_selected():
    replay = ring_of_episodes([4, 3], 12)
    replay = replay.select(jnp.arange(12)[None], replay.final_rows())
    assert replay.selected.any()
    for value in range(13):
        arrays = ([[[value]]], [[[0]]], [[0]], [[[value + 1]]], [[False]], [[False]], [[False]])
        block = (jnp.asarray(x, jnp.float32 if i < 4 else bool) for i, x in enumerate(arrays))
        replay = replay.add(Transition(*block))
    assert not replay.selected.any()


def test_recent_rows_end_with_the_newest():
    replay = ring_of_episodes([4, 3], 40)
    index = int(replay.insert_index[0])
    assert replay.recent_rows(5)[0].tolist() == list(range(index - 5, index))
    assert sorted(replay.recent_rows(99)[0].tolist()) == list(range(40))
