"""A trained agent, alone: observation in, action out."""

from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, PyTree

from cdred.algos.base import Algorithm
from cdred.algos.world_model_agent import WorldModelAgent
from cdred.config import RunConfig
from cdred.errors import UserError
from cdred.train.compiled import EVALUATE, seed_keys
from cdred.types import EnvSpec


class Agent:
    """One seed's agent with the memory of its planner.

    Args:
        algorithm: the method.
        learner: its state, for one seed.
        spec: the task.
        seed: of the planner's randomness.
    """

    def __init__(self, algorithm: Algorithm, learner: PyTree, spec: EnvSpec, seed: int = 0):
        self.spec, self._algorithm, self._learner = spec, algorithm, learner
        self._key = seed_keys((seed,), EVALUATE)[0]
        self._act = eqx.filter_jit(jax.vmap(algorithm.act, in_axes=(None, 0, 0, 0, None)))
        if isinstance(algorithm, WorldModelAgent):
            self._reward = eqx.filter_jit(jax.vmap(algorithm.reward_at, in_axes=(None, 0, 0)))
        self.reset()

    def reset(self) -> Self:
        """Forget the last plan: call it at the beginning of an episode."""
        self._plan, self._decision = None, 0
        return self

    def act(self, obs: Float[np.ndarray, "..."], *, explore: bool = False) -> Float32[np.ndarray, "..."]:
        """The action in [-1, 1] for an observation `[*obs]`, or actions for a batch `[B, *obs]` of environments.

        Raises:
            UserError: the observation has another shape than the task's.
        """
        obs = np.asarray(obs, np.float32)
        batched = obs.ndim > len(self.spec.obs_shape)
        rows = jnp.asarray(obs if batched else obs[None])
        if rows.shape[1:] != self.spec.obs_shape:
            raise UserError(f"expected an observation of shape {self.spec.obs_shape} (or a batch), got {obs.shape}.")
        keys = jax.random.split(jax.random.fold_in(self._key, self._decision), len(rows))
        action, self._plan = self._act(self._learner, self._plan_for(len(rows)), rows, keys, jnp.array(explore))
        self._decision += 1
        return np.asarray(action) if batched else np.asarray(action)[0]

    def reward(self, obs: Float[np.ndarray, "B *obs"], action: Float[np.ndarray, "B A"]) -> Float32[np.ndarray, " B"]:
        """What the agent's planner thinks that doing `action` at `obs` is worth at once: its learned reward.

        Raises:
            UserError: the method has no world model, or the arrays have other shapes than the task's.
        """
        if not isinstance(self._algorithm, WorldModelAgent):
            raise UserError("only methods with a world model say what they think of an action.")
        expected = (self.spec.obs_shape, (self.spec.action_dim,))
        obs, action = np.asarray(obs, np.float32), np.asarray(action, np.float32)
        if (obs.shape[1:], action.shape[1:]) != expected or len(obs) != len(action):
            raise UserError(f"expected [B, ...] arrays of {expected}, got {obs.shape} and {action.shape}.")
        return np.asarray(self._reward(self._learner, jnp.asarray(obs), jnp.asarray(action)))

    def _plan_for(self, num_envs: int) -> PyTree:
        if self._plan is None:
            start = self._algorithm.init_plan()
            return jax.tree.map(lambda x: jnp.broadcast_to(x, (num_envs, *x.shape)), start)
        held = jax.tree.leaves(self._plan)[0].shape[0]
        if held != num_envs:
            raise UserError(f"the last call had {held} environments, this one has {num_envs}: call reset() in between.")
        return self._plan


def select_seed(learner: PyTree, config: RunConfig, seed: int | None) -> tuple[PyTree, int]:
    """One seed's learner out of a run's, the first by default.

    Raises:
        UserError: the run has no such seed.
    """
    seed = config.seeds[0] if seed is None else seed
    if seed not in config.seeds:
        raise UserError(f"this run has the seeds {list(config.seeds)}, not {seed}.")
    return jax.tree.map(lambda x: x[config.seeds.index(seed)], learner), seed
