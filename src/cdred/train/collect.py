"""Steps in the environments: by the agent, or at random before there is one."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from cdred.data.replay_buffer import Transition
from cdred.envs.jax_vector_env import Grid
from cdred.envs.vector_env import VectorEnv
from cdred.train.state import TrainState

Decide = Callable[[TrainState, Float32[np.ndarray, "S E ..."]], tuple[TrainState, Float32[np.ndarray, "S E A"]]]
OnEpisode = Callable[[int, dict[str, list[float | None]]], None]
# Entropy pool of random actions: kept apart from the grid's episode seeds by its place in the sequence.
RANDOM_ACTIONS = 0x5EED


def collect(
    state: TrainState, grid: VectorEnv, decide: Decide, block_length: int, *, on_episode: OnEpisode
) -> tuple[TrainState, Transition]:
    """`block_length` steps of every environment; the new state and the transitions `[S, block_length, E, ...]`.

    Args:
        decide: the actions, given the state so far and the observations; it may change learner and plan.
        on_episode: told the step count and the per-seed means whenever episodes come to their end; of those given
            up it is not told.

    Raises:
        SimulatorError: as `VectorEnv.step`; `state` is then still good.
    """
    obs, rows = grid.reset(np.zeros(grid.shape, bool)), []
    # `act` takes the plan that it is given for its own.
    state = state.replace(plan=jax.tree.map(jnp.copy, state.plan))
    for _ in range(block_length):
        state, action = decide(state, obs)
        step = grid.step(action)
        steps, sums = int(state.steps) + grid.shape[1], state.sums.plus(step.reward, step.success)
        rows.append(Transition(obs, action, step.reward, step.obs, step.terminated, step.ended, step.void))
        if step.finished.any():
            on_episode(steps, sums.means(step.finished))
        ended = step.ended
        state = state.replace(fresh=ended, sums=sums.where_not(ended), steps=np.array(steps))
        obs = grid.reset(ended) if ended.any() else step.obs
    block = jax.tree.map(lambda *xs: jnp.asarray(np.stack(xs, axis=1)), *rows)
    return state, block


def at_random(grid: Grid) -> Decide:
    """Uniform actions, whatever is seen."""
    return lambda state, _obs: (state, random_actions(grid, int(state.steps)))


def random_actions(grid: Grid, steps: int) -> Float32[np.ndarray, "S E A"]:
    """Uniform actions that depend on seed and step count alone, so that a resumed run draws them again."""
    shape = (grid.shape[1], grid.spec.action_dim)
    draw = [np.random.default_rng([RANDOM_ACTIONS, seed, steps]).uniform(-1, 1, shape) for seed in grid.seeds]
    return np.stack(draw).astype(np.float32)
