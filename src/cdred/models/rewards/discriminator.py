"""Whose is (z, a)? An adversary's reward (GAIL, arXiv 1606.03476; its logit as in DAC, arXiv 1809.02925)."""

from typing import Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cdred.algos.reward_model import RewardModel
from cdred.nn.layers import MLP, Apart
from cdred.types import Precision


class Discriminator(RewardModel):
    """D(x) = sigmoid(logit(x)), the probability that x is the expert's and not the agent's.

    The reward is the logit, log D - log(1 - D): of either sign, so that neither dying nor surviving is paid for.
    """

    network: MLP

    @classmethod
    def create(
        cls, input_dim: int, *, hidden_dims: tuple[int, ...], precision: Precision = "float32", key: Key[Array, ""]
    ) -> Self:
        """A fresh network, undecided everywhere."""
        return cls(MLP(input_dim, hidden_dims, 1, zero_head=True, precision=precision, key=key))

    @property
    def trainable(self) -> MLP:
        return self.network

    def __call__(self, x: Float[Array, " in"] | Apart) -> Float[Array, ""]:
        return self.network(x)[0]


def adversarial_loss(logits: Float[Array, "N ..."]) -> Float[Array, "N ..."]:
    """-log D of the expert's x, which are the first half, and -log(1 - D) of own ones."""
    expert, own = jnp.split(logits, 2)
    return jax.nn.softplus(jnp.concatenate([-expert, own]))
