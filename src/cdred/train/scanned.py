"""Collect, store and learn as one compiled program, for simulators that are JAX functions.

It does what `collect.collect`, `Programs.store` and `Programs.learn` do one after another, with the same randomness, in
the same order; the host hears of rewards and episodes' ends only when it asks (`Scanned.tell`).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Key, PyTree

from cdred.data.replay import Replay, Transition
from cdred.envs.jax_grid import GridState, JaxGrid, Origin, advance, begin, require_finite
from cdred.planning.mppi import PlanState
from cdred.train.collect import OnEpisode, random_actions
from cdred.train.programs import Programs
from cdred.train.state import TrainState


class Lived(NamedTuple):
    """What decisions change."""

    grid: GridState
    plan: PlanState
    fresh: Bool[Array, "S E"]


class Seen(NamedTuple):
    """What the host is told of a block of decisions."""

    reward: Float32[Array, "steps S E"]
    success: Bool[Array, "steps S E"]
    ended: Bool[Array, "steps S E"]
    finite: Bool[Array, ""]


class Scanned:
    """The programs of a run whose simulators are on the device: blocks of `steps` decisions of every environment.

    `acting` (with the agent, then learning) and `idling` (random actions, no learning) compile once each.
    """

    def __init__(self, programs: Programs, grid: JaxGrid, steps: int):
        self.programs, self.grid, self.steps = programs, grid, steps
        self.acting = jax.jit(self._acting, donate_argnums=(0, 1, 2))
        self.idling = jax.jit(self._idling, donate_argnums=(0, 1))
        self._untold: list[tuple[int, Seen]] = []

    def act_and_learn(
        self, state: TrainState, expert: Replay | None, act_keys: Key[Array, " S"], learn_keys: Key[Array, " S"]
    ) -> tuple[TrainState, dict[str, Float[Array, " S"]]]:
        """A block with the agent, exploring, and as many updates; the new state and `learn`'s metrics.

        As many updates as decisions must have been made before.
        """
        counter = np.int32(state.decisions)
        lived, replay, learner, seen, metrics = self.acting(
            self._lived(state), state.replay, state.learner, self.grid.origin, expert, act_keys, learn_keys, counter
        )
        return self._later(state.replace(learner=learner), lived, replay, seen), metrics

    def act_at_random(self, state: TrainState) -> TrainState:
        """A block of the actions that `collect` would draw."""
        counters = int(state.decisions) + self.grid.shape[1] * np.arange(self.steps)
        actions = np.stack([random_actions(self.grid, int(counter)) for counter in counters])
        lived, replay, seen = self.idling(self._lived(state), state.replay, self.grid.origin, actions)
        return self._later(state, lived, replay, seen)

    def tell(self, state: TrainState, on_episode: OnEpisode) -> TrainState:
        """Fetch what happened since the last call; `on_episode` as in `collect`, in the same order.

        Raises:
            FloatingPointError: the simulator returned a non-finite observation or reward.
        """
        sums = state.sums
        for decisions, seen in self._untold:
            host = jax.device_get(seen)
            require_finite(self.grid.spec.task, bool(host.finite))
            for reward, success, ended in zip(host.reward, host.success, host.ended, strict=True):
                decisions += self.grid.shape[1]
                sums = sums.plus(reward, success)
                if ended.any():
                    on_episode(decisions, sums.means(ended))
                sums = sums.where_not(ended)
        self._untold.clear()
        return state.replace(sums=sums)

    def _lived(self, state: TrainState) -> Lived:
        # A copy: what NumPy holds must not be given away.
        return Lived(self.grid.state, state.plan, jnp.array(state.fresh))

    def _later(self, state: TrainState, lived: Lived, replay: Replay, seen: Seen) -> TrainState:
        self._untold.append((int(state.decisions), seen))
        self.grid.state = lived.grid
        decisions = state.decisions + self.steps * self.grid.shape[1]
        return state.replace(plan=lived.plan, fresh=lived.fresh, replay=replay, decisions=np.array(decisions))

    def _acting(
        self,
        lived: Lived,
        replay: Replay,
        learner: PyTree,
        origin: Origin,
        expert: Replay | None,
        act_keys: Key[Array, " S"],
        learn_keys: Key[Array, " S"],
        counter: Int[Array, ""],
    ) -> tuple[Any, ...]:
        def choose(lived: Lived, counter):
            explore = jnp.array(True)
            return self.programs.act(learner, lived.plan, lived.grid.obs, lived.fresh, act_keys, counter, explore)

        counters = counter + jnp.arange(self.steps, dtype=jnp.int32) * self.grid.shape[1]
        lived, replay, seen = self._collect(lived, replay, origin, choose, counters)
        learner, metrics = self.programs.learn(learner, replay, expert, learn_keys, counter)
        return lived, replay, learner, seen, metrics

    def _idling(
        self, lived: Lived, replay: Replay, origin: Origin, actions: Float32[Array, "steps S E A"]
    ) -> tuple[Lived, Replay, Seen]:
        return self._collect(lived, replay, origin, lambda lived, action: (action, lived.plan), actions)

    def _collect(self, lived: Lived, replay: Replay, origin: Origin, choose, inputs) -> tuple[Lived, Replay, Seen]:
        """A decision for each of `inputs`, the action being what `choose(lived, input)` says; then all are stored."""

        def decide(lived: Lived, given):
            obs = lived.grid.obs
            action, plan = choose(lived, given)
            grid, step = advance(self.grid.env, lived.grid, action)
            ended = step.terminated | step.truncated
            transition = Transition(obs, action, step.reward, step.obs, step.terminated, ended)
            lived = Lived(begin(self.grid.env, origin, grid, ended), plan, ended)
            return lived, (transition, (step.reward, step.success, ended))

        lived, (block, (reward, success, ended)) = jax.lax.scan(decide, lived, inputs)
        finite = jnp.all(jnp.isfinite(block.next_obs)) & jnp.all(jnp.isfinite(reward))
        replay = jax.vmap(Replay.add, in_axes=(0, 1))(replay, block)
        return lived, replay, Seen(reward, success, ended, finite)
