"""Behavioural cloning: what the expert did, where the expert was, and nothing else."""

from collections.abc import Callable
from typing import ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from cdred.algos.base import Algorithm, Batch, Metrics
from cdred.models.world_model import WorldModel
from cdred.nn.layers import MLP, ema
from cdred.nn.normalizer import ObsNormalizer
from cdred.nn.tanh_gaussian import TanhGaussian
from cdred.planning.mppi import MPPIState
from cdred.types import Segment

# A held-out batch is a small sample: what decides is a mean over about ten of them.
VALIDATION_RATE = 0.1


class Clone(eqx.Module):
    """The world model's encoder and prior, without a world between them: pi(. | h(obs))."""

    normalizer: ObsNormalizer | None
    encoder: MLP
    policy: MLP

    @classmethod
    def of(cls, model: WorldModel) -> Self:
        """What a clone needs of a world model."""
        return cls(model.normalizer, model.encoder, model.policy)

    def __call__(self, obs: Float[Array, "*obs"]) -> TanhGaussian:
        flat = obs.reshape(-1)
        return TanhGaussian.from_features(
            self.policy(self.encoder(flat if self.normalizer is None else self.normalizer(flat)))
        )


class CloneState(eqx.Module):
    """The clone as it learns, and as it was when it did best on the demonstrations that were held out."""

    clone: Clone
    best: Clone
    validation_loss: Float[Array, ""]
    best_loss: Float[Array, ""]
    opt: optax.OptState
    updates: Int[Array, ""]


class BC(Algorithm[CloneState]):
    """The expert's actions by least squares, with early stopping. No environment is stepped while it learns.

    Not by likelihood: scripted experts often act at the bounds, where a squashed Gaussian's density has no limit, and
    its gradient drowns the other actions' (results/peers).

    Attributes:
        make_model: builds a fresh world model from a key, of which the clone is a part.
        horizon, action_dim: of the plan that it does not make.
    """

    uses_demos: ClassVar[bool] = True
    uses_env: ClassVar[bool] = False
    uses_validation_demos: ClassVar[bool] = True

    make_model: Callable[..., WorldModel] = eqx.field(static=True)
    optimiser: optax.GradientTransformation = eqx.field(static=True)
    horizon: int = eqx.field(static=True)
    action_dim: int = eqx.field(static=True)

    def init(self, key: Key[Array, ""]) -> CloneState:
        clone = Clone.of(self.make_model(key=key))
        return CloneState(
            clone=clone,
            # A copy, so that donated buffers are never given away twice.
            best=jax.tree.map(jnp.copy, clone),
            validation_loss=jnp.zeros(()),
            best_loss=jnp.full((), jnp.inf),
            opt=self.optimiser.init(_learned(clone)),
            updates=jnp.zeros((), jnp.int32),
        )

    def init_plan(self) -> MPPIState:
        return MPPIState.create(self.horizon, self.action_dim)

    def set_obs_stats(self, state: CloneState, mean, std) -> CloneState:
        if state.clone.normalizer is None:
            return state
        fitted = ObsNormalizer.fitted(mean, std)
        return eqx.tree_at(
            lambda s: (s.clone.normalizer, s.best.normalizer), state, (fitted, jax.tree.map(jnp.copy, fitted))
        )

    def update(self, state: CloneState, batch: Batch, key: Key[Array, ""]) -> tuple[CloneState, Metrics]:
        del key
        loss, grads = jax.value_and_grad(_loss)(_learned(state.clone), state.clone, batch.expert)
        updates, opt = self.optimiser.update(grads, state.opt)
        clone = eqx.tree_at(_learned, state.clone, optax.apply_updates(_learned(state.clone), updates))
        validation = _loss(_learned(clone), clone, batch.validation)
        average = jnp.where(state.updates == 0, validation, ema(state.validation_loss, validation, VALIDATION_RATE))
        better = average < state.best_loss
        new = CloneState(
            clone=clone,
            best=jax.tree.map(lambda now, then: jnp.where(better, now, then), clone, state.best),
            validation_loss=average,
            best_loss=jnp.minimum(average, state.best_loss),
            opt=opt,
            updates=state.updates + 1,
        )
        return new, {"loss": loss, "validation_loss": average, "grad_norm": optax.tree.norm(grads)}

    def act(
        self,
        state: CloneState,
        plan: MPPIState,
        obs: Float[Array, "..."],
        key: Key[Array, ""],
        explore: Bool[Array, ""],
    ) -> tuple[Float[Array, " A"], MPPIState]:
        del key, explore
        return state.best(obs).mode, plan


def _learned(clone: Clone) -> PyTree:
    return clone.encoder, clone.policy


def _loss(learned: PyTree, clone: Clone, segments: Segment | None) -> Float[Array, ""]:
    """E |a - mode of pi(. | h(s))|^2; where the world has ended nobody acts."""
    assert segments is not None, "BC learns from demonstrations, and is given held-out ones"
    clone = eqx.tree_at(_learned, clone, learned)
    distance = jax.vmap(jax.vmap(lambda obs, action: jnp.sum((clone(obs).mode - action) ** 2)))
    acting = ~segments.absorbing[:, :-1]
    total = jnp.sum(jnp.where(acting, distance(segments.obs[:, :-1], segments.action), 0.0))
    return total / jnp.sum(acting.astype(jnp.float32))
