"""The compiled programs of a run, each over a leading axis of S seeds: `act`, `learn`, and the small `store`.

Randomness is a function of a seed's key and a counter, so a run is resumed by knowing how far it got.
"""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from cdred.algos.base import Algorithm, Batch
from cdred.data.replay import Replay
from cdred.planning.mppi import PlanState
from cdred.types import Segment

# Purposes for which a seed's key is split once, so that no two of them share randomness.
INIT, ACT, LEARN, EVALUATE = range(4)


def seed_keys(seeds: tuple[int, ...], purpose: int) -> Key[Array, " S"]:
    """One key per seed for one purpose; that of a seed does not depend on the others."""
    return jax.vmap(lambda s: jax.random.fold_in(jax.random.key(s), purpose))(jnp.array(seeds, jnp.uint32))


class Programs:
    """Jitted functions of one method at one size. `act` and `learn` compile once each.

    Args:
        algorithm: the method.
        horizon: transitions per training segment, H.
        batch_size: segments per update and store.
        updates: gradient steps per `learn` call.
    """

    def __init__(self, algorithm: Algorithm, *, horizon: int, batch_size: int, updates: int):
        self.algorithm, self.horizon, self.batch_size, self.updates = algorithm, horizon, batch_size, updates
        self.init = jax.jit(jax.vmap(algorithm.init))
        self.act = jax.jit(self._act, donate_argnames="plan")
        self.learn = jax.jit(self._learn, donate_argnames="learner")
        self.standardise = jax.jit(self._standardise, donate_argnames="learner")
        self.store = jax.jit(jax.vmap(Replay.add), donate_argnums=0)

    def init_plan(self, num_seeds: int, num_envs: int) -> PlanState:
        """Plans for [S, E] environments, as at an episode's first decision."""
        plan = self.algorithm.init_plan()
        return jax.tree.map(lambda x: jnp.zeros((num_seeds, num_envs, *x.shape), x.dtype) + x[None, None], plan)

    def _act(
        self,
        learner,
        plan: PlanState,
        obs: Float[Array, "S E ..."],
        fresh: Bool[Array, "S E"],
        keys: Key[Array, " S"],
        counter: Int[Array, ""],
        explore: Bool[Array, ""],
    ) -> tuple[Float[Array, "S E A"], PlanState]:
        """Actions of all environments of all seeds; `fresh` marks those at an episode's first decision."""

        def one_env(learner, plan, obs, fresh, key):
            start = self.algorithm.init_plan()
            plan = jax.tree.map(lambda new, old: jnp.where(fresh, new, old), start, plan)
            return self.algorithm.act(learner, plan, obs, key, explore)

        def one_seed(learner, plan, obs, fresh, key):
            env_keys = jax.random.split(jax.random.fold_in(key, counter), obs.shape[0])
            return jax.vmap(partial(one_env, learner))(plan, obs, fresh, env_keys)

        return jax.vmap(one_seed)(learner, plan, obs, fresh, keys)

    def _learn(
        self,
        learner,
        replay: Replay,
        expert: Replay | None,
        keys: Key[Array, " S"],
        counter: Int[Array, ""],
        held_out: Replay | None = None,
    ) -> tuple[eqx.Module, dict[str, Float[Array, " S"]]]:
        """`updates` gradient steps per seed. The expert's stores, if any, have no seed axis: all seeds share them.

        Metrics are means over the updates, but for `grad_norm_max`.
        """
        sample_expert, sample_held_out = self._sampler(expert), self._sampler(held_out)

        def one_seed(learner, replay, key):
            sample_own = self._sampler(replay if self.algorithm.interacts else None)

            def step(learner, key):
                expert_key, own_key, update_key = jax.random.split(key, 3)
                held_out_key = jax.random.fold_in(key, 3)
                batch = Batch(sample_expert(expert_key), sample_own(own_key), sample_held_out(held_out_key))
                return self.algorithm.update(learner, batch, update_key)

            keys = jax.random.split(jax.random.fold_in(key, counter), self.updates)
            learner, metrics = jax.lax.scan(step, learner, keys)
            summary = {name: jnp.mean(value) for name, value in metrics.items()}
            return learner, summary | {"grad_norm_max": jnp.max(metrics["grad_norm"])}

        return jax.vmap(one_seed)(learner, replay, keys)

    def _standardise(self, learner, replay: Replay, expert: Replay | None):
        """The learners told how the observations in their stores are distributed, both stores counting the same."""

        def one_seed(learner, replay):
            stores = (replay if self.algorithm.interacts else None, expert)
            moments = [store.obs_moments() for store in stores if store is not None]
            means, variances = (jnp.stack(of_stores) for of_stores in zip(*moments, strict=True))
            mean = jnp.mean(means, axis=0)
            variance = jnp.mean(variances + (means - mean[None]) ** 2, axis=0)
            return self.algorithm.standardise(learner, mean, jnp.sqrt(variance))

        return jax.vmap(one_seed)(learner, replay)

    def _sampler(self, replay: Replay | None) -> Callable[[Key[Array, ""]], Segment | None]:
        """Draws batches from a store that stays as it is; None from no store."""
        if replay is None:
            return lambda _: None
        index = replay.index(self.horizon)
        return lambda key: replay.sample(index, key, self.batch_size, self.horizon)
