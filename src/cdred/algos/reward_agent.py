"""World-model methods that differ in one object: the reward model, what it learns from, and what it says."""

from abc import abstractmethod
from typing import Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cdred.algos import losses
from cdred.algos.world_model_agent import LearnerState, Lived, Objective, WorldModelAgent
from cdred.models.rewards.base import RewardModel
from cdred.types import Segment

Reward = TypeVar("Reward", bound=RewardModel)


class Scores(NamedTuple):
    """What a reward model makes of a batch: its loss, and the reward that critics learn from, per transition."""

    loss: Float[Array, "N H"]
    reward: Float[Array, "N H"]


class RewardAgent(WorldModelAgent, Generic[Reward]):
    """Critics learn from what a reward model says: the one object in which these methods differ."""

    @abstractmethod
    def score(self, reward: Reward, latents: Float[Array, "N T Z"], segments: Segment, key: Key[Array, ""]) -> Scores:
        """What the reward model learns from segments, the expert's first, and says of them.

        The rewards must come without gradient; whether the loss shapes the latents is the method's choice.
        """

    def objective(self, state: LearnerState, lived: Lived, key: Key[Array, ""]) -> Objective:
        """q_t = R(z_t, a_t) + gamma min_{2 of 5} Qbar(h(s_{t+1}), a'), and the reward model's own loss."""
        score_key, value_key, dropout_key = jax.random.split(key, 3)
        segments, latents, encoded = lived
        scores = self.score(state.reward, latents, segments, score_key)
        value = losses.next_values(state.model, state.target_critics, encoded, value_key)
        target = jax.lax.stop_gradient(scores.reward + self.discount * value)
        args = (latents[:, :-1], segments.action, target, self.discount_time, dropout_key)
        return Objective(
            losses.critic_loss(state.model, *args),
            losses.discounted_over_time(scores.loss, self.discount_time),
            scores.reward,
            {"target_value": jnp.mean(target), "target_value_absmax": jnp.max(jnp.abs(target))},
        )

    def imagined_reward(
        self, state: LearnerState, z: Float[Array, " Z"], action: Float[Array, " A"], following: Float[Array, " Z"]
    ) -> Float[Array, ""]:
        del following
        return state.reward(jnp.concatenate([z, action]))
