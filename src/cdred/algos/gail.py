"""Generative adversarial imitation (arXiv 1606.03476) in the latent space of the world model, planned with MPPI."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cdred.algos.losses import gradient_penalty
from cdred.algos.reward_agent import RewardAgent, Scores
from cdred.models.rewards.discriminator import Discriminator, adversarial_loss
from cdred.types import Segment


class GAIL(RewardAgent[Discriminator]):
    """A discriminator tells the expert's (z, a) from the agent's own; its logit is the reward (DAC, arXiv 1809.02925).

    Attributes:
        gradient_penalty: weight of the discriminator's gradient penalty.
    """

    imitates: ClassVar[bool] = True

    gradient_penalty: float = eqx.field(static=True)

    def score(
        self, reward: Discriminator, latents: Float[Array, "N T Z"], segments: Segment, key: Key[Array, ""]
    ) -> Scores:
        """The discriminator's cross-entropy and penalty; it follows the latent space and does not shape it."""
        x = jax.lax.stop_gradient(jnp.concatenate([latents[:, :-1], segments.action], axis=-1))
        logits = jax.vmap(jax.vmap(reward))(x)
        loss = adversarial_loss(logits) + self.gradient_penalty * gradient_penalty(reward, x, key)
        return Scores(loss, jax.lax.stop_gradient(logits))
