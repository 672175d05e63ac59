"""A grid of [S seeds, E environments] whose simulators are JAX functions: its state is arrays on the device.

`begin` and `advance` are pure, for programs that step the grid inside (`train.scanned`); `JaxVectorEnv` wraps them in the
manners of `VectorEnv`, and lives the same episodes: their seeds are computed on the device as `grid.episode_seed` does.
"""

from collections.abc import Sequence
from functools import partial
from itertools import permutations
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32, Int64, UInt8, UInt32

from cdred.envs.failures import FailureCounts, check_failure_limits, warned
from cdred.envs.jax_env import EnvState, JaxEnv
from cdred.envs.registry import functional
from cdred.envs.remote.client import STEP_SECONDS
from cdred.envs.vector_env import STREAMS, VectorEnv, VectorStep, check_actions, episode_seed, require_place
from cdred.types import LogFn, VectorizationMode

# NumPy's SeedSequence: a hash of the words into a pool of four, and of the pool into what it generates.
INIT_A, MULT_A, INIT_B, MULT_B = 0x43B0D7E5, 0x931E8875, 0x8B51F9DD, 0x58F38DED
MIX_LEFT, MIX_RIGHT = 0xCA01F9DD, 0x4973F715

NOT_FINITE = "an observation or a reward that is not finite"


class VectorEnvState(NamedTuple):
    """Where every environment is; `episode` counts from 0 (-1: none begun), `length` the steps taken in it.

    `length` is -1 in an episode whose first observation is no number (`obs` is then 0): its first step is void.
    """

    env: EnvState
    obs: Float32[Array, "S E *obs"]
    episode: Int32[Array, "S E"]
    length: Int32[Array, "S E"]
    strikes: FailureCounts


class DeviceStep(NamedTuple):
    """`grid.VectorStep` as arrays on the device."""

    obs: Float32[Array, "S E *obs"]
    reward: Float32[Array, "S E"]
    terminated: Bool[Array, "S E"]
    truncated: Bool[Array, "S E"]
    success: Bool[Array, "S E"]
    void: Bool[Array, "S E"]

    @property
    def ended(self) -> Bool[Array, "S E"]:
        """As `VectorStep.ended`."""
        return self.terminated | self.truncated | self.void


class Origin(NamedTuple):
    """What, with the episode's number, determines an episode: a run's seed, the stream's place, the environment."""

    seed: UInt32[Array, "S E"]
    stream: UInt32[Array, "S E"]
    env: UInt32[Array, "S E"]


def begin(env: JaxEnv, origin: Origin, state: VectorEnvState, mask: Bool[Array, "S E"]) -> VectorEnvState:
    """The next episode where `mask` holds. Costs nothing where it holds nowhere, for episodes end together."""

    def some(state: VectorEnvState) -> VectorEnvState:
        episode = state.episode + mask.astype(jnp.int32)
        fresh, obs = jax.vmap(jax.vmap(env.reset))(episode_seeds(origin, episode.astype(jnp.uint32)))
        sound = _finite(obs)
        obs = _where(sound, obs, jnp.zeros_like(obs))
        begun = VectorEnvState(fresh, obs, episode, jnp.where(sound, 0, -1).astype(jnp.int32), state.strikes)
        return jax.tree.map(partial(_where, mask), begun, state)

    return jax.lax.cond(jnp.any(mask), some, lambda state: state, state)


def advance(env: JaxEnv, state: VectorEnvState, action: Float32[Array, "S E A"]) -> tuple[VectorEnvState, DeviceStep]:
    """One step everywhere; components of `action` outside [-1, 1] are clipped.

    Void where an observation or the reward is not finite.
    """
    stepped, result = jax.vmap(jax.vmap(env.step))(state.env, jnp.clip(action, -1.0, 1.0))
    lived = _finite(result.obs) & jnp.isfinite(result.reward) & (state.length >= 0)
    length, terminated = state.length + 1, result.terminated & lived
    truncated = lived & ~terminated & (length >= env.spec.episode_length)
    obs, reward = _where(lived, result.obs, state.obs), jnp.where(lived, result.reward, 0.0)
    step = DeviceStep(obs, reward, terminated, truncated, result.success & lived, ~lived)
    strikes = state.strikes.after(~lived, terminated | truncated)
    return VectorEnvState(stepped, obs, state.episode, length, strikes), step


def _finite(obs: Float32[Array, "S E *obs"]) -> Bool[Array, "S E"]:
    return jnp.all(jnp.isfinite(obs), axis=tuple(range(2, obs.ndim)))


def episode_seeds(origin: Origin, episode: UInt32[Array, "S E"]) -> UInt32[Array, "S E"]:
    """`grid.episode_seed` of arrays, bit for bit."""
    drawn = _seed_sequence([origin.seed, origin.stream, origin.env, episode])
    num = jnp.uint32(len(STREAMS))
    return drawn // num * num + origin.stream


def _seed_sequence(words: list[UInt32[Array, "S E"]]) -> UInt32[Array, "S E"]:
    """The first word that NumPy's `SeedSequence` of four words generates."""
    constant = INIT_A

    def hashed(word, multiplier=MULT_A):
        nonlocal constant
        word = word ^ jnp.uint32(constant)
        constant = constant * multiplier % 2**32
        word = word * jnp.uint32(constant)
        return word ^ (word >> jnp.uint32(16))

    pool = [hashed(word) for word in words]
    for source, target in permutations(range(len(pool)), 2):
        mixed = jnp.uint32(MIX_LEFT) * pool[target] - jnp.uint32(MIX_RIGHT) * hashed(pool[source])
        pool[target] = mixed ^ (mixed >> jnp.uint32(16))
    constant = INIT_B
    return hashed(pool[0], MULT_B)


def _where(mask: Bool[Array, "S E"], new: Array, old: Array) -> Array:
    return jnp.where(mask.reshape(mask.shape + (1,) * (new.ndim - mask.ndim)), new, old)


# At module level, so that grids of one task and size share what was compiled.
_begin = jax.jit(begin, static_argnums=0)
_advance = jax.jit(advance, static_argnums=0)


class JaxVectorEnv:
    """S x E environments of one task, stepped together on the device; with the methods of `VectorEnv`.

    `state` may be taken, advanced by another program and put back.

    Args:
        env: the simulator.
        seeds: one run a row (each >= 0).
        num_envs: environments a run (E).
        stream: as in `VectorEnv`.
        render_size: as in `registry.make`.
        say: as in `VectorEnv`.

    Raises:
        UserError: seeds that are negative or none.
    """

    def __init__(
        self,
        env: JaxEnv,
        seeds: Sequence[int],
        num_envs: int = 1,
        stream: str = "train",
        *,
        render_size: int | None = None,
        say: LogFn = warned,
    ):
        require_place(seeds, num_envs, stream)
        self.env, self.spec, self.stream = env, env.spec, stream
        self.seeds, self.shape = tuple(int(seed) for seed in seeds), (len(seeds), num_envs)
        rows, columns = np.broadcast_arrays(np.array(self.seeds)[:, None], np.arange(num_envs)[None])
        words = (rows, np.full(self.shape, STREAMS.index(stream)), columns)
        self.origin = Origin(*(jnp.array(word, jnp.uint32) for word in words))
        self.state = self._nothing_begun()
        self._done, self._render_size, self._say = np.ones(self.shape, bool), render_size, say

    def _nothing_begun(self) -> VectorEnvState:
        env, obs = jax.eval_shape(jax.vmap(jax.vmap(self.env.reset)), self.origin.seed)
        env, obs = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (env, obs))
        strikes = FailureCounts(*map(jnp.asarray, FailureCounts.none(self.shape)))
        return VectorEnvState(env, obs, jnp.full(self.shape, -1, jnp.int32), jnp.zeros(self.shape, jnp.int32), strikes)

    def reset(self, mask: Bool[np.ndarray, "S E"] | None = None) -> Float32[np.ndarray, "S E *obs"]:
        """Start the next episode where `mask` holds (None: everywhere); the current observations of all."""
        mask = np.ones(self.shape, bool) if mask is None else mask
        self.state = _begin(self.env, self.origin, self.state, jnp.asarray(mask))
        self._done &= ~mask
        return np.array(self.state.obs)

    def step(self, action: Float32[np.ndarray, "S E A"]) -> VectorStep:
        """One step everywhere.

        Raises:
            RuntimeError: an environment has ended its episode, or never begun one, and was not reset.
            ValueError: `action` has the wrong shape or is not finite.
            SimulatorError: too many episodes in a row were given up.
        """
        if self._done.any():
            raise RuntimeError(f"step before reset: no running episode in cells {np.argwhere(self._done).tolist()}")
        action = np.asarray(action, np.float32)
        check_actions(action, (*self.shape, self.spec.action_dim))
        self.state, after = _advance(self.env, self.state, action)
        step = VectorStep(*(np.array(field) for field in after))
        self._done = step.ended
        self.tell_void(step.void)
        return step

    def tell_void(self, void: Bool[np.ndarray, "S E"]) -> None:
        """Say which environments' episodes were just given up.

        Raises:
            SimulatorError: too many were in a row, by now.
        """
        for s, e in np.argwhere(void):
            self._say(f"{self._name(s, e)}: an episode is given up: {NOT_FINITE}")
        if void.any():
            check_failure_limits(jax.device_get(self.state.strikes), self._name, NOT_FINITE)

    def _name(self, s: int, e: int) -> str:
        return f"{self.spec.task}, seed {self.seeds[s]}, environment {e}"

    @property
    def broken(self) -> Int64[np.ndarray, " S"]:
        """Episodes given up so far, per seed."""
        return np.asarray(self.state.strikes.broken).sum(axis=1, dtype=np.int64)

    def episode_seed(self, s: int, e: int) -> int:
        """Seed with which `Env.reset` reproduces the current episode of environment (s, e)."""
        return episode_seed(self.seeds[s], self.stream, e, int(self.state.episode[s, e]))

    def render(self, s: int, e: int) -> UInt8[np.ndarray, "H W 3"]:
        """The current frame of environment (s, e); raises UserError where there is no rendering."""
        return self.env.picture(jax.tree.map(lambda x: x[s, e], self.state.env), self._render_size)

    def snapshot(self) -> dict[str, Any]:
        """All that `restore` needs: a copy of the state on the host."""
        state = jax.tree.map(np.array, jax.device_get(self.state))
        return {"seeds": np.array(self.seeds), "done": self._done.copy(), "state": state}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go on where `snapshot` was taken.

        Raises:
            ValueError: the snapshot is of another grid.
        """
        if tuple(snapshot["seeds"]) != self.seeds:
            raise ValueError(f"the snapshot is of the seeds {snapshot['seeds'].tolist()}, not of {self.seeds}")
        self._done, self.state = snapshot["done"].copy(), jax.tree.map(jnp.array, snapshot["state"])

    def close(self) -> None:
        """Nothing is held but memory."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


Grid = VectorEnv | JaxVectorEnv


def make_vector_env(
    task: str,
    seeds: Sequence[int],
    num_envs: int = 1,
    stream: str = "train",
    *,
    render_size: int | None = None,
    vectorization: VectorizationMode = "sync",
    env_step_timeout: float = STEP_SECONDS,
    say: LogFn = warned,
) -> Grid:
    """The grid of a task: on the device where its simulator is a JAX function, unless other workers are asked for.

    Arguments and errors as for `VectorEnv`.
    """
    env = functional(task) if vectorization == "sync" else None
    if env is None:
        options = {
            "render_size": render_size,
            "vectorization": vectorization,
            "env_step_timeout": env_step_timeout,
            "say": say,
        }
        return VectorEnv(task, seeds, num_envs, stream, **options)
    return JaxVectorEnv(env, seeds, num_envs, stream, render_size=render_size, say=say)
