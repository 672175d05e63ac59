"""Training diagnostics that need no environment reward."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PyTree

from cdred.algos import losses
from cdred.algos.base import Batch, Metrics
from cdred.algos.method import encode_batch
from cdred.algos.reward_input import RewardInput, batch_input
from cdred.algos.reward_model import RewardModel
from cdred.models.actor_critic import ActorCritic
from cdred.types import Segment


def diagnostics(model: ActorCritic, reward: RewardModel | None, kind: RewardInput, batch: Batch) -> Metrics:
    """Compute the diagnostics of agents with and without a world model.

    Mean |Q| on the expert's data (where its actions are unknown, the agent's), the novelty of the expert's and of
    validation data, and the policy's action error on the latter, as far as there are any.
    """
    segments = batch.agent if batch.expert_with_actions is None else batch.expert_with_actions
    assert segments is not None, "critics are trained on the agent's own data"
    sources = {"novelty_expert": batch.expert, "novelty_validation": batch.validation}
    novelty = {name: expert_novelty(reward, model, kind, s) for name, s in sources.items() if s is not None and reward}
    metrics = {"mean_abs_q": mean_abs_q(model, segments)} | {k: v for k, v in novelty.items() if v is not None}
    if batch.validation is not None and batch.validation.has_actions:
        metrics["action_error_validation"] = action_error(model, batch.validation)
    return metrics


def action_error(model: ActorCritic, segments: Segment) -> Float[Array, ""]:
    """Compute `losses.action_error` of the policy's mode; observations are encoded without gradient."""
    absorbing = segments.absorbing[:, :-1]
    latents = jax.lax.stop_gradient(encode_batch(model, segments.start_obs, absorbing))
    return losses.action_error(jax.vmap(jax.vmap(lambda z: model.pi(z).mode))(latents), segments.action, absorbing)


def gradient_share(part: PyTree, rest: PyTree) -> Float[Array, ""]:
    """Compute |part| / (|part| + |rest|) of the norms of two gradients; not finite where both are zero."""
    norm = optax.tree.norm(part)
    return norm / (norm + optax.tree.norm(rest))


def dynamics_error_ratio(
    predicted: Float[Array, "N Z"], start: Float[Array, "N Z"], actual: Float[Array, "N Z"], valid: Bool[Array, " N"]
) -> Float[Array, ""]:
    """Compute mean |predicted - actual|^2 / mean |start - actual|^2: 1 is no better than "nothing changes".

    Only the rows marked by `valid` are used; without any the result is not finite.
    """
    error, change = (jnp.sum((z - actual) ** 2, axis=-1) for z in (predicted, start))
    return _masked_mean(error, valid) / _masked_mean(change, valid)


def mean_abs_q(model: ActorCritic, segments: Segment) -> Float[Array, ""]:
    """Compute mean |Q(z, a)| over critics and transitions."""
    z = encode_batch(model, segments.start_obs, segments.absorbing[:, :-1])
    q = jax.vmap(jax.vmap(lambda z, a: model.values(model.critics, z, a)))(z, segments.action)
    return jnp.mean(jnp.abs(q))


def expert_novelty(
    reward: RewardModel, model: ActorCritic, kind: RewardInput, segments: Segment
) -> Float[Array, ""] | None:
    """Compute the mean of `RewardModel.expert_novelty` over transitions; None where the model has none."""
    z = model.features(encode_batch(model, segments.obs, segments.absorbing))
    x = batch_input(kind, z, segments.action, z[:, 1:])
    novelty = jax.vmap(jax.vmap(reward.expert_novelty))(x)
    return None if novelty is None else jnp.mean(novelty)


def fraction_variance_unexplained(
    predicted: Float[Array, "N Z"],
    actual: Float[Array, "N Z"],
    valid: Bool[Array, " N"],
    sample: Float[Array, "M Z"],
    sample_valid: Bool[Array, " M"],
) -> Float[Array, ""]:
    """Compute mean |predicted - actual|^2 over the variance of `sample`: 0 is perfect, 1 no better than its mean.

    Only rows marked by `valid` and `sample_valid` are used; without any, or without variance, the result is not finite.
    """
    error = _masked_mean(jnp.sum((predicted - actual) ** 2, axis=-1), valid)
    centre = jax.vmap(_masked_mean, in_axes=(1, None))(sample, sample_valid)
    return error / _masked_mean(jnp.sum((sample - centre[None]) ** 2, axis=-1), sample_valid)


def _masked_mean(x: Float[Array, " N"], mask: Bool[Array, " N"]) -> Float[Array, ""]:
    return jnp.sum(jnp.where(mask, x, 0.0)) / jnp.sum(mask.astype(jnp.float32))
