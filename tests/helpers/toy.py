"""Toy algorithm that compiles at once and diverges on request."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from cdred import api
from cdred.algos.base import Algorithm
from cdred.planning.mppi import MPPIState
from cdred.train import setup
from cdred.train.keys import ACT, LEARN, seed_keys


class ToyState(eqx.Module):
    weight: jax.Array
    updates: jax.Array


class Toy(Algorithm[ToyState]):
    """A weight that follows the observations, with noise, and is the action.

    Attributes:
        diverging_draws: noises for which an update or an action is not finite; each belongs to one key.
        diverging_update: number of the update that is never finite; none if negative.
    """

    uses_demos: ClassVar[bool] = True
    uses_env: ClassVar[bool] = True

    diverging_draws: tuple[float, ...] = eqx.field(static=True, default=())
    diverging_update: int = eqx.field(static=True, default=-1)
    pretraining: None = None

    def init(self, key):
        return ToyState(jax.random.normal(key, (2,)), jnp.zeros((), jnp.int32))

    def init_plan(self):
        return MPPIState.create(3, 2)

    def set_obs_stats(self, state, mean, std):
        del std
        return eqx.tree_at(lambda s: s.weight, state, state.weight + mean[:2])

    def update(self, state, batch, key):
        draw = jax.random.uniform(key)
        diverges = self._diverges(draw) | (state.updates == self.diverging_update)
        weight = 0.9 * state.weight + 0.1 * jnp.mean(batch.agent.obs) + draw - 0.5
        weight = jnp.where(diverges, jnp.inf, weight)
        metrics = {"loss": jnp.sum(weight**2), "q_scale": jnp.ones(()), "grad_norm": jnp.sum(jnp.abs(weight)) * 2.0}
        return ToyState(weight, state.updates + 1), metrics

    def diagnostics(self, state, batch, recent, valid, key):
        del state, batch, recent, valid, key
        return {}

    def act(self, state, plan, obs, key, explore):
        del explore
        draw = jax.random.uniform(key)
        action = jnp.tanh(state.weight + 0.1 * obs[:2] + draw - 0.5 + plan.mean[0])
        action = jnp.where(self._diverges(draw), jnp.nan, action)
        return action, MPPIState(plan.shifted().mean + 0.1 * action[None])

    def _diverges(self, draw):
        return jnp.any(jnp.abs(draw - jnp.array([-1.0, *self.diverging_draws])) < 1e-7)


def update_draw(seed, update, per_call=20):
    """Compute the noise of an update of a seed before its first restart."""
    call, index = divmod(update, per_call)
    key = jax.random.fold_in(seed_keys((seed,), LEARN)[0], call * per_call)
    return float(jax.random.uniform(jax.random.split(jax.random.split(key, per_call)[index], 3)[2]))


def step_draw(seed, step, purpose=ACT):
    """Compute the noise of a step of a seed in its only environment before its first restart."""
    key = jax.random.fold_in(seed_keys((seed,), purpose)[0], step)
    return float(jax.random.uniform(jax.random.split(key, 1)[0]))


def use_toy(patch, toy):
    """Make every run use `toy` instead of its algorithm, and draw no report, which takes longer than such a run."""
    patch.setattr(setup, "make_algorithm", lambda *_: toy)
    patch.setattr(api, "write_report", lambda folder: folder / "report.png")
