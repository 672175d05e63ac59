"""The compiled programs of a run, each over a leading axis of S seeds: `act`, `learn`, and the small `store`.

Randomness is a function of a seed's key and a counter, so a run is resumed by knowing how far it got.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from cdred.algos.base import Algorithm, Batch
from cdred.data.replay_buffer import ReplayBuffer
from cdred.planning.mppi import MPPIState
from cdred.train.devices import SEEDS, WHOLE, shard_map_seeds
from cdred.types import Segment

# Purposes for which a seed's key is split once, so that no two of them share randomness.
INIT, ACT, LEARN, EVALUATE, DIAGNOSTICS = range(5)


def seed_keys(seeds: tuple[int, ...], purpose: int) -> Key[Array, " S"]:
    """One key per seed for one purpose; that of a seed does not depend on the others."""
    return jax.vmap(lambda s: jax.random.fold_in(jax.random.key(s), purpose))(jnp.array(seeds, jnp.uint32))


class FiniteCheck(NamedTuple):
    """Whether a seed's `learn` call stayed within the numbers, and if not, where it left them.

    Attributes:
        finite: whether every metric of every update is, and whatever the learner holds afterwards.
        lasted: per metric, the updates of the call before it was not finite for the first time; all of them if never.
        before: the metrics of the update before the first such one; of the call's last if there is none.
        parameter_absmax: largest absolute value that the learner holds, optimisers and averages included.
    """

    finite: Bool[Array, "..."]
    lasted: dict[str, Int[Array, "..."]]
    before: dict[str, Float[Array, "..."]]
    parameter_absmax: Float[Array, "..."]


def judge(learner: PyTree, metrics: dict[str, Float[Array, " K"]]) -> FiniteCheck:
    """The verdict on K updates that reported `metrics` and led to `learner`, for one seed."""
    lasted = {name: jnp.sum(jnp.cumprod(jnp.isfinite(x).astype(jnp.int32))) for name, x in metrics.items()}
    first = jnp.min(jnp.stack(list(lasted.values())))
    before = {name: x[jnp.maximum(first - 1, 0)] for name, x in metrics.items()}
    held = [jnp.max(jnp.abs(x)) for x in jax.tree.leaves(eqx.filter(learner, eqx.is_inexact_array))]
    absmax = jnp.max(jnp.stack(held))
    (updates,) = next(iter(metrics.values())).shape
    return FiniteCheck((first == updates) & jnp.isfinite(absmax), lasted, before, absmax)


class CompiledFns:
    """Jitted functions of one method at one size. `act` and `learn` compile once each.

    `acting` and `learning` are what they compile, for programs that contain them.

    Args:
        algorithm: the method.
        horizon: transitions per training segment, H.
        batch_size: segments per update and store.
        updates: gradient steps per `learn` call.
        mesh: devices that share the seeds out among them; None for the default one alone.
    """

    def __init__(self, algorithm: Algorithm, *, horizon: int, batch_size: int, updates: int, mesh: Mesh | None = None):
        self.algorithm, self.horizon, self.batch_size, self.updates = algorithm, horizon, batch_size, updates
        self.mesh = mesh

        def program(function, *arguments, donate: tuple[int, ...] = ()):
            return jax.jit(shard_map_seeds(function, mesh, arguments), donate_argnums=donate)

        self.init = program(jax.vmap(algorithm.init), SEEDS)
        self.act = program(self.acting, SEEDS, SEEDS, SEEDS, SEEDS, SEEDS, WHOLE, WHOLE, donate=(1,))
        self.learn = program(self.learning, SEEDS, SEEDS, WHOLE, SEEDS, WHOLE, WHOLE, donate=(0,))
        self.set_obs_stats = program(self._set_obs_stats, SEEDS, SEEDS, WHOLE, donate=(0,))
        self.diagnose = program(self._diagnose, SEEDS, SEEDS, WHOLE, SEEDS, WHOLE, WHOLE)
        self.choose = program(_choose, SEEDS, SEEDS, SEEDS, donate=(2,))
        self.store = program(jax.vmap(ReplayBuffer.add), SEEDS, SEEDS, donate=(0,))

    def init_plan(self, num_seeds: int, num_envs: int) -> MPPIState:
        """Plans for [S, E] environments, as at an episode's first step."""
        plan = self.algorithm.init_plan()
        return jax.tree.map(lambda x: jnp.zeros((num_seeds, num_envs, *x.shape), x.dtype) + x[None, None], plan)

    def acting(
        self,
        learner,
        plan: MPPIState,
        obs: Float[Array, "S E ..."],
        fresh: Bool[Array, "S E"],
        keys: Key[Array, " S"],
        counter: Int[Array, ""],
        explore: Bool[Array, ""],
    ) -> tuple[Float[Array, "S E A"], MPPIState]:
        """Actions of all environments of all seeds; `fresh` marks those at an episode's first step."""

        def one_env(learner, plan, obs, fresh, key):
            start = self.algorithm.init_plan()
            plan = jax.tree.map(lambda new, old: jnp.where(fresh, new, old), start, plan)
            return self.algorithm.act(learner, plan, obs, key, explore)

        def select_seed(learner, plan, obs, fresh, key):
            env_keys = jax.random.split(jax.random.fold_in(key, counter), obs.shape[0])
            return jax.vmap(partial(one_env, learner))(plan, obs, fresh, env_keys)

        return jax.vmap(select_seed)(learner, plan, obs, fresh, keys)

    def learning(
        self,
        learner,
        replay: ReplayBuffer,
        expert: ReplayBuffer | None,
        keys: Key[Array, " S"],
        counter: Int[Array, ""],
        validation: ReplayBuffer | None,
    ) -> tuple[eqx.Module, dict[str, Float[Array, " S"]], FiniteCheck]:
        """`updates` gradient steps per seed. The expert's stores, if any, have no seed axis: all seeds share them.

        Metrics are means over the updates, but for `grad_norm_max`. What they hide of a single update the verdict says.
        """
        sample_expert = self._sampler(expert)
        sample_held_out = self._sampler(validation if self.algorithm.uses_validation_demos else None)

        def select_seed(learner, replay, key):
            sample_own = self._sampler(replay if self.algorithm.uses_env else None)

            def step(learner, key):
                expert_key, own_key, update_key = jax.random.split(key, 3)
                held_out_key = jax.random.fold_in(key, 3)
                batch = Batch(sample_expert(expert_key), sample_own(own_key), sample_held_out(held_out_key))
                return self.algorithm.update(learner, batch, update_key)

            keys = jax.random.split(jax.random.fold_in(key, counter), self.updates)
            learner, metrics = jax.lax.scan(step, learner, keys)
            summary = {name: jnp.mean(value) for name, value in metrics.items()}
            summary["grad_norm_max"] = jnp.max(metrics["grad_norm"])
            return learner, summary, judge(learner, metrics)

        return jax.vmap(select_seed)(learner, replay, keys)

    def _diagnose(
        self,
        learner,
        replay: ReplayBuffer,
        expert: ReplayBuffer | None,
        keys: Key[Array, " S"],
        counter: Int[Array, ""],
        validation: ReplayBuffer | None,
    ) -> dict[str, Float[Array, " S"]]:
        """`Algorithm.diagnostics` of every seed; arguments as for `learning`, from whose randomness its own is apart."""
        samplers = self._sampler(expert), self._sampler(validation)

        def select_seed(learner, replay, key):
            expert_key, own_key, held_out_key = jax.random.split(jax.random.fold_in(key, counter), 3)
            own = self._sampler(replay)(own_key)
            batch = Batch(samplers[0](expert_key), own, samplers[1](held_out_key))
            lanes = replay.time.shape[0]
            newest, there = replay.newest(max(1, self.batch_size // lanes), self.horizon)
            return self.algorithm.diagnostics(learner, batch, newest, there)

        return jax.vmap(select_seed)(learner, replay, keys)

    def _set_obs_stats(self, learner, replay: ReplayBuffer, expert: ReplayBuffer | None):
        """The learners told how the observations in their stores are distributed, both stores counting the same."""

        def select_seed(learner, replay):
            stores = (replay if self.algorithm.uses_env else None, expert)
            moments = [store.obs_stats() for store in stores if store is not None]
            means, variances = (jnp.stack(of_stores) for of_stores in zip(*moments, strict=True))
            mean = jnp.mean(means, axis=0)
            variance = jnp.mean(variances + (means - mean[None]) ** 2, axis=0)
            return self.algorithm.set_obs_stats(learner, mean, jnp.sqrt(variance))

        return jax.vmap(select_seed)(learner, replay)

    def _sampler(self, replay: ReplayBuffer | None) -> Callable[[Key[Array, ""]], Segment | None]:
        """Draws batches from a store that stays as it is; None from no store."""
        if replay is None:
            return lambda _: None
        index = replay.index(self.horizon)
        return lambda key: replay.sample(index, key, self.batch_size, self.horizon)


def _choose(mask: Bool[Array, " S"], new: PyTree, old: PyTree) -> PyTree:
    """The seeds of `new` where `mask` holds, elsewhere those of `old`."""
    return jax.tree.map(lambda n, o: jnp.where(mask.reshape(-1, *(1,) * (o.ndim - 1)), n, o), new, old)
