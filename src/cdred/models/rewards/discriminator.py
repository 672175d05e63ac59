"""Whose is (z, a)? An adversary's reward (GAIL, arXiv 1606.03476; its logit as in DAC, arXiv 1809.02925)."""

from typing import Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cdred.models.rewards.base import RewardModel
from cdred.nn.layers import MLP


class Discriminator(RewardModel):
    """D(x) = sigmoid(logit(x)), the probability that x is the expert's and not the agent's.

    The reward is the logit, log D - log(1 - D): of either sign, so that neither dying nor surviving is paid for.
    """

    network: MLP

    @classmethod
    def create(cls, input_dim: int, *, widths: tuple[int, ...], key: Key[Array, ""]) -> Self:
        """A fresh network, undecided everywhere."""
        return cls(MLP(input_dim, widths, 1, key=key, zero_head=True))

    @property
    def trainable(self) -> MLP:
        return self.network

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, ""]:
        return self.network(x)[0]

    def loss(self, expert: Float[Array, " in"], own: Float[Array, " in"]) -> Float[Array, " 2"]:
        """-log D of an expert's x, and -log(1 - D) of an own one."""
        return jax.nn.softplus(jnp.stack([-self(expert), self(own)]))

    def gradient_penalty(
        self, expert: Float[Array, " in"], own: Float[Array, " in"], share: Float[Array, ""]
    ) -> Float[Array, ""]:
        """(|d logit / dx| - 1)^2 between the two (arXiv 1704.00028): at `share` of the way from own to expert."""
        gradient = jax.grad(lambda x: self(x))(own + share * (expert - own))
        return (jnp.sqrt(jnp.sum(gradient**2) + 1e-12) - 1.0) ** 2
