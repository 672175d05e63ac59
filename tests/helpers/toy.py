"""A method that learns next to nothing, compiles at once, and leaves the numbers where it is told to."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from cdred.algos.base import Algorithm
from cdred.planning.mppi import MPPIState
from cdred.train import setup
from cdred.train.compiled import ACT, LEARN, seed_keys


class ToyState(eqx.Module):
    weight: jax.Array
    updates: jax.Array


class Toy(Algorithm[ToyState]):
    """A weight follows what is seen, with noise, and is the action.

    Attributes:
        broken_draws: noises with which an update, or a step, overflows: those of one seed, one time and one key.
        broken_update: the number of an update that always does; none if negative.
    """

    uses_demos: ClassVar[bool] = True

    broken_draws: tuple[float, ...] = eqx.field(static=True, default=())
    broken_update: int = eqx.field(static=True, default=-1)

    def init(self, key):
        return ToyState(jax.random.normal(key, (2,)), jnp.zeros((), jnp.int32))

    def init_plan(self):
        return MPPIState.create(3, 2)

    def set_obs_stats(self, state, mean, std):
        del std
        return eqx.tree_at(lambda s: s.weight, state, state.weight + mean[:2])

    def update(self, state, batch, key):
        draw = jax.random.uniform(key)
        broken = self._breaks(draw) | (state.updates == self.broken_update)
        weight = 0.9 * state.weight + 0.1 * jnp.mean(batch.agent.obs) + draw - 0.5
        weight = jnp.where(broken, jnp.inf, weight)
        metrics = {"loss": jnp.sum(weight**2), "q_scale": jnp.ones(()), "grad_norm": jnp.sum(jnp.abs(weight)) * 2.0}
        return ToyState(weight, state.updates + 1), metrics

    def act(self, state, plan, obs, key, explore):
        del explore
        draw = jax.random.uniform(key)
        action = jnp.tanh(state.weight + 0.1 * obs[:2] + draw - 0.5 + plan.mean[0])
        action = jnp.where(self._breaks(draw), jnp.nan, action)
        return action, MPPIState(plan.shifted().mean + 0.1 * action[None])

    def _breaks(self, draw):
        return jnp.any(jnp.abs(draw - jnp.array([-1.0, *self.broken_draws])) < 1e-7)


def update_draw(seed, update, per_call=20):
    """The noise of a seed's update, before its first rollback."""
    call, place = divmod(update, per_call)
    key = jax.random.fold_in(seed_keys((seed,), LEARN)[0], call * per_call)
    return float(jax.random.uniform(jax.random.split(jax.random.split(key, per_call)[place], 3)[2]))


def step_draw(seed, step, purpose=ACT):
    """The noise of a seed's step in its one environment, before its first rollback."""
    key = jax.random.fold_in(seed_keys((seed,), purpose)[0], step)
    return float(jax.random.uniform(jax.random.split(key, 1)[0]))


def learn_by(patch, toy):
    """Whatever method is asked for, runs are of this one."""
    patch.setattr(setup, "make_algorithm", lambda *_: toy)
