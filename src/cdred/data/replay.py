"""Episodes in device memory, and segments of them that never cross an episode's end.

A store is a set of lanes, one per environment; a lane is a ring of rows. Row i holds an observation, the action taken
there and its place in the episode; an episode of T decisions takes T + 1 rows, the last for its final observation.
So each observation is kept once, and a segment is valid exactly if its rows count upwards without a gap.

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


class Transition(NamedTuple):
    """One decision of every lane (leading axes `[time, E]` in a block).

    Attributes:
        obs: where the action was taken.
        action: what was done.
        next_obs: what came of it: the true final observation where the episode ended.
        terminated: whether the world ended.
        done: whether the episode ended, for whatever reason.
    """

    obs: Float[Array | np.ndarray, "..."]
    action: Float[Array | np.ndarray, "... A"]
    next_obs: Float[Array | np.ndarray, "..."]
    terminated: Bool[Array | np.ndarray, "..."]
    done: Bool[Array | np.ndarray, "..."]


class Replay(eqx.Module):
    """Rows of E lanes of capacity L.

    `obs [E, L, *obs]`, `action [E, L, A]`, `terminated [E, L]`, `time [E, L]`, `head [E]`.
    `time` is a row's place in its episode, -1 if the row holds nothing; `head` is where a lane writes next.
    """

    obs: Float32[Array, "..."]
    action: Float32[Array, "... A"]
    terminated: Bool[Array, "..."]
    time: Int[Array, "..."]
    head: Int[Array, "..."]

    @classmethod
    def init(cls, spec: EnvSpec, lanes: int, capacity: int) -> Self:
        """An empty store of `lanes` x `capacity` rows."""
        return cls(
            obs=jnp.zeros((lanes, capacity, *spec.obs_shape), jnp.float32),
            action=jnp.zeros((lanes, capacity, spec.action_dim), jnp.float32),
            terminated=jnp.zeros((lanes, capacity), bool),
            time=jnp.full((lanes, capacity), -1, jnp.int32),
            head=jnp.zeros(lanes, jnp.int32),
        )

    def add(self, block: Transition) -> "Replay":
        """Append a block of decisions `[time, E, ...]`; the oldest rows make way."""

        def step(replay, transition):
            return jax.vmap(_write)(replay, transition), None

        return jax.lax.scan(step, self, block)[0]

    def index(self, horizon: int) -> Int[Array, " rows"]:
        """Cumulative count of valid starts over all rows, from which `sample` draws. Costs one pass over the store."""
        return jnp.cumsum(jax.vmap(lambda lane: _valid_starts(lane, horizon))(self).reshape(-1).astype(jnp.int32))

    def sample(self, index: Int[Array, " rows"], key: Key[Array, ""], batch: int, horizon: int) -> Segment:
        """`batch` segments of `horizon` transitions, drawn uniformly with replacement from all valid starts.

        With no valid start at all the result is meaningless: ask `num_segments` first.
        """
        ranks = jax.random.randint(key, (batch,), 0, jnp.maximum(index[-1], 1))
        lane, start = jnp.divmod(jnp.searchsorted(index, ranks, side="right"), self.time.shape[1])
        rows = (start[:, None] + jnp.arange(horizon + 1)[None]) % self.time.shape[1]
        lane = lane[:, None]
        return Segment(self.obs[lane, rows], self.action[lane, rows[:, :-1]], self.terminated[lane, rows[:, :-1]])

    def num_segments(self, horizon: int) -> Int[Array, ""]:
        """How many segments of `horizon` transitions there are."""
        return self.index(horizon)[-1]


def from_trajectories(trajectories: Sequence[Trajectory], spec: EnvSpec) -> Replay:
    """A full store of given episodes in one lane: the expert's."""
    replay = jax.tree.map(lambda x: np.array(x), Replay.init(spec, 1, rows_needed(trajectories) + 1))
    row = 0
    for trajectory in trajectories:
        steps = len(trajectory)
        replay.obs[0, row : row + steps + 1] = trajectory.obs
        replay.action[0, row : row + steps] = trajectory.action
        replay.terminated[0, row + steps - 1] = trajectory.terminated
        replay.time[0, row : row + steps + 1] = np.arange(steps + 1)
        row += steps + 1
    replay.head[0] = row
    return jax.tree.map(jnp.asarray, replay)


def rows_needed(trajectories: Sequence[Trajectory]) -> int:
    """Rows that episodes take: one more each than decisions."""
    return sum(len(trajectory) + 1 for trajectory in trajectories)


def replay_bytes(spec: EnvSpec, lanes: int, capacity: int) -> int:
    """Bytes of device memory that `Replay.init` will take."""
    shapes = jax.eval_shape(lambda: Replay.init(spec, lanes, capacity))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def _write(lane: Replay, transition: Transition) -> Replay:
    """One decision into one lane (all arrays without the lane axis).

    The next observation is always written one row on: the next decision overwrites it with the same content, unless
    the episode ended, in which case it stays as the final row and the head moves past it.
    """
    capacity = lane.time.shape[0]
    here, after = lane.head, (lane.head + 1) % capacity
    time = jnp.maximum(lane.time[here], 0)  # -1 where an episode begins, else what the last decision left
    head = (here + 1 + transition.done.astype(jnp.int32)) % capacity
    times = lane.time.at[here].set(time).at[after].set(time + 1)
    # After an episode's end the head's row is the oldest, and must not be taken for a running episode's.
    times = jnp.where(transition.done, times.at[head].set(-1), times)
    return Replay(
        obs=lane.obs.at[here].set(transition.obs).at[after].set(transition.next_obs),
        action=lane.action.at[here].set(transition.action),
        terminated=lane.terminated.at[here].set(transition.terminated),
        time=times,
        head=head,
    )


def _valid_starts(lane: Replay, horizon: int) -> Bool[Array, " L"]:
    """Rows of one lane at which a segment may start."""
    capacity = lane.time.shape[0]
    row = jnp.arange(capacity)
    age = (row - lane.head - 1) % capacity
    end = lane.time[(row + horizon) % capacity]
    return (lane.time >= 0) & (end == lane.time + horizon) & (age + horizon < capacity)
