"""Random expert distillation (arXiv 1905.06750) in the latent space of the world model, planned with MPPI."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cdred.algos.method import Lived
from cdred.algos.reward_agent import RewardAgent
from cdred.algos.td import Scores
from cdred.models.rewards.support import REDReward


class RED(RewardAgent[REDReward]):
    """One estimate of the expert's support is the reward; what the agent does never changes it.

    The paper fits the predictor beforehand. Here the latents move while the model learns, so the fit begins in the
    warm-up, before anyone sees the reward, and follows them.
    """

    uses_demos: ClassVar[bool] = True

    def score(self, reward: REDReward, lived: Lived, key: Key[Array, ""]) -> Scores:
        return support_scores(reward, lived.inputs, key)


def support_scores(reward: REDReward, x: Float[Array, "N H in"], key: Key[Array, ""]) -> Scores:
    """|f - f_1|^2 on the expert's segments, and exp(-sigma |f - f_1|^2) on all."""
    del key
    distance = jax.vmap(jax.vmap(reward.distance))(jax.lax.stop_gradient(x))
    expert, own = jnp.split(distance, 2)
    loss = jnp.concatenate([expert, jnp.zeros_like(own)])
    return Scores(loss, jax.lax.stop_gradient(jax.vmap(jax.vmap(reward.reward))(distance)))
