"""Replay against a plain Python account of what was lived through."""

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
LANES, CAPACITY, BLOCK, TAIL = 2, 16, 4, 3

add = jax.jit(ReplayBuffer.add)
index = jax.jit(ReplayBuffer.index, static_argnums=1)
sample = jax.jit(ReplayBuffer.sample, static_argnums=(3, 4))


def observation(lane, episode, time):
    return np.array([lane, episode, time], np.float32)


def done_action(lane, episode, time):
    return np.array([lane + 0.5, 100 * episode + time], np.float32)


def reward(lane, episode, time):
    return np.float32(1 + lane + episode / 10 + time / 100)


BROKEN = None
"""The end of an episode whose last step is void."""


class Lane:
    """What one environment lives through, in the order in which it is written: (episode, time, absorbing)."""

    def __init__(self, number, episodes):
        self.number, self.episodes = number, episodes
        self.episode, self.time = 0, 0
        self.rows = [(0, 0, False)]

    def step(self):
        length, can_terminate = self.episodes[self.episode % len(self.episodes)]
        here = self.episode, self.time
        ended = self.time + 1 == length
        if ended and can_terminate is BROKEN:
            return self.broken_step()
        self.rows.append((self.episode, self.time + 1, ended and can_terminate))
        if ended:
            self.rows += [(self.episode, self.time + 2 + i, True) for i in range(TAIL)] if can_terminate else []
            self.episode, self.time = self.episode + 1, 0
            self.rows.append((self.episode, 0, False))
        else:
            self.time += 1
        return (
            observation(self.number, *here),
            done_action(self.number, *here),
            reward(self.number, *here),
            observation(self.number, here[0], here[1] + 1),
            ended and can_terminate,
            ended,
            False,
        )

    def broken_step(self):
        """Nothing of it is to be found again, neither what is no number nor its flags."""
        if self.time == 0:
            self.rows.pop()
        here = observation(self.number, self.episode, self.time)
        self.episode, self.time = self.episode + 1, 0
        self.rows.append((self.episode, 0, False))
        nothing = np.full(3, np.nan, np.float32)
        return here, nothing[:2], nothing[0], nothing, True, True, True

    def segments(self, horizon):
        """(lane, episode, time) -> absorbing flags, of every segment stored: the row of a running episode counts."""
        kept = self.rows[-CAPACITY:]
        if self.time == 0:
            kept = kept[:-1]
        windows = (kept[i : i + horizon + 1] for i in range(len(kept) - horizon))
        return {
            (self.number, *window[0][:2]): [row[2] for row in window]
            for window in windows
            if window[0][0] == window[-1][0]
        }


def live(lanes, blocks):
    replay = ReplayBuffer.init(SPEC, len(lanes), CAPACITY, TAIL)
    for _ in range(blocks):
        steps = [[lane.step() for lane in lanes] for _ in range(BLOCK)]
        fields = (np.array(x) for x in zip(*(zip(*s, strict=True) for s in steps), strict=True))
        replay = add(replay, Transition(*map(jnp.asarray, fields)))
    return replay


ends = st.sampled_from([False, True, BROKEN])
episodes = st.lists(st.tuples(st.integers(1, 15), ends), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(st.tuples(episodes, episodes), st.integers(0, 9), st.sampled_from([1, 3]))
def test_segments_are_exactly_the_stored_pieces_of_real_episodes(streams, blocks, horizon):
    lanes = [Lane(i, stream) for i, stream in enumerate(streams)]
    replay = live(lanes, blocks)
    expected = {start: flags for lane in lanes for start, flags in lane.segments(horizon).items()}
    counts = np.asarray(index(replay, horizon))
    assert counts[-1] == len(expected)
    assert set(np.diff(counts, prepend=0)) <= {0, 1}
    assert all(np.isfinite(x).all() for x in (replay.obs, replay.action, replay.reward))
    if not expected:
        return
    # Where a segment starts is told by its reward: unlike an observation, it is kept in absorbing rows too, as 0.
    batch = jax.tree.map(np.asarray, sample(replay, jnp.asarray(counts), jax.random.key(0), 512, horizon))
    alive = ~batch.absorbing[:, 0]
    starts = [tuple(int(x) for x in obs) for obs in batch.obs[alive, 0]]
    assert set(starts) == {start for start, flags in expected.items() if not flags[0]}
    assert batch.absorbing[~alive].all()
    assert (~alive).any() == any(flags[0] for flags in expected.values())
    for start, *row in zip(starts, *(x[alive] for x in batch), strict=True):
        check_segment(start, Segment(*row), expected[start], horizon)


def check_segment(start, segment, flags, horizon):
    lane, episode, time = start
    assert segment.absorbing.tolist() == flags
    lived = [h for h in range(horizon) if not flags[h]]
    seen = [h for h in range(horizon + 1) if not flags[h]]
    np.testing.assert_array_equal(segment.obs[seen], [observation(lane, episode, time + h) for h in seen])
    np.testing.assert_array_equal(segment.action[lived], [done_action(lane, episode, time + h) for h in lived])
    expected = [0.0 if flags[h] else reward(lane, episode, time + h) for h in range(horizon)]
    np.testing.assert_array_equal(segment.reward, np.array(expected, np.float32))


def test_the_true_final_observation_of_a_truncated_episode_is_kept():
    replay = live([Lane(0, [(4, False), (50, False)])], 1)
    batch = sample(replay, index(replay, 3), jax.random.key(0), 64, 3)
    assert (batch.obs[:, -1, 2] == 4).any()
    assert not batch.absorbing.any()


def test_a_broken_episode_is_kept_up_to_its_last_good_decision_and_costs_no_row():
    # Three good steps and their final observation; then an episode that broke at once; then the next.
    replay = live([Lane(0, [(4, BROKEN), (1, BROKEN), (50, False)])], 2)
    assert replay.time[0, :8].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert [int(replay.num_segments(h)) for h in (1, 3, 4)] == [6, 2, 0]


def test_an_ended_world_is_left_by_no_action_and_gives_nothing():
    replay = live([Lane(0, [(4, True), (50, False)])], 1)
    batch = sample(replay, index(replay, TAIL), jax.random.key(0), 256, TAIL)
    flags = {tuple(row.tolist()) for row in np.asarray(batch.absorbing)}
    assert flags == {(False,) * k + (True,) * (4 - k) for k in range(5)}
    idle = np.asarray(batch.action)[np.asarray(batch.absorbing[:, :-1])]
    assert not np.asarray(batch.reward)[np.asarray(batch.absorbing[:, :-1])].any()
    assert stats.kstest(idle.ravel(), stats.uniform(-1, 2).cdf).pvalue > 1e-3


def test_a_world_that_cannot_end_has_no_absorbing_rows():
    replay = ReplayBuffer.init(EnvSpec("probe/fake", (3,), 2, 100), 1, CAPACITY, TAIL)
    assert replay.tail == 0


def test_every_segment_is_drawn_equally_often():
    lanes = [Lane(0, [(7, False), (3, False)]), Lane(1, [(4, False)])]
    replay = live(lanes, 8)
    segments = [start for lane in lanes for start in lane.segments(1)]
    batch = sample(replay, index(replay, 1), jax.random.key(0), 20_000, 1)
    drawn, counts = np.unique(np.asarray(batch.obs[:, 0]), axis=0, return_counts=True)
    assert len(drawn) == len(segments) > 12
    assert stats.chisquare(counts).pvalue > 1e-3


def test_an_empty_store_has_no_segments():
    assert int(ReplayBuffer.init(SPEC, LANES, CAPACITY, TAIL).num_segments(1)) == 0


def test_a_segment_is_not_longer_than_what_was_lived():
    replay = live([Lane(0, [(50, False)])], 1)
    assert [int(replay.num_segments(h)) for h in (1, 3, 4, 5)] == [4, 2, 1, 0]


@pytest.fixture
def trajectories():
    def build(episode, steps, terminated):
        return Trajectory(
            obs=np.array([observation(0, episode, t) for t in range(steps + 1)]),
            action=np.array([done_action(0, episode, t) for t in range(steps)]),
            reward=np.array([reward(0, episode, t) for t in range(steps)]),
            terminated=terminated,
            truncated=not terminated,
        )

    return [build(0, 5, True), build(1, 2, False), build(2, 7, False)]


def test_a_store_of_trajectories_is_what_adding_them_gives(trajectories):
    loaded = from_trajectories(trajectories, SPEC, TAIL)
    added = ReplayBuffer.init(SPEC, 1, loaded.time.shape[1], TAIL)
    for one in trajectories:
        last = np.arange(len(one)) == len(one) - 1
        block = (one.obs[:-1], one.action, one.reward, one.obs[1:], last & one.terminated, last, last & False)
        added = added.add(Transition(*(jnp.asarray(x)[:, None] for x in block)))
    for name, value in vars(loaded).items():
        np.testing.assert_array_equal(value, getattr(added, name), err_msg=name)
    assert jax.tree.map(lambda x: x.dtype, loaded) == jax.tree.map(lambda x: x.dtype, added)
    assert int(loaded.num_segments(3)) == (5 + 1) + 0 + 5
    assert int(loaded.num_segments(1)) == (5 + 3) + 2 + 7


def test_moments_are_those_of_the_observations_that_were_seen(trajectories):
    mean, variance = from_trajectories(trajectories, SPEC, TAIL).obs_stats()
    # The final observation of an ended world is not learned from.
    seen = np.concatenate([one.obs[: len(one) + (not one.terminated)] for one in trajectories])
    np.testing.assert_allclose(mean, seen.mean(0), rtol=1e-6)
    np.testing.assert_allclose(variance, seen.var(0), rtol=1e-5)


@pytest.mark.parametrize("shape", [(3,), (8, 8, 9)])
def test_memory_is_told_to_the_byte(shape):
    spec = EnvSpec("probe/fake", shape, 2, 100)
    actual = sum(leaf.nbytes for leaf in jax.tree.leaves(ReplayBuffer.init(spec, 2, 50, 3)))
    assert replay_bytes(spec, 2, 50) == actual > 2 * 50 * 4 * np.prod(shape)


def test_seeds_at_once_are_seeds_one_by_one():
    alone = [live([Lane(0, [(length, True)])], 5) for length in (3, 9)]
    keys = jax.random.split(jax.random.key(0), 2)
    together = jax.tree.map(lambda *x: jnp.stack(x), *alone)
    block = Transition(
        jnp.ones((4, 1, 3)), jnp.ones((4, 1, 2)), jnp.ones((4, 1)), jnp.ones((4, 1, 3)), *jnp.zeros((3, 4, 1), bool)
    )
    together = jax.vmap(partial(ReplayBuffer.add, block=block))(together)
    drawn = jax.vmap(lambda r, k: r.sample(r.index(3), k, 16, 3))(together, keys)
    for i, one in enumerate(alone):
        expected = one.add(block)
        segments = expected.sample(expected.index(3), keys[i], 16, 3)
        same = jax.tree.map(lambda x, y, i=i: jnp.array_equal(x[i], y), (together, drawn), (expected, segments))
        assert jax.tree.all(same)


def test_the_newest_segments_are_the_last_that_were_lived_through():
    """Two lanes of 7 steps in a ring of 6 + 2 rows: the oldest rows are overwritten."""
    spec, horizon = EnvSpec("probe/fake", (1,), 1, 100), 2
    time = np.arange(8, dtype=np.float32)[:, None, None] + np.array([0.0, 100.0], np.float32)[None, :, None]
    no = np.zeros((7, 2), bool)
    block = Transition(time[:-1], time[:-1] / 1000, time[:-1, :, 0], time[1:], no, no, no)
    store = add(ReplayBuffer.init(spec, 2, 8, horizon), block)
    segments, there = jax.jit(ReplayBuffer.newest, static_argnums=(1, 2))(store, 3, horizon)
    assert there.tolist() == [True] * 6
    assert segments.obs[:, :, 0].tolist() == [
        [lane + start + i for i in range(3)] for lane in (0, 100) for start in (5, 4, 3)
    ]
    np.testing.assert_allclose(segments.action[:, :, 0], segments.obs[:, :-1, 0] / 1000)
    _, there = ReplayBuffer.newest(store, 8, horizon)
    assert there.reshape(2, 8).sum(axis=1).tolist() == [int(store.num_segments(horizon)) // 2] * 2
