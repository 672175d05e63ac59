"""Episodes in device memory, and segments of them that never cross an episode's end.

A store is a set of lanes, one per environment; a lane is a ring of rows. Row i holds an observation, the action taken
there and its place in the episode; an episode of T steps takes T + 1 rows, the last for its final observation.
So each observation is kept once, and a segment is valid exactly if its rows count upwards without a gap.

Where the world can end, the final row of an episode that it ended is absorbing, and `tail` more such rows follow: as
many as a segment needs to begin there.

All functions are pure and written for one seed; `jax.vmap` gives the seed axis.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Key

from cdred.types import EnvSpec, Segment, Trajectory

# `ReplayBuffer.time` of a row that holds nothing.
EMPTY_TIME = -1


class Transition(NamedTuple):
    """One step of every lane (leading axes `[time, E]` in a block).

    Attributes:
        obs: where the action was taken.
        action: what was done.
        reward: what the environment gave for it.
        next_obs: what came of it: the true final observation where the episode ended.
        terminated: whether the world ended.
        done: whether the episode ended, for whatever reason.
        void: whether the simulator broke, and the episode ended with the step before. Nothing of a void step
            is stored.
    """

    obs: Float[Array | np.ndarray, "..."]
    action: Float[Array | np.ndarray, "... A"]
    reward: Float[Array | np.ndarray, "..."]
    next_obs: Float[Array | np.ndarray, "..."]
    terminated: Bool[Array | np.ndarray, "..."]
    done: Bool[Array | np.ndarray, "..."]
    void: Bool[Array | np.ndarray, "..."]


class ReplayBuffer(eqx.Module):
    """Rows of E lanes of capacity L.

    `obs [E, L, *obs]`, `action [E, L, A]`, `reward [E, L]`, `absorbing [E, L]`, `time [E, L]`, `head [E]`.
    `time` is a row's place in its episode, -1 if the row holds nothing; `head` is where a lane writes next.
    """

    obs: Float32[Array, "..."]
    action: Float32[Array, "... A"]
    reward: Float32[Array, "..."]
    absorbing: Bool[Array, "..."]
    time: Int[Array, "..."]
    head: Int[Array, "..."]
    tail: int = eqx.field(static=True)

    @classmethod
    def init(cls, spec: EnvSpec, lanes: int, capacity: int, horizon: int) -> Self:
        """An empty store of `lanes` x `capacity` rows, for segments of up to `horizon` transitions."""
        return cls(
            obs=jnp.zeros((lanes, capacity, *spec.obs_shape), jnp.float32),
            action=jnp.zeros((lanes, capacity, spec.action_dim), jnp.float32),
            reward=jnp.zeros((lanes, capacity), jnp.float32),
            absorbing=jnp.zeros((lanes, capacity), bool),
            time=jnp.full((lanes, capacity), EMPTY_TIME, jnp.int32),
            head=jnp.zeros(lanes, jnp.int32),
            tail=horizon if spec.can_terminate else 0,
        )

    def add(self, block: Transition) -> "ReplayBuffer":
        """Append a block of steps `[time, E, ...]`; the oldest rows make way."""

        def step(replay, transition):
            return jax.vmap(_write)(replay, transition), None

        return jax.lax.scan(step, self, block)[0]

    @jax.named_scope("replay")
    def index(self, horizon: int) -> Int[Array, " rows"]:
        """Cumulative count of valid starts over all rows, from which `sample` draws. Costs one pass over the store."""
        return jnp.cumsum(jax.vmap(lambda lane: _valid_starts(lane, horizon))(self).reshape(-1).astype(jnp.int32))

    @jax.named_scope("replay")
    def sample(self, index: Int[Array, " rows"], key: Key[Array, ""], batch: int, horizon: int) -> Segment:
        """`batch` segments of `horizon` transitions, drawn uniformly with replacement from all valid starts.

        Actions in an absorbing state, where they do nothing, are drawn uniformly from [-1, 1], the expert's as the
        agent's: neither can be told by them. With no valid start at all the result is meaningless: ask `num_segments`
        first.
        """
        start_key, action_key = jax.random.split(key)
        ranks = jax.random.randint(start_key, (batch,), 0, jnp.maximum(index[-1], 1))
        lane, start = jnp.divmod(jnp.searchsorted(index, ranks, side="right"), self.time.shape[1])
        rows = (start[:, None] + jnp.arange(horizon + 1)[None]) % self.time.shape[1]
        lane, before = lane[:, None], rows[:, :-1]
        action, absorbing = self.action[lane, before], self.absorbing[lane, rows]
        if self.tail:
            idle = jax.random.uniform(action_key, action.shape, minval=-1.0)
            action = jnp.where(absorbing[:, :-1, None], idle, action)
        return Segment(self.obs[lane, rows], action, self.reward[lane, before], absorbing)

    def newest(self, num: int, horizon: int) -> tuple[Segment, Bool[Array, " N"]]:
        """The last `num` segments of every lane, N in all, and which of them there are (the others mean nothing)."""

        def of_lane(lane):
            capacity = lane.time.shape[0]
            age = (jnp.arange(capacity) - lane.head - 1) % capacity
            order, start = jax.lax.top_k(jnp.where(_valid_starts(lane, horizon), age, -1), min(num, capacity))
            rows = (start[:, None] + jnp.arange(horizon + 1)[None]) % capacity
            before = rows[:, :-1]
            return Segment(lane.obs[rows], lane.action[before], lane.reward[before], lane.absorbing[rows]), order >= 0

        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.vmap(of_lane)(self))

    def num_segments(self, horizon: int) -> Int[Array, ""]:
        """How many segments of `horizon` transitions there are."""
        return self.index(horizon)[-1]

    def obs_stats(self) -> tuple[Float[Array, " obs"], Float[Array, " obs"]]:
        """Mean and variance of every component of the stored observations, flattened."""
        rows = ((self.time >= 0) & ~self.absorbing).reshape(-1, 1)
        obs = self.obs.reshape(rows.shape[0], -1)
        num = jnp.maximum(jnp.sum(rows), 1).astype(jnp.float32)
        mean = jnp.sum(jnp.where(rows, obs, 0.0), axis=0) / num
        return mean, jnp.sum(jnp.where(rows, (obs - mean[None]) ** 2, 0.0), axis=0) / num


def from_trajectories(trajectories: Sequence[Trajectory], spec: EnvSpec, horizon: int) -> ReplayBuffer:
    """A full store of given episodes in one lane: the expert's."""
    rows = sum(len(one) + 1 + horizon * (spec.can_terminate and one.terminated) for one in trajectories)
    # As if it had been lived through: one row more, where the next episode would begin.
    empty = ReplayBuffer.init(spec, 1, rows + 1, horizon)
    replay = jax.tree.map(lambda x: np.array(x), empty)
    row = 0
    for trajectory in trajectories:
        steps = len(trajectory)
        end = row + steps + 1 + empty.tail * trajectory.terminated
        replay.obs[0, row : row + steps + 1] = trajectory.obs
        replay.action[0, row : row + steps] = trajectory.action
        replay.reward[0, row : row + steps] = trajectory.reward
        replay.absorbing[0, row + steps : end] = trajectory.terminated
        replay.time[0, row:end] = np.arange(end - row)
        row = end
    replay.head[0] = row
    return jax.tree.map(jnp.asarray, replay)


def replay_bytes(spec: EnvSpec, lanes: int, capacity: int) -> int:
    """Bytes of device memory that `ReplayBuffer.init` will take."""
    shapes = jax.eval_shape(lambda: ReplayBuffer.init(spec, lanes, capacity, 0))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def rows_written_since(
    before: Int[np.ndarray, "..."], after: Int[np.ndarray, "..."], steps: int, capacity: int, tail: int
) -> tuple[Int[np.ndarray, "..."], Int[np.ndarray, "..."]]:
    """Which rows of each lane `steps` of it may have changed, its head having been `before` and being `after`.

    Returns:
        The first row of each lane, and how many from there on, around the ring. Every row where the lane may have been
        written to all around: its head does not tell how often.
    """
    # Written from the old head to the new one, the new one included: it holds the next observation, or the -1 that
    # sets a new episode apart (`_write`).
    counts = (after - before) % capacity + 1
    return before, np.full_like(counts, capacity) if steps * (2 + tail) >= capacity else counts


def _write(lane: ReplayBuffer, transition: Transition) -> ReplayBuffer:
    """One step into one lane (all arrays without the lane axis).

    The next observation is always written one row on: the next step overwrites it with the same content, unless
    the episode ended, in which case it stays as the final row and the head moves past it and the absorbing rows. A void
    step leaves as the final row what the step before wrote there, if there was one.
    """
    capacity, void = lane.time.shape[0], transition.void
    after = (lane.head + 1) % capacity
    time = jnp.maximum(lane.time[lane.head], 0)  # -1 where an episode begins, else what the last step left
    ended = transition.terminated & (lane.tail > 0) & ~void
    skipped = jnp.where(transition.done, 1 + jnp.where(ended, lane.tail, 0), 0)
    head = jnp.where(void, lane.head + jnp.minimum(time, 1), after + skipped) % capacity
    # What is void is written beyond the end, and so nowhere.
    here, there = jnp.where(void, capacity, lane.head), jnp.where(void, capacity, after)
    times = lane.time.at[here].set(time, mode="drop").at[there].set(time + 1, mode="drop")
    absorbing = lane.absorbing.at[here].set(False, mode="drop").at[there].set(ended, mode="drop")
    rewards = lane.reward.at[here].set(transition.reward, mode="drop")
    if lane.tail:
        beyond = (after + 1 + jnp.arange(lane.tail)) % capacity
        times = times.at[beyond].set(jnp.where(ended, time + 2 + jnp.arange(lane.tail), times[beyond]))
        absorbing = absorbing.at[beyond].set(ended | absorbing[beyond])
        rewards = rewards.at[beyond].set(jnp.where(ended, 0.0, rewards[beyond])).at[there].set(0.0, mode="drop")
    # After an episode's end the head's row is the oldest, and must not be taken for a running episode's.
    times = jnp.where(transition.done | void, times.at[head].set(-1), times)
    return eqx.tree_at(
        lambda r: (r.obs, r.action, r.reward, r.absorbing, r.time, r.head),
        lane,
        (
            lane.obs.at[here].set(transition.obs, mode="drop").at[there].set(transition.next_obs, mode="drop"),
            lane.action.at[here].set(transition.action, mode="drop"),
            rewards,
            absorbing,
            times,
            head,
        ),
    )


def _valid_starts(lane: ReplayBuffer, horizon: int) -> Bool[Array, " L"]:
    """Rows of one lane at which a segment may start."""
    capacity = lane.time.shape[0]
    row = jnp.arange(capacity)
    age = (row - lane.head - 1) % capacity
    end = lane.time[(row + horizon) % capacity]
    return (lane.time >= 0) & (end == lane.time + horizon) & (age + horizon < capacity)
