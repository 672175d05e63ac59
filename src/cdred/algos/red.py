"""Random expert distillation (RED, arXiv 1905.06750)."""

from dataclasses import dataclass
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cdred.algos.base import Metrics
from cdred.algos.method import CriticState, LatentBatch
from cdred.algos.reward_input import RewardInput
from cdred.algos.reward_model import RewardModel
from cdred.algos.td import RewardMethod, RewardOutput
from cdred.constraints import HiddenDims, Positive, PositiveInt
from cdred.nn.layers import MLP, SplitInput
from cdred.types import Precision


@dataclass(frozen=True)
class REDConfig:
    """RED's reward (red, red-sac)."""

    input: RewardInput = "state-action"
    """What the predictor is fitted on: (z, a), the transition (z, z'), or the state z'."""
    sigma: Positive = 1.0
    """Rate at which the reward falls with the squared distance from the target."""
    embedding_dim: PositiveInt = 64
    """Output dimension of target and predictor."""
    target_hidden_dims: HiddenDims = (512, 512)
    """Hidden layers of the target."""
    predictor_hidden_dims: HiddenDims = (1024, 1024, 1024)
    """Hidden layers of the predictor."""


class REDReward(RewardModel):
    """Random expert distillation reward R(x) = exp(-sigma |f(x) - f_1(x)|^2), near 1 on the expert's data.

    Attributes:
        target: fixed random network f_1.
        predictor: network f, fitted to the target on the expert's data alone.
    """

    target: MLP
    predictor: MLP
    config: REDConfig = eqx.field(static=True)

    @classmethod
    def create(
        cls, input_dim: int, config: REDConfig, *, precision: Precision = "float32", key: Key[Array, ""]
    ) -> Self:
        """Initialise target and predictor."""
        target_key, predictor_key = jax.random.split(key)
        embedding_dim = config.embedding_dim
        return cls(
            MLP(input_dim, config.target_hidden_dims, embedding_dim, precision=precision, key=target_key),
            MLP(input_dim, config.predictor_hidden_dims, embedding_dim, precision=precision, key=predictor_key),
            config,
        )

    @property
    def trainable(self) -> MLP:
        return self.predictor

    def after_update(self, metrics: Metrics) -> Self:
        del metrics
        return self

    def __call__(self, x: Float[Array, " in"] | SplitInput) -> Float[Array, ""]:
        return self.reward(self.distance(x))

    def expert_novelty(self, x: Float[Array, " in"]) -> Float[Array, ""]:
        """Compute the squared distance from the target."""
        return self.distance(x)

    def distance(self, x: Float[Array, " in"] | SplitInput) -> Float[Array, ""]:
        """Compute |f(x) - f_1(x)|^2; on the expert's x this is the predictor's loss."""
        return jnp.sum((self.predictor(x) - jax.lax.stop_gradient(self.target(x))) ** 2)

    def reward(self, distance: Float[Array, ""]) -> Float[Array, ""]:
        """Compute R from the squared distance."""
        return jnp.exp(-self.config.sigma * distance)


def red_reward(reward: REDReward, x: Float[Array, "N H in"]) -> RewardOutput:
    """Compute the predictor's loss on the expert's half, and the reward on all, on inputs cut from the gradient."""
    distance = jax.vmap(jax.vmap(reward.distance))(jax.lax.stop_gradient(x))
    expert, agent = jnp.split(distance, 2)
    loss = jnp.concatenate([expert, jnp.zeros_like(agent)])
    return RewardOutput(loss, jax.lax.stop_gradient(jax.vmap(jax.vmap(reward.reward))(distance)), {})


class RED(RewardMethod):
    """RED: the reward is an estimate of the expert's support, independent of the agent's behaviour.

    The paper fits the predictor before the policy learns. Here the latent space moves during training, so fitting
    starts in the warm-up and continues.
    """

    config: REDConfig = eqx.field(static=True)
    precision: Precision = eqx.field(static=True, default="float32")

    @property
    def reward_input(self) -> RewardInput:
        return self.config.input

    def make_reward(self, input_dim: int, *, key: Key[Array, ""]) -> REDReward:
        return REDReward.create(input_dim, self.config, precision=self.precision, key=key)

    def reward_output(self, state: CriticState, batch: LatentBatch, key: Key[Array, ""]) -> RewardOutput:
        del key
        assert isinstance(state.reward, REDReward)
        return red_reward(state.reward, batch.reward_inputs(self.config.input, state.model))
