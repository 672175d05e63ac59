"""Collect, store and learn as one compiled program, for simulators that are JAX functions.

It does what `collect.collect`, `CompiledFns.store` and `CompiledFns.learn` do one after another, with the same randomness, in
the same order; the host hears of rewards and episodes' ends only when it asks (`DeviceLoop.tell`).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Key, PyTree

from cdred.data.replay_buffer import ReplayBuffer, Transition
from cdred.envs.jax_vector_env import JaxVectorEnv, Origin, VectorEnvState, advance, begin
from cdred.planning.mppi import MPPIState
from cdred.train.collect import OnEpisode, random_actions
from cdred.train.compiled import CompiledFns, FiniteCheck
from cdred.train.devices import SEEDS, STEPS_SEEDS, WHOLE, shard_map_seeds
from cdred.train.divergence import require_plans
from cdred.train.state import TrainState


class Lived(NamedTuple):
    """What steps change."""

    grid: VectorEnvState
    plan: MPPIState
    fresh: Bool[Array, "S E"]


class Seen(NamedTuple):
    """What the host is told of each of a block of steps: what came of it, and whether its actions were finite."""

    reward: Float32[Array, "block_length S E"]
    success: Bool[Array, "block_length S E"]
    ended: Bool[Array, "block_length S E"]
    void: Bool[Array, "block_length S E"]
    planned: Bool[Array, "block_length S"]


# How `Seen` lies on the devices.
SEEN: Any = Seen(*[STEPS_SEEDS] * 5)  # pyright: ignore[reportArgumentType]


class DeviceLoop:
    """The programs of a run whose simulators are on the device: blocks of `block_length` steps of every environment.

    `acting` (with the agent, then learning) and `idling` (random actions, no learning) compile once each.
    """

    def __init__(self, programs: CompiledFns, grid: JaxVectorEnv, block_length: int, steps_per_update: int):
        self.programs, self.grid, self.block_length, self.steps_per_update = (
            programs,
            grid,
            block_length,
            steps_per_update,
        )
        given = (SEEDS, SEEDS, SEEDS, SEEDS, WHOLE, SEEDS, SEEDS, WHOLE)
        acting = shard_map_seeds(self._acting, programs.mesh, given, (SEEDS, SEEDS, SEEDS, SEEN, SEEDS, SEEDS))
        idling = shard_map_seeds(self._idling, programs.mesh, (SEEDS, SEEDS, SEEDS, STEPS_SEEDS), (SEEDS, SEEDS, SEEN))
        self.acting = jax.jit(acting, donate_argnums=(0, 1, 2))
        self.idling = jax.jit(idling, donate_argnums=(0, 1))
        self._untold: list[tuple[int, Seen]] = []

    def act_and_learn(
        self, state: TrainState, expert: ReplayBuffer | None, act_keys: Key[Array, " S"], learn_keys: Key[Array, " S"]
    ) -> tuple[TrainState, dict[str, Float[Array, " S"]], FiniteCheck]:
        """A block with the agent, exploring, and the updates it is worth; the new state, `learn`'s metrics and verdict.

        All that the steps before are worth must have been made.

        Raises:
            Diverged: planning found no finite action; the simulators cannot be taken back to try another.
        """
        counter = np.int32(state.steps)
        lived, replay, learner, seen, metrics, verdict = self.acting(
            self._lived(state), state.replay, state.learner, self.grid.origin, expert, act_keys, learn_keys, counter
        )
        require_plans(jax.device_get(seen.planned).all(axis=0), self.grid.seeds, f"after step {state.steps:,}")
        return self._later(state.replace(learner=learner), lived, replay, seen), metrics, verdict

    def act_at_random(self, state: TrainState) -> TrainState:
        """A block of the actions that `collect` would draw."""
        counters = int(state.steps) + self.grid.shape[1] * np.arange(self.block_length)
        actions = np.stack([random_actions(self.grid, int(counter)) for counter in counters])
        lived, replay, seen = self.idling(self._lived(state), state.replay, self.grid.origin, actions)
        return self._later(state, lived, replay, seen)

    def tell(self, state: TrainState, on_episode: OnEpisode) -> TrainState:
        """Fetch what happened since the last call; `on_episode` as in `collect`, in the same order.

        Raises:
            SimulatorError: too many episodes in a row were given up.
        """
        sums = state.sums
        for steps, seen in self._untold:
            for reward, success, ended, void, _ in zip(*jax.device_get(seen), strict=True):
                steps += self.grid.shape[1]
                sums, finished = sums.plus(reward, success), ended & ~void
                if finished.any():
                    on_episode(steps, sums.means(finished))
                self.grid.tell_void(void)
                sums = sums.where_not(ended)
        self._untold.clear()
        return state.replace(sums=sums)

    def _lived(self, state: TrainState) -> Lived:
        # A copy: what NumPy holds must not be given away.
        return Lived(self.grid.state, state.plan, jnp.array(state.fresh))

    def _later(self, state: TrainState, lived: Lived, replay: ReplayBuffer, seen: Seen) -> TrainState:
        self._untold.append((int(state.steps), seen))
        self.grid.state = lived.grid
        steps = state.steps + self.block_length * self.grid.shape[1]
        return state.replace(plan=lived.plan, fresh=lived.fresh, replay=replay, steps=np.array(steps))

    def _acting(
        self,
        lived: Lived,
        replay: ReplayBuffer,
        learner: PyTree,
        origin: Origin,
        expert: ReplayBuffer | None,
        act_keys: Key[Array, " S"],
        learn_keys: Key[Array, " S"],
        counter: Int[Array, ""],
    ) -> tuple[Any, ...]:
        def choose(lived: Lived, counter):
            explore = jnp.array(True)
            return self.programs.acting(learner, lived.plan, lived.grid.obs, lived.fresh, act_keys, counter, explore)

        counters = counter + jnp.arange(self.block_length, dtype=jnp.int32) * self.grid.shape[1]
        lived, replay, seen = self._collect(lived, replay, origin, choose, counters)
        learner, metrics, verdict = self.programs.learning(
            learner, replay, expert, learn_keys, counter // self.steps_per_update, None
        )
        return lived, replay, learner, seen, metrics, verdict

    def _idling(
        self, lived: Lived, replay: ReplayBuffer, origin: Origin, actions: Float32[Array, "block_length S E A"]
    ) -> tuple[Lived, ReplayBuffer, Seen]:
        return self._collect(lived, replay, origin, lambda lived, action: (action, lived.plan), actions)

    def _collect(
        self, lived: Lived, replay: ReplayBuffer, origin: Origin, choose, inputs
    ) -> tuple[Lived, ReplayBuffer, Seen]:
        """A step for each of `inputs`, the action being what `choose(lived, input)` says; then all are stored."""

        def decide(lived: Lived, given):
            obs = lived.grid.obs
            action, plan = choose(lived, given)
            planned = jnp.all(jnp.isfinite(action), (1, 2))
            grid, step = advance(self.grid.env, lived.grid, action)
            transition = Transition(obs, action, step.reward, step.obs, step.terminated, step.ended, step.void)
            lived = Lived(begin(self.grid.env, origin, grid, step.ended), plan, step.ended)
            return lived, (transition, Seen(step.reward, step.success, step.ended, step.void, planned))

        lived, (block, seen) = jax.lax.scan(decide, lived, inputs)
        replay = jax.vmap(ReplayBuffer.add, in_axes=(0, 1))(replay, block)
        return lived, replay, seen
