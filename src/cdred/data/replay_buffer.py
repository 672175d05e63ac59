"""Replay buffer on the device, sampled in segments that never cross an episode boundary.

The buffer holds one ring of rows per environment. Row i holds an observation, the action taken there and its step in
the episode; an episode of T steps takes T + 1 rows, the last one for its final observation. So each observation is
stored once, and a segment is valid exactly if the episode steps of its rows increase by one from row to row.

With camera images, a row holds the newest one of its observation. The others are those of the rows before it, as far as
these belong to the episode, which a valid segment therefore needs, too.

In tasks with termination, the final row of a terminated episode is absorbing, and `num_absorbing` more absorbing rows
follow it: as many as a segment needs to start there.

All functions are pure and written for one seed; `jax.vmap` adds the seed axis.
"""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Key

from cdred.types import STACKED_IMAGES, EnvSpec, ImageObs, Segment, Trajectory, map_obs

# `ReplayBuffer.episode_step` of an empty row.
EMPTY = -1


class Transition(NamedTuple):
    """One step of every environment (leading axes `[time, E]` in a block).

    Attributes:
        obs: observation before the step.
        action: action taken there.
        reward: reward of the environment.
        next_obs: observation after the step; the true final observation where the episode ended.
        terminated: the environment reached a terminal state.
        done: the episode ended, by termination, truncation or failure.
        invalid: the simulator failed in this step, so the episode ended with the step before. Nothing of an invalid
            step is stored.
        success: the task reports success after the step; None where it never does.
    """

    obs: Float[Array | np.ndarray, "..."] | ImageObs
    action: Float[Array | np.ndarray, "... A"]
    reward: Float[Array | np.ndarray, "..."]
    next_obs: Float[Array | np.ndarray, "..."] | ImageObs
    terminated: Bool[Array | np.ndarray, "..."]
    done: Bool[Array | np.ndarray, "..."]
    invalid: Bool[Array | np.ndarray, "..."]
    success: Bool[Array | np.ndarray, "..."] | None = None


class ReplayBuffer(eqx.Module):
    """Ring buffers of E environments with L rows each.

    Attributes:
        obs: observations `[E, L, *obs]`, of an `ImageObs` with one image per row.
        action: actions `[E, L, A]`.
        reward: rewards `[E, L]`.
        absorbing: whether the row is an absorbing state `[E, L]`.
        success: whether the task reports success after the action `[E, L]`, for diagnostics only.
        selected: whether the episode that ends with this row is selected for imitation `[E, L]`; False in all others.
        episode_step: step of the row within its episode `[E, L]`; -1 where the row is empty.
        insert_index: row that each environment writes next `[E]`.
        num_absorbing: absorbing rows appended to the final row of a terminated episode.
    """

    obs: Float32[Array, "..."] | ImageObs
    action: Float32[Array, "... A"]
    reward: Float32[Array, "..."]
    absorbing: Bool[Array, "..."]
    success: Bool[Array, "..."]
    selected: Bool[Array, "..."]
    episode_step: Int[Array, "..."]
    insert_index: Int[Array, "..."]
    num_absorbing: int = eqx.field(static=True)

    @classmethod
    def init(cls, spec: EnvSpec, num_envs: int, capacity: int, horizon: int, action_dim: int | None = None) -> Self:
        """Return an empty buffer of `num_envs` x `capacity` rows, for segments of up to `horizon` transitions.

        `action_dim` replaces that of the task, if given.
        """
        action_dim = spec.action_dim if action_dim is None else action_dim
        return cls(
            obs=_empty_obs(spec, num_envs, capacity),
            action=jnp.zeros((num_envs, capacity, action_dim), jnp.float32),
            reward=jnp.zeros((num_envs, capacity), jnp.float32),
            absorbing=jnp.zeros((num_envs, capacity), bool),
            success=jnp.zeros((num_envs, capacity), bool),
            selected=jnp.zeros((num_envs, capacity), bool),
            episode_step=jnp.full((num_envs, capacity), EMPTY, jnp.int32),
            insert_index=jnp.zeros(num_envs, jnp.int32),
            num_absorbing=horizon if spec.can_terminate else 0,
        )

    def add(self, block: Transition) -> "ReplayBuffer":
        """Append a block of steps `[time, E, ...]`, overwriting the oldest rows."""

        def step(replay, transition):
            return jax.vmap(_insert)(replay, transition), None

        return jax.lax.scan(step, self, block)[0]

    @jax.named_scope("replay")
    def index(self, horizon: int) -> Int[Array, " rows"]:
        """Return the cumulative count of valid start rows, from which `sample` draws; one pass over the buffer."""
        return jnp.cumsum(jax.vmap(lambda env: _valid_starts(env, horizon))(self).reshape(-1).astype(jnp.int32))

    @jax.named_scope("replay")
    def selected_index(self, horizon: int) -> Int[Array, " rows"]:
        """Return `index` over the selected episodes only."""
        starts = jax.vmap(lambda env: _valid_starts(env, horizon) & _of_selected_episode(env))(self)
        return jnp.cumsum(starts.reshape(-1).astype(jnp.int32))

    def final_rows(self) -> Bool[Array, "E L"]:
        """Return a mask of the last rows of the episodes that have ended, absorbing rows included."""
        return jax.vmap(_final_rows)(self)

    def episode_success(self) -> Bool[Array, "E L"]:
        """Return a mask of the last rows of the episodes with a success, as far as they are in the buffer."""
        return jax.vmap(_episode_success)(self)

    def recent_rows(self, num: int) -> Int[Array, "E num"]:
        """Return the `num` rows of each environment that were written last, oldest first, at most a ring's length."""
        capacity = self.episode_step.shape[1]
        back = jnp.arange(-min(num, capacity), 0)
        return (self.insert_index[:, None] + back[None]) % capacity

    def select(self, rows: Int[Array, "E num"], selected: Bool[Array, "E num"]) -> "ReplayBuffer":
        """Mark the episodes that end with the rows where `selected` holds as selected for imitation."""
        either = jax.vmap(lambda old, r, new: old.at[r].set(old[r] | new))(self.selected, rows, selected)
        return eqx.tree_at(lambda r: r.selected, self, either)

    @jax.named_scope("replay")
    def sample(self, index: Int[Array, " rows"], key: Key[Array, ""], batch: int, horizon: int) -> Segment:
        """Draw `batch` segments of `horizon` transitions, uniformly with replacement from all valid starts.

        Actions in absorbing states have no effect and are drawn uniformly from [-1, 1], for the expert's data as for
        the agent's, so that no reward model can discriminate the two by them. If there is no valid start the result is
        meaningless: check `num_segments` first.

        Args:
            index: result of `self.index(horizon)`.
            key: random key.
            batch: number of segments.
            horizon: transitions per segment.
        """
        start_key, action_key = jax.random.split(key)
        ranks = jax.random.randint(start_key, (batch,), 0, jnp.maximum(index[-1], 1))
        env, start = jnp.divmod(jnp.searchsorted(index, ranks, side="right"), self.episode_step.shape[1])
        rows = (start[:, None] + jnp.arange(horizon + 1)[None]) % self.episode_step.shape[1]
        env, action_rows = env[:, None], rows[:, :-1]
        action, absorbing = self.action[env, action_rows], self.absorbing[env, rows]
        if self.num_absorbing:
            random_action = jax.random.uniform(action_key, action.shape, minval=-1.0)
            action = jnp.where(absorbing[:, :-1, None], random_action, action)
        obs = _stacked(self.obs, self.episode_step, (env,), rows)
        return Segment(obs, action, self.reward[env, action_rows], absorbing)

    def most_recent(self, num: int, horizon: int) -> tuple[Segment, Bool[Array, " N"]]:
        """Return the last `num` segments of every environment, N in all, and a mask of the valid ones."""

        def last_segments(env):
            capacity = env.episode_step.shape[0]
            age = (jnp.arange(capacity) - env.insert_index - 1) % capacity
            order, start = jax.lax.top_k(jnp.where(_valid_starts(env, horizon), age, -1), min(num, capacity))
            rows = (start[:, None] + jnp.arange(horizon + 1)[None]) % capacity
            action_rows = rows[:, :-1]
            obs = _stacked(env.obs, env.episode_step, (), rows)
            return Segment(obs, env.action[action_rows], env.reward[action_rows], env.absorbing[rows]), order >= 0

        return jax.tree.map(lambda x: x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]), jax.vmap(last_segments)(self))

    def num_segments(self, horizon: int) -> Int[Array, ""]:
        """Return the number of segments of `horizon` transitions."""
        return self.index(horizon)[-1]

    def stacked_obs(self, env: int | Int[Array, ""], rows: Int[Array, " num"]) -> Float[Array, "num ..."] | ImageObs:
        """Return the observations in rows of one environment; images stacked as an agent observes them."""
        return _stacked(self.obs, self.episode_step, (env,), rows)

    def obs_stats(self) -> tuple[Float[Array, " obs"], Float[Array, " obs"]]:
        """Return mean and variance of every component of the stored observations, flattened and without images."""
        rows = ((self.episode_step >= 0) & ~self.absorbing).reshape(-1, 1)
        obs = self.obs.state if isinstance(self.obs, ImageObs) else self.obs
        obs = obs.reshape(rows.shape[0], prod(obs.shape[2:]))
        num = jnp.maximum(jnp.sum(rows), 1).astype(jnp.float32)
        mean = jnp.sum(jnp.where(rows, obs, 0.0), axis=0) / num
        return mean, jnp.sum(jnp.where(rows, (obs - mean[None]) ** 2, 0.0), axis=0) / num


def _empty_obs(spec: EnvSpec, num_envs: int, capacity: int) -> Array | ImageObs:
    """Return rows of zeros."""
    state = jnp.zeros((num_envs, capacity, *spec.obs_shape), jnp.float32)
    if spec.image_size is None:
        return state
    return ImageObs(state, jnp.zeros((num_envs, capacity, *spec.image_shape), jnp.uint8))


def _newest(obs: Array | np.ndarray | ImageObs) -> Array | np.ndarray | ImageObs:
    """Return an observation as a row holds it, with the newest of its images."""
    return obs._replace(image=obs.image[-1]) if isinstance(obs, ImageObs) else obs


def _stacked(
    obs: Array | ImageObs,
    episode_step: Int[Array, "..."],
    env: tuple[Int[Array, "..."] | int, ...],
    rows: Int[Array, "..."],
) -> Array | ImageObs:
    """Return the observations in rows, the images of each with those of the rows before it in its episode.

    Args:
        obs: rows of a buffer, behind an axis of environments if `env` is given.
        episode_step: of the buffer.
        env: index of the environments, or empty.
        rows: index of the rows.
    """
    if not isinstance(obs, ImageObs):
        return obs[(*env, rows)]
    step = jnp.maximum(episode_step[(*env, rows)], 0)
    back = jnp.stack([jnp.minimum(num, step) for num in range(STACKED_IMAGES - 1, -1, -1)], axis=-1)
    earlier = (rows[..., None] - back) % episode_step.shape[-1]
    return ImageObs(obs.state[(*env, rows)], obs.image[(*(jnp.asarray(e)[..., None] for e in env), earlier)])


def from_trajectories(trajectories: Sequence[Trajectory], spec: EnvSpec, horizon: int) -> ReplayBuffer:
    """Return a full buffer of one environment that holds the given episodes, such as the expert's.

    Where no actions were recorded, it has none either: actions without components. Where the task has images, the
    episodes need them.
    """
    rows = sum(
        len(trajectory) + 1 + horizon * (spec.can_terminate and trajectory.terminated) for trajectory in trajectories
    )
    # One row more, where the next episode would begin, as if the episodes had been added step by step.
    empty = ReplayBuffer.init(spec, 1, rows + 1, horizon, trajectories[0].action.shape[1])
    replay = jax.tree.map(lambda x: np.array(x), empty)
    row = 0
    for trajectory in trajectories:
        steps = len(trajectory)
        end = row + steps + 1 + empty.num_absorbing * trajectory.terminated
        if isinstance(replay.obs, ImageObs):
            replay.obs.state[0, row : row + steps + 1] = trajectory.obs
            replay.obs.image[0, row : row + steps + 1] = trajectory.image
        else:
            replay.obs[0, row : row + steps + 1] = trajectory.obs
        replay.action[0, row : row + steps] = trajectory.action
        # NaN, so that a method that reads unknown rewards fails instead of learning from made-up ones.
        replay.reward[0, row : row + steps] = np.nan if trajectory.reward is None else trajectory.reward
        replay.absorbing[0, row + steps : end] = trajectory.terminated
        replay.episode_step[0, row:end] = np.arange(end - row)
        row = end
    replay.insert_index[0] = row
    return jax.tree.map(jnp.asarray, replay)


def replay_bytes(spec: EnvSpec, num_envs: int, capacity: int) -> int:
    """Return the bytes of device memory that `ReplayBuffer.init` allocates."""
    shapes = jax.eval_shape(lambda: ReplayBuffer.init(spec, num_envs, capacity, 0))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def rows_written_since(
    before: Int[np.ndarray, "..."], after: Int[np.ndarray, "..."], steps: int, capacity: int, num_absorbing: int
) -> tuple[Int[np.ndarray, "..."], Int[np.ndarray, "..."]]:
    """Return the rows that `steps` steps of each environment may have changed.

    Args:
        before: `insert_index` of each environment before these steps.
        after: `insert_index` of each environment after them.
        steps: number of steps of each environment.
        capacity: rows per environment.
        num_absorbing: as in `ReplayBuffer`.

    Returns:
        The first row of each environment and the number of rows from there on, modulo the capacity. All rows if the
        steps may have filled the whole ring, because the insert index does not show how often it wrapped around.
    """
    # Written from the old insert index to the new one, the new one included: it holds the next observation, or the -1
    # that separates a new episode (`_insert`).
    counts = (after - before) % capacity + 1
    return before, np.full_like(counts, capacity) if steps * (2 + num_absorbing) >= capacity else counts


def _insert(env: ReplayBuffer, transition: Transition) -> ReplayBuffer:
    """Insert one step into the rows of one environment (all arrays without the environment axis).

    The next observation is always written to the following row. The next step overwrites it with the same content,
    unless the episode ended: then it stays as the final row, and the insert index moves past it and the absorbing rows.
    An invalid step keeps, as the final row, what the step before wrote there, if there was one.
    """
    capacity, invalid = env.episode_step.shape[0], transition.invalid
    following = (env.insert_index + 1) % capacity
    # -1 where an episode begins, else what the last step left.
    step = jnp.maximum(env.episode_step[env.insert_index], 0)
    terminal = transition.terminated & (env.num_absorbing > 0) & ~invalid
    skipped = jnp.where(transition.done, 1 + jnp.where(terminal, env.num_absorbing, 0), 0)
    insert_index = jnp.where(invalid, env.insert_index + jnp.minimum(step, 1), following + skipped) % capacity
    # Invalid steps are written out of range, which mode="drop" discards.
    row, next_row = jnp.where(invalid, capacity, env.insert_index), jnp.where(invalid, capacity, following)
    steps = env.episode_step.at[row].set(step, mode="drop").at[next_row].set(step + 1, mode="drop")
    absorbing = env.absorbing.at[row].set(False, mode="drop").at[next_row].set(terminal, mode="drop")
    rewards = env.reward.at[row].set(transition.reward, mode="drop")
    no_success = jnp.zeros((), bool)
    success = no_success if transition.success is None else transition.success
    successes = env.success.at[row].set(success, mode="drop").at[next_row].set(no_success, mode="drop")
    # A row of an earlier episode is overwritten.
    selected = env.selected.at[row].set(no_success, mode="drop").at[next_row].set(no_success, mode="drop")
    if env.num_absorbing:
        offsets = jnp.arange(env.num_absorbing)
        extra = (following + 1 + offsets) % capacity
        selected = selected.at[extra].set(selected[extra] & ~terminal)
        successes = successes.at[extra].set(successes[extra] & ~terminal)
        steps = steps.at[extra].set(jnp.where(terminal, step + 2 + offsets, steps[extra]))
        absorbing = absorbing.at[extra].set(terminal | absorbing[extra])
        rewards = rewards.at[extra].set(jnp.where(terminal, 0.0, rewards[extra])).at[next_row].set(0.0, mode="drop")
    # After an episode's end the row at the insert index is the oldest, and must not count as part of a running episode.
    steps = jnp.where(transition.done | invalid, steps.at[insert_index].set(EMPTY), steps)
    return eqx.tree_at(
        lambda r: (r.obs, r.action, r.reward, r.absorbing, r.success, r.selected, r.episode_step, r.insert_index),
        env,
        (
            map_obs(
                lambda x, obs, next_obs: x.at[row].set(obs, mode="drop").at[next_row].set(next_obs, mode="drop"),
                env.obs,
                _newest(transition.obs),
                _newest(transition.next_obs),
            ),
            env.action.at[row].set(transition.action, mode="drop"),
            rewards,
            absorbing,
            successes,
            selected,
            steps,
            insert_index,
        ),
    )


def _valid_starts(env: ReplayBuffer, horizon: int) -> Bool[Array, " L"]:
    """Return a mask of the rows of one environment at which a segment may start."""
    capacity = env.episode_step.shape[0]
    row = jnp.arange(capacity)
    age = (row - env.insert_index - 1) % capacity
    end = env.episode_step[(row + horizon) % capacity]
    valid = (env.episode_step >= 0) & (end == env.episode_step + horizon) & (age + horizon < capacity)
    if isinstance(env.obs, ImageObs):
        # The rows of its earlier images are in the ring, too.
        valid &= age >= jnp.minimum(env.episode_step, STACKED_IMAGES - 1)
    return valid


def _final_rows(env: ReplayBuffer) -> Bool[Array, " L"]:
    """Return a mask of the last rows of the ended episodes of one environment."""
    following = jnp.roll(env.episode_step, -1)
    running = jnp.arange(len(following)) == env.insert_index
    return (env.episode_step >= 0) & (following != env.episode_step + 1) & ~running


def _of_selected_episode(env: ReplayBuffer) -> Bool[Array, " L"]:
    """Return a mask of the rows of the selected episodes of one environment."""
    capacity = len(env.episode_step)
    # From the oldest row to the newest, so that an episode that wraps around the ring is in one piece.
    rows = (env.insert_index + 1 + jnp.arange(capacity)) % capacity
    end = jax.lax.cummin(jnp.where(_final_rows(env)[rows], jnp.arange(capacity), capacity), reverse=True)
    # The rows of the running episode have no end.
    selected = jnp.append(env.selected[rows], False)[end]
    return jnp.zeros(capacity, bool).at[rows].set(selected)


def _episode_success(env: ReplayBuffer) -> Bool[Array, " L"]:
    """Return a mask of the last rows of the episodes of one environment with a success."""
    capacity = len(env.episode_step)
    rows = (env.insert_index + 1 + jnp.arange(capacity)) % capacity
    count = jnp.cumsum((env.success & (env.episode_step >= 0))[rows].astype(jnp.int32))
    # Before an episode's first row, or before the oldest row if that has been overwritten.
    start = jnp.maximum(jnp.arange(capacity) - env.episode_step[rows], 0)
    before = jnp.where(start > 0, count[start - 1], 0)
    return jnp.zeros(capacity, bool).at[rows].set(_final_rows(env)[rows] & (count > before))
