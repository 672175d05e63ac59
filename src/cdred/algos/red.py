"""Random expert distillation (arXiv 1905.06750) in the latent space of the world model, planned with MPPI."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cdred.algos.reward_agent import RewardAgent, Scores
from cdred.models.rewards.support import ExpertSupport
from cdred.types import Segment


class RED(RewardAgent[ExpertSupport]):
    """One estimate of the expert's support is the reward; what the agent does never changes it.

    The paper fits the predictor beforehand. Here the latents move while the model learns, so the fit begins in the
    warm-up, before anyone sees the reward, and follows them.
    """

    imitates: ClassVar[bool] = True

    def score(
        self, reward: ExpertSupport, latents: Float[Array, "N T Z"], segments: Segment, key: Key[Array, ""]
    ) -> Scores:
        """|f - f_1|^2 on the expert's segments, and exp(-sigma |f - f_1|^2) on all."""
        del key
        x = jax.lax.stop_gradient(jnp.concatenate([latents[:, :-1], segments.action], axis=-1))
        distance = jax.vmap(jax.vmap(reward.distance))(x)
        expert, own = jnp.split(distance, 2)
        loss = jnp.concatenate([expert, jnp.zeros_like(own)])
        return Scores(loss, jax.lax.stop_gradient(jax.vmap(jax.vmap(reward.reward))(distance)))
