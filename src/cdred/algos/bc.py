"""Behavioural cloning (BC): regression of the expert's actions."""

from collections.abc import Callable
from typing import ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from cdred.algos import losses
from cdred.algos.base import Algorithm, Batch, Metrics
from cdred.algos.pretrain import Pretraining
from cdred.models.world_model import WorldModel
from cdred.nn.image_encoder import ImageEncoder
from cdred.nn.layers import MLP
from cdred.nn.normalizer import ObsNormalizer, normalize_obs
from cdred.nn.tanh_gaussian import TanhGaussian
from cdred.planning.mppi import MPPIState
from cdred.types import ImageObs, Segment


class BCPolicy(eqx.Module):
    """Policy pi(. | h(obs)) of a world model's encoder and policy network, without the dynamics."""

    normalizer: ObsNormalizer | None
    encoder: MLP | ImageEncoder
    policy: MLP

    @classmethod
    def from_world_model(cls, model: WorldModel) -> Self:
        """Take normaliser, encoder and policy of a world model."""
        return cls(model.normalizer, model.encoder, model.policy)

    def __call__(self, obs: Float[Array, "*obs"] | ImageObs) -> TanhGaussian:
        return TanhGaussian.from_features(self.policy(self.encoder(normalize_obs(self.normalizer, obs))))


class BCState(eqx.Module):
    """Policy and optimiser state."""

    policy: BCPolicy
    opt_state: optax.OptState
    updates: Int[Array, ""]


class BC(Algorithm[BCState]):
    """BC by least squares, without stepping the environment.

    Least squares, not maximum likelihood: scripted experts often act at the bounds, where the density of a squashed
    Gaussian is unbounded and its gradient outweighs those of all other actions. Without early stopping: the loss on one
    or two validation demonstrations stops too early, and they are missed in training (docs/ablations.md).

    Attributes:
        make_model: initialises a world model from a key, of which encoder and policy are used.
        optimizer: of encoder and policy.
        horizon, action_dim: shape of the (unused) planner state.
    """

    uses_env: ClassVar[bool] = False

    make_model: Callable[..., WorldModel] = eqx.field(static=True)
    optimizer: optax.GradientTransformation = eqx.field(static=True)
    horizon: int = eqx.field(static=True)
    action_dim: int = eqx.field(static=True)
    pretraining: Pretraining | None = None

    @property
    def uses_demos(self) -> bool:
        return True

    def init(self, key: Key[Array, ""]) -> BCState:
        policy = BCPolicy.from_world_model(self.make_model(key=key))
        return BCState(policy, self.optimizer.init(_trainable(policy)), jnp.zeros((), jnp.int32))

    def init_plan(self) -> MPPIState:
        return MPPIState.create(self.horizon, self.action_dim)

    def set_obs_stats(self, state: BCState, mean: Float[Array, " obs"], std: Float[Array, " obs"]) -> BCState:
        if state.policy.normalizer is None:
            return state
        return eqx.tree_at(lambda s: s.policy.normalizer, state, state.policy.normalizer.with_stats(mean, std))

    def update(self, state: BCState, batch: Batch, key: Key[Array, ""]) -> tuple[BCState, Metrics]:
        del key
        loss, grads = jax.value_and_grad(_loss)(_trainable(state.policy), state.policy, batch.expert)
        updates, opt_state = self.optimizer.update(grads, state.opt_state)
        policy = eqx.tree_at(_trainable, state.policy, optax.apply_updates(_trainable(state.policy), updates))
        metrics = {"loss": loss, "grad_norm": optax.tree.norm(grads)}
        if batch.validation is not None:
            metrics["validation_loss"] = _loss(_trainable(policy), policy, batch.validation)
        return BCState(policy, opt_state, state.updates + 1), metrics

    def diagnostics(
        self, state: BCState, batch: Batch, recent: Segment, valid: Bool[Array, " N"], key: Key[Array, ""]
    ) -> Metrics:
        """Return no diagnostics: BC has neither critics nor dynamics."""
        del state, batch, recent, valid, key
        return {}

    def act(
        self,
        state: BCState,
        plan: MPPIState,
        obs: Float[Array, "..."] | ImageObs,
        key: Key[Array, ""],
        explore: Bool[Array, ""],
    ) -> tuple[Float[Array, " A"], MPPIState]:
        del key, explore
        return state.policy(obs).mode, plan


def _trainable(policy: BCPolicy) -> PyTree:
    return policy.encoder, policy.policy


def _loss(params: PyTree, policy: BCPolicy, segments: Segment | None) -> Float[Array, ""]:
    """Compute E |a - mode of pi(. | h(s))|^2 over the transitions of a batch, absorbing states left out."""
    assert segments is not None, "BC is trained on demonstrations"
    policy = eqx.tree_at(_trainable, policy, params)
    mode = jax.vmap(jax.vmap(lambda obs: policy(obs).mode))(segments.start_obs)
    return losses.action_error(mode, segments.action, segments.absorbing[:, :-1])
