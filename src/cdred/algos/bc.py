"""Behavioural cloning (BC): regression of the expert's actions."""

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

# The loss of one validation batch is noisy: early stopping looks at an average of about ten.
VALIDATION_EMA_RATE = 0.1


class BCPolicy(eqx.Module):
    """Policy pi(. | h(obs)) of a world model's encoder and policy network, without the dynamics."""

    normalizer: ObsNormalizer | None
    encoder: MLP
    policy: MLP

    @classmethod
    def from_world_model(cls, model: WorldModel) -> Self:
        """Take normaliser, encoder and policy of a world model."""
        return cls(model.normalizer, model.encoder, model.policy)

    def __call__(self, obs: Float[Array, "*obs"]) -> TanhGaussian:
        flat = obs.reshape(-1)
        return TanhGaussian.from_features(
            self.policy(self.encoder(flat if self.normalizer is None else self.normalizer(flat)))
        )


class BCState(eqx.Module):
    """Policy in training, and the policy of the lowest validation loss."""

    policy: BCPolicy
    best: BCPolicy
    validation_loss: Float[Array, ""]
    best_loss: Float[Array, ""]
    opt_state: optax.OptState
    updates: Int[Array, ""]


class BC(Algorithm[BCState]):
    """BC by least squares with early stopping, without stepping the environment.

    Least squares, not maximum likelihood: scripted experts often act at the bounds, where the density of a squashed
    Gaussian is unbounded and its gradient outweighs those of all other actions (docs/ablations.md).

    Attributes:
        make_model: initialises a world model from a key, of which encoder and policy are used.
        optimizer: of encoder and policy.
        horizon, action_dim: shape of the (unused) planner state.
    """

    uses_env: ClassVar[bool] = False
    uses_validation_demos: ClassVar[bool] = True

    make_model: Callable[..., WorldModel] = eqx.field(static=True)
    optimizer: optax.GradientTransformation = eqx.field(static=True)
    horizon: int = eqx.field(static=True)
    action_dim: int = eqx.field(static=True)

    @property
    def uses_demos(self) -> bool:
        return True

    def init(self, key: Key[Array, ""]) -> BCState:
        policy = BCPolicy.from_world_model(self.make_model(key=key))
        return BCState(
            policy=policy,
            # A copy, so that no buffer is donated twice.
            best=jax.tree.map(jnp.copy, policy),
            validation_loss=jnp.zeros(()),
            best_loss=jnp.full((), jnp.inf),
            opt_state=self.optimizer.init(_trainable(policy)),
            updates=jnp.zeros((), jnp.int32),
        )

    def init_plan(self) -> MPPIState:
        return MPPIState.create(self.horizon, self.action_dim)

    def set_obs_stats(self, state: BCState, mean: Float[Array, " obs"], std: Float[Array, " obs"]) -> BCState:
        if state.policy.normalizer is None:
            return state
        normalizer = ObsNormalizer.from_stats(mean, std)
        new = (normalizer, jax.tree.map(jnp.copy, normalizer))
        return eqx.tree_at(lambda s: (s.policy.normalizer, s.best.normalizer), state, new)

    def update(self, state: BCState, batch: Batch, key: Key[Array, ""]) -> tuple[BCState, Metrics]:
        del key
        loss, grads = jax.value_and_grad(_loss)(_trainable(state.policy), state.policy, batch.expert)
        updates, opt_state = self.optimizer.update(grads, state.opt_state)
        policy = eqx.tree_at(_trainable, state.policy, optax.apply_updates(_trainable(state.policy), updates))
        validation = _loss(_trainable(policy), policy, batch.validation)
        average = jnp.where(state.updates == 0, validation, ema(state.validation_loss, validation, VALIDATION_EMA_RATE))
        improved = average < state.best_loss
        new = BCState(
            policy=policy,
            best=jax.tree.map(lambda now, best: jnp.where(improved, now, best), policy, state.best),
            validation_loss=average,
            best_loss=jnp.minimum(average, state.best_loss),
            opt_state=opt_state,
            updates=state.updates + 1,
        )
        return new, {"loss": loss, "validation_loss": average, "grad_norm": optax.tree.norm(grads)}

    def diagnostics(self, state: BCState, batch: Batch, recent: Segment, valid: Bool[Array, " N"]) -> Metrics:
        """Return no diagnostics: BC has neither critics nor dynamics."""
        del state, batch, recent, valid
        return {}

    def act(
        self, state: BCState, plan: MPPIState, obs: Float[Array, "..."], key: Key[Array, ""], explore: Bool[Array, ""]
    ) -> tuple[Float[Array, " A"], MPPIState]:
        del key, explore
        return state.best(obs).mode, plan


def _trainable(policy: BCPolicy) -> PyTree:
    return policy.encoder, policy.policy


def _loss(params: PyTree, policy: BCPolicy, segments: Segment | None) -> Float[Array, ""]:
    """Compute E |a - mode of pi(. | h(s))|^2 over the transitions of a batch, absorbing states left out."""
    assert segments is not None, "BC needs demonstrations for training and for validation"
    policy = eqx.tree_at(_trainable, policy, params)
    distance = jax.vmap(jax.vmap(lambda obs, action: jnp.sum((policy(obs).mode - action) ** 2)))
    valid = ~segments.absorbing[:, :-1]
    total = jnp.sum(jnp.where(valid, distance(segments.obs[:, :-1], segments.action), 0.0))
    return total / jnp.sum(valid.astype(jnp.float32))
