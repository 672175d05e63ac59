"""Signs of a learner's health that need no reward from the environment (docs/health.md)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from cdred.algos.base import Batch, Metrics
from cdred.algos.method import encode
from cdred.algos.reward_model import RewardModel
from cdred.models.actor_critic import ActorCritic
from cdred.types import Segment


def signs(model: ActorCritic, reward: RewardModel | None, batch: Batch) -> Metrics:
    """The critics' scale on the expert's data (own without one), and the expert's bonus there and on held-out data."""
    shown = batch.agent if batch.expert is None else batch.expert
    assert shown is not None, "critics learn from what was lived through"
    stores = {"novelty_expert": batch.expert, "novelty_validation": batch.validation}
    bonuses = {name: expert_bonus(reward, model, one) for name, one in stores.items() if one is not None and reward}
    return {"mean_abs_q": mean_abs_q(model, shown)} | {k: v for k, v in bonuses.items() if v is not None}


def mean_abs_q(model: ActorCritic, segments: Segment) -> Float[Array, ""]:
    """mean |Q(z, a)| over critics and transitions."""
    z = encode(model, segments.obs[:, :-1], segments.absorbing[:, :-1])
    q = jax.vmap(jax.vmap(lambda z, a: model.values(model.critics, z, a)))(z, segments.action)
    return jnp.mean(jnp.abs(q))


def expert_bonus(reward: RewardModel, model: ActorCritic, segments: Segment) -> Float[Array, ""] | None:
    """The mean of `RewardModel.expert_bonus` over transitions; None where the model has none."""
    z = encode(model, segments.obs[:, :-1], segments.absorbing[:, :-1])
    x = jnp.concatenate([z, segments.action], axis=-1)
    bonus = jax.vmap(jax.vmap(reward.expert_bonus))(x)
    return None if bonus is None else jnp.mean(bonus)


def unexplained(
    predicted: Float[Array, "N Z"],
    actual: Float[Array, "N Z"],
    counts: Bool[Array, " N"],
    sample: Float[Array, "M Z"],
    sampled: Bool[Array, " M"],
) -> Float[Array, ""]:
    """mean |predicted - actual|^2 as a share of the variance of `sample`: 0 is perfect, 1 no better than its mean.

    Only rows that `counts`, and `sampled`, mark are looked at; without any, or without variance, there is no number.
    """
    error = _mean(jnp.sum((predicted - actual) ** 2, axis=-1), counts)
    centre = jax.vmap(_mean, in_axes=(1, None))(sample, sampled)
    return error / _mean(jnp.sum((sample - centre[None]) ** 2, axis=-1), sampled)


def _mean(x: Float[Array, " N"], rows: Bool[Array, " N"]) -> Float[Array, ""]:
    return jnp.sum(jnp.where(rows, x, 0.0)) / jnp.sum(rows.astype(jnp.float32))
