"""Collection of env steps with simulators on the host, by the agent, its pretrained policy or a random policy."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, PyTree

from cdred.data.replay_buffer import Transition
from cdred.envs.make import AnyVectorEnv
from cdred.envs.vector_env import VectorEnv
from cdred.train.compiled import CompiledFns
from cdred.train.finite import finite_rows
from cdred.train.keys import RunKeys
from cdred.train.state import TrainState

ActFn = Callable[[TrainState, Any], tuple[TrainState, Float32[np.ndarray, "S E A"]]]
RestartFn = Callable[[TrainState, Bool[np.ndarray, " S"]], TrainState]
OnEpisode = Callable[[int, dict[str, list[float | None]]], None]
# First entropy word of random actions; the entropy of episode seeds starts with the seed instead.
RANDOM_ACTIONS = 0x5EED


def collect(
    state: TrainState, envs: VectorEnv, act: ActFn, block_length: int, *, on_episode: OnEpisode
) -> tuple[TrainState, Transition]:
    """Step every environment `block_length` times.

    Args:
        state: state of the run.
        envs: the environments.
        act: returns the actions for the state and the observations; may change learner and plan.
        block_length: steps per environment.
        on_episode: called with the step count and the per-seed means whenever episodes end; not for aborted ones.

    Returns:
        The new state and the transitions `[S, block_length, E, ...]`, in host memory.

    Raises:
        SimulatorError: as `VectorEnv.step`; `state` stays valid.
    """
    obs, rows = envs.reset(np.zeros(envs.shape, bool)), []
    # `CompiledFns.act` donates the plan; that of the caller's state must stay valid.
    state = state.replace(plan=jax.tree.map(jnp.copy, state.plan))
    for _ in range(block_length):
        state, action = act(state, obs)
        step = envs.step(action)
        steps, stats = int(state.steps) + envs.shape[1], state.episode_stats.update(step.reward, step.success)
        needs_reset = step.needs_reset
        rows.append(
            Transition(obs, action, step.reward, step.obs, step.terminated, needs_reset, step.invalid, step.success)
        )
        if step.done.any():
            on_episode(steps, stats.finished_means(step.done))
        stats = stats.reset_where(needs_reset)
        state = state.replace(is_first=needs_reset, episode_stats=stats, steps=np.array(steps))
        obs = envs.reset(needs_reset) if needs_reset.any() else step.obs
    return state, jax.tree.map(lambda *xs: np.stack(xs, axis=1), *rows)


def exploring_policy(fns: CompiledFns, keys: RunKeys, restart: RestartFn) -> ActFn:
    """Make the agent's policy with exploration.

    Args:
        fns: compiled functions of the run.
        keys: keys of the run.
        restart: restarts the seeds of a mask from their last good state and changes their keys. It is called for seeds
            with a non-finite action, which then plan from scratch.
    """

    def act(state: TrainState, plan: PyTree, obs: np.ndarray, is_first: Bool[np.ndarray | Array, "S E"]):
        return fns.act(state.learner, plan, obs, is_first, keys.act, np.int32(state.steps), True)

    def policy(state: TrainState, obs: np.ndarray) -> tuple[TrainState, np.ndarray]:
        device_action, plan = act(state, state.plan, obs, state.is_first)
        action = np.asarray(device_action)
        while (failed := ~finite_rows(action)).any():
            state = restart(state, failed)
            retry, retry_plan = act(state, fns.init_plan(*state.is_first.shape), obs, np.ones_like(state.is_first))
            plan = fns.select_seeds(failed, retry_plan, plan)
            action = np.where(failed[:, None, None], retry, action)
        return state.replace(plan=plan), action

    return policy


def pretrained_policy(fns: CompiledFns, keys: RunKeys) -> ActFn:
    """Make the pretrained policy with noise."""

    def policy(state: TrainState, obs: np.ndarray) -> tuple[TrainState, np.ndarray]:
        args = (state.learner, state.plan, obs, state.is_first, keys.act, np.int32(state.steps), True)
        action, plan = fns.act_pretrained(*args)
        return state.replace(plan=plan), np.asarray(action)

    return policy


def random_policy(envs: AnyVectorEnv) -> ActFn:
    """Make the policy of uniform actions."""
    return lambda state, _obs: (state, random_actions(envs, int(state.steps)))


def random_actions(envs: AnyVectorEnv, steps: int) -> Float32[np.ndarray, "S E A"]:
    """Draw uniform actions as a function of seed and step count only, so that a resumed run draws the same ones."""
    shape = (envs.shape[1], envs.spec.action_dim)
    actions = [np.random.default_rng([RANDOM_ACTIONS, seed, steps]).uniform(-1, 1, shape) for seed in envs.seeds]
    return np.stack(actions).astype(np.float32)
