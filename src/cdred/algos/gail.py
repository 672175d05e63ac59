"""Generative adversarial imitation learning (GAIL, arXiv 1606.03476), with DAC's reward (arXiv 1809.02925)."""

from dataclasses import dataclass
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cdred.algos.base import Metrics
from cdred.algos.losses import gradient_penalty
from cdred.algos.method import CriticState, LatentBatch
from cdred.algos.reward_input import RewardInput
from cdred.algos.reward_model import RewardModel
from cdred.algos.td import RewardMethod, RewardOutput
from cdred.constraints import HiddenDims, NonNegative
from cdred.nn.layers import MLP, SplitInput
from cdred.types import Precision


@dataclass(frozen=True)
class GAILConfig:
    """GAIL's discriminator (gail, gail-sac)."""

    input: RewardInput = "state-action"
    """What the discriminator sees: (z, a), the transition (z, z'), or the state z'."""
    hidden_dims: HiddenDims = (1024, 1024, 1024)
    """Hidden layers of the discriminator."""
    gradient_penalty: NonNegative = 0.1
    """Weight of the discriminator's gradient penalty."""


class Discriminator(RewardModel):
    """Discriminator D(x) = sigmoid(logit(x)), the probability that x is the expert's.

    The reward is the logit, log D - log(1 - D). It takes either sign, so it favours neither short nor long episodes.
    """

    network: MLP

    @classmethod
    def create(
        cls, input_dim: int, hidden_dims: tuple[int, ...], *, precision: Precision = "float32", key: Key[Array, ""]
    ) -> Self:
        """Initialise the network with D = 1/2 everywhere."""
        return cls(MLP(input_dim, hidden_dims, 1, zero_head=True, precision=precision, key=key))

    @property
    def trainable(self) -> MLP:
        return self.network

    def after_update(self, metrics: Metrics) -> Self:
        del metrics
        return self

    def expert_novelty(self, x: Float[Array, " in"]) -> None:
        del x

    def __call__(self, x: Float[Array, " in"] | SplitInput) -> Float[Array, ""]:
        return self.network(x)[0]


def discriminator_loss(logits: Float[Array, "N ..."]) -> Float[Array, "N ..."]:
    """Compute -log D of the expert's half and -log(1 - D) of the agent's."""
    expert, agent = jnp.split(logits, 2)
    return jax.nn.softplus(jnp.concatenate([-expert, agent]))


def gail_reward(
    reward: Discriminator, x: Float[Array, "N H in"], key: Key[Array, ""], *, penalty: float
) -> RewardOutput:
    """Compute the discriminator's loss with gradient penalty, and its logits, on inputs cut from the gradient."""
    x = jax.lax.stop_gradient(x)
    logits = jax.vmap(jax.vmap(reward))(x)
    loss = discriminator_loss(logits) + penalty * gradient_penalty(jax.vmap(reward), x, key)
    return RewardOutput(loss, jax.lax.stop_gradient(logits), {})


class GAIL(RewardMethod):
    """GAIL: the reward is the logit of a discriminator between the expert's and the agent's (z, a)."""

    config: GAILConfig = eqx.field(static=True)
    precision: Precision = eqx.field(static=True, default="float32")

    @property
    def reward_input(self) -> RewardInput:
        return self.config.input

    def make_reward(self, input_dim: int, *, key: Key[Array, ""]) -> Discriminator:
        return Discriminator.create(input_dim, self.config.hidden_dims, precision=self.precision, key=key)

    def reward_output(self, state: CriticState, batch: LatentBatch, key: Key[Array, ""]) -> RewardOutput:
        assert isinstance(state.reward, Discriminator)
        return gail_reward(
            state.reward, batch.reward_inputs(self.config.input, state.model), key, penalty=self.config.gradient_penalty
        )
