"""Generative adversarial imitation (arXiv 1606.03476) in the latent space of the world model, planned with MPPI."""

from typing import ClassVar

import equinox as eqx
import jax
from jaxtyping import Array, Float, Key

from cdred.algos.losses import gradient_penalty
from cdred.algos.method import Lived
from cdred.algos.reward_agent import RewardAgent
from cdred.algos.td import Scores
from cdred.models.rewards.discriminator import Discriminator, adversarial_loss


class GAIL(RewardAgent[Discriminator]):
    """A discriminator tells the expert's (z, a) from the agent's own; its logit is the reward (DAC, arXiv 1809.02925).

    Attributes:
        gradient_penalty: weight of the discriminator's gradient penalty.
    """

    uses_demos: ClassVar[bool] = True

    gradient_penalty: float = eqx.field(static=True)

    def score(self, reward: Discriminator, lived: Lived, key: Key[Array, ""]) -> Scores:
        return adversarial_scores(reward, lived.inputs, key, penalty=self.gradient_penalty)


def adversarial_scores(
    reward: Discriminator, x: Float[Array, "N H in"], key: Key[Array, ""], *, penalty: float
) -> Scores:
    """The discriminator's cross-entropy and penalty, and its logits; it follows the latents and does not shape them."""
    x = jax.lax.stop_gradient(x)
    logits = jax.vmap(jax.vmap(reward))(x)
    loss = adversarial_loss(logits) + penalty * gradient_penalty(jax.vmap(reward), x, key)
    return Scores(loss, jax.lax.stop_gradient(logits))
