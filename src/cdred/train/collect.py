"""Decisions in the environments: with the agent, or at random before there is one."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Key

from cdred.data.replay import Transition
from cdred.envs.grid import EnvGrid
from cdred.envs.jax_grid import Grid
from cdred.train.programs import Programs
from cdred.train.state import TrainState

OnEpisode = Callable[[int, dict[str, list[float | None]]], None]
# Entropy pool of random actions: kept apart from the grid's episode seeds by its place in the sequence.
RANDOM_ACTIONS = 0x5EED


def collect(
    programs: Programs,
    state: TrainState,
    grid: EnvGrid,
    keys: Key[Array, " S"],
    steps: int,
    *,
    random: bool,
    on_episode: OnEpisode,
) -> tuple[TrainState, Transition]:
    """`steps` decisions of every environment, exploring; the new state and the transitions `[S, steps, E, ...]`.

    Args:
        random: act uniformly at random instead of asking the agent.
        on_episode: told the decision count and the per-seed means whenever episodes end.
    """
    obs, rows = grid.reset(np.zeros(grid.shape, bool)), []
    plan, fresh, sums, decisions = state.plan, state.fresh, state.sums, int(state.decisions)
    for _ in range(steps):
        if random:
            action = random_actions(grid, decisions)
        else:
            device_action, plan = programs.act(state.learner, plan, obs, fresh, keys, np.int32(decisions), True)
            action = np.asarray(device_action)
        step = grid.step(action)
        ended = step.terminated | step.truncated
        decisions += grid.shape[1]
        rows.append(Transition(obs, action, step.reward, step.obs, step.terminated, ended))
        sums = sums.plus(step.reward, step.success)
        if ended.any():
            on_episode(decisions, sums.means(ended))
        sums, fresh = sums.where_not(ended), ended
        obs = grid.reset(ended) if ended.any() else step.obs
    block = jax.tree.map(lambda *xs: jnp.asarray(np.stack(xs, axis=1)), *rows)
    return state.replace(plan=plan, fresh=fresh, sums=sums, decisions=np.array(decisions)), block


def random_actions(grid: Grid, decisions: int) -> Float32[np.ndarray, "S E A"]:
    """Uniform actions that depend on seed and decision count alone, so that a resumed run draws them again."""
    shape = (grid.shape[1], grid.spec.action_dim)
    draw = [np.random.default_rng([RANDOM_ACTIONS, seed, decisions]).uniform(-1, 1, shape) for seed in grid.seeds]
    return np.stack(draw).astype(np.float32)
