"""Collecting and learning as one compiled program, for simulators that are JAX functions.

Equivalent to `collect.collect`, `CompiledFns.add_to_replay` and `CompiledFns.learn` one after another, with the same
randomness. Rewards and episode ends stay on the device until `DeviceLoop.flush_logs`.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Key, PyTree

from cdred.data.replay_buffer import ReplayBuffer, Transition
from cdred.envs.jax_vector_env import JaxVectorEnv, VectorEnvState, reset_where, step_all
from cdred.envs.seeding_jax import EpisodeKey
from cdred.planning.mppi import MPPIState
from cdred.train.collect import OnEpisode, random_actions
from cdred.train.compiled import CompiledFns
from cdred.train.devices import REPLICATED, SEEDS, STEPS_SEEDS, shard_map_seeds
from cdred.train.finite import FiniteCheck, require_finite_actions
from cdred.train.keys import RunKeys
from cdred.train.state import TrainState


class EnvCarry(NamedTuple):
    """State carried through the scan over steps."""

    envs: VectorEnvState
    plan: MPPIState
    is_first: Bool[Array, "S E"]


class StepLog(NamedTuple):
    """Results of a block of steps that the host logs, and whether all actions of a seed were finite."""

    reward: Float32[Array, "block_length S E"]
    success: Bool[Array, "block_length S E"]
    needs_reset: Bool[Array, "block_length S E"]
    invalid: Bool[Array, "block_length S E"]
    action_finite: Bool[Array, "block_length S"]


# Partitioning of `StepLog` over the devices.
STEP_LOG: Any = StepLog(*[STEPS_SEEDS] * 5)  # pyright: ignore[reportArgumentType]


class DeviceLoop:
    """Compiled blocks of `block_length` steps of every environment of a run.

    `act_and_learn_fn` (the agent's actions, then updates), `random_rollout_fn` (random actions, no update) and
    `pretrained_rollout_fn` (the pretrained policy's actions, no update) compile once each, when they are called.

    Args:
        fns: compiled functions of the run.
        envs: environments of the run.
        block_length: steps per environment in a block.
        steps_per_update: env steps per update and seed.
    """

    def __init__(self, fns: CompiledFns, envs: JaxVectorEnv, block_length: int, steps_per_update: int):
        self.fns, self.envs, self.block_length, self.steps_per_update = fns, envs, block_length, steps_per_update
        act_and_learn = shard_map_seeds(
            self._act_and_learn,
            fns.mesh,
            (SEEDS, SEEDS, SEEDS, SEEDS, REPLICATED, SEEDS, SEEDS, REPLICATED),
            (SEEDS, SEEDS, SEEDS, STEP_LOG, SEEDS, SEEDS),
        )
        random_rollout = shard_map_seeds(
            self._random_rollout, fns.mesh, (SEEDS, SEEDS, SEEDS, STEPS_SEEDS), (SEEDS, SEEDS, STEP_LOG)
        )
        pretrained_rollout = shard_map_seeds(
            self._pretrained_rollout,
            fns.mesh,
            (SEEDS, SEEDS, SEEDS, SEEDS, SEEDS, REPLICATED),
            (SEEDS, SEEDS, STEP_LOG),
        )
        self.act_and_learn_fn = jax.jit(act_and_learn, donate_argnums=(0, 1, 2))
        self.random_rollout_fn = jax.jit(random_rollout, donate_argnums=(0, 1))
        self.pretrained_rollout_fn = jax.jit(pretrained_rollout, donate_argnums=(0, 1))
        self._pending: list[tuple[int, StepLog]] = []

    def act_and_learn(
        self, state: TrainState, expert: ReplayBuffer | None, keys: RunKeys
    ) -> tuple[TrainState, dict[str, Float[Array, " S"]], FiniteCheck]:
        """Run a block with the exploring agent, then the updates due for its steps.

        All updates due for the steps before must have been made.

        Returns:
            The new state, and metrics and check as of `CompiledFns.learn`.

        Raises:
            DivergenceError: an action is not finite; the simulators cannot be set back to try another one.
        """
        counter, episode_key = np.int32(state.steps), self.envs.episode_key
        carry, replay, learner, step_log, metrics, check = self.act_and_learn_fn(
            self._carry(state), state.replay, state.learner, episode_key, expert, keys.act, keys.learn, counter
        )
        finite = jax.device_get(step_log.action_finite).all(axis=0)
        require_finite_actions(finite, self.envs.seeds, f"after step {state.steps:,}")
        return self._next_state(state.replace(learner=learner), carry, replay, step_log), metrics, check

    def random_rollout(self, state: TrainState) -> TrainState:
        """Run a block with the actions of `collect.random_policy`."""
        counters = int(state.steps) + self.envs.shape[1] * np.arange(self.block_length)
        actions = np.stack([random_actions(self.envs, int(counter)) for counter in counters])
        carry, replay, step_log = self.random_rollout_fn(
            self._carry(state), state.replay, self.envs.episode_key, actions
        )
        return self._next_state(state, carry, replay, step_log)

    def pretrained_rollout(self, state: TrainState, keys: RunKeys) -> TrainState:
        """Run a block with the actions of `collect.pretrained_policy`."""
        args = (state.learner, self.envs.episode_key, keys.act, np.int32(state.steps))
        carry, replay, step_log = self.pretrained_rollout_fn(self._carry(state), state.replay, *args)
        return self._next_state(state, carry, replay, step_log)

    def flush_logs(self, state: TrainState, on_episode: OnEpisode) -> TrainState:
        """Fetch the results of the steps since the last call and log them as `collect.collect` does.

        Raises:
            SimulatorError: too many consecutive episodes failed.
        """
        stats = state.episode_stats
        for steps, step_log in self._pending:
            for reward, success, needs_reset, invalid, _ in zip(*jax.device_get(step_log), strict=True):
                steps += self.envs.shape[1]
                stats, done = stats.update(reward, success), needs_reset & ~invalid
                if done.any():
                    on_episode(steps, stats.finished_means(done))
                self.envs.log_failures(invalid)
                stats = stats.reset_where(needs_reset)
        self._pending.clear()
        return state.replace(episode_stats=stats)

    def _carry(self, state: TrainState) -> EnvCarry:
        # A copy, because the carry is donated and NumPy owns the buffer of `is_first`.
        return EnvCarry(self.envs.state, state.plan, jnp.array(state.is_first))

    def _next_state(self, state: TrainState, carry: EnvCarry, replay: ReplayBuffer, step_log: StepLog) -> TrainState:
        self._pending.append((int(state.steps), step_log))
        self.envs.state = carry.envs
        steps = state.steps + self.block_length * self.envs.shape[1]
        return state.replace(plan=carry.plan, is_first=carry.is_first, replay=replay, steps=np.array(steps))

    def _act_and_learn(
        self,
        carry: EnvCarry,
        replay: ReplayBuffer,
        learner: PyTree,
        episode_key: EpisodeKey,
        expert: ReplayBuffer | None,
        act_keys: Key[Array, " S"],
        learn_keys: Key[Array, " S"],
        counter: Int[Array, ""],
    ) -> tuple[Any, ...]:
        act = self._acting(self.fns.act_fn, learner, act_keys)
        carry, replay, step_log = self._collect(carry, replay, learner, episode_key, act, self._counters(counter))
        learner, metrics, check = self.fns.learn_fn(
            learner, replay, expert, learn_keys, counter // self.steps_per_update, None
        )
        return carry, replay, learner, step_log, metrics, check

    def _random_rollout(
        self,
        carry: EnvCarry,
        replay: ReplayBuffer,
        episode_key: EpisodeKey,
        actions: Float32[Array, "block_length S E A"],
    ) -> tuple[EnvCarry, ReplayBuffer, StepLog]:
        act = lambda carry, action: (action, carry.plan)  # noqa: E731
        return self._collect(carry, replay, None, episode_key, act, actions)

    def _pretrained_rollout(
        self,
        carry: EnvCarry,
        replay: ReplayBuffer,
        learner: PyTree,
        episode_key: EpisodeKey,
        act_keys: Key[Array, " S"],
        counter: Int[Array, ""],
    ) -> tuple[EnvCarry, ReplayBuffer, StepLog]:
        act = self._acting(partial(self.fns.act_fn, pretrained=True), learner, act_keys)
        return self._collect(carry, replay, learner, episode_key, act, self._counters(counter))

    def _counters(self, counter: Int[Array, ""]) -> Int[Array, " block_length"]:
        """Return the number of steps before each step of a block that begins after `counter` steps."""
        return counter + jnp.arange(self.block_length, dtype=jnp.int32) * self.envs.shape[1]

    @staticmethod
    def _acting(act_fn: Any, learner: PyTree, act_keys: Key[Array, " S"]) -> Any:
        """Return the exploring actions of `act_fn` as a function of an `EnvCarry` and the number of steps."""

        def act(carry: EnvCarry, counter):
            return act_fn(learner, carry.plan, carry.envs.obs, carry.is_first, act_keys, counter, jnp.array(True))

        return act

    def _collect(
        self, carry: EnvCarry, replay: ReplayBuffer, learner: PyTree, episode_key: EpisodeKey, act, inputs
    ) -> tuple[EnvCarry, ReplayBuffer, StepLog]:
        """Scan over `inputs` with actions `act(carry, input)`, then add the block to the replay buffer.

        `learner` may be None for an algorithm without pretraining.
        """

        def step(carry: EnvCarry, given):
            obs = carry.envs.obs
            action, plan = act(carry, given)
            action_finite = jnp.all(jnp.isfinite(action), (1, 2))
            envs, result = step_all(self.envs.env, carry.envs, action)
            needs_reset = result.needs_reset
            transition = Transition(
                obs, action, result.reward, result.obs, result.terminated, needs_reset, result.invalid, result.success
            )
            carry = EnvCarry(reset_where(self.envs.env, episode_key, envs, needs_reset), plan, needs_reset)
            return carry, (
                transition,
                StepLog(result.reward, result.success, needs_reset, result.invalid, action_finite),
            )

        carry, (block, step_log) = jax.lax.scan(step, carry, inputs)
        block = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), block)
        replay = self.fns.add_to_replay_fn(replay, block, learner)
        return carry, replay, step_log
