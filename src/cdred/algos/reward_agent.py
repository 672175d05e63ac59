"""World-model methods that differ in one object: the reward model, what it learns from, and what it says."""

from abc import abstractmethod
from typing import Generic, TypeVar

import jax
from jaxtyping import Array, Float, Key

from cdred.algos.method import Lived, Objective
from cdred.algos.reward_model import RewardModel
from cdred.algos.td import Scores, regress
from cdred.algos.world_model_agent import LearnerState, WorldModelAgent
from cdred.nn.layers import Fixed, join

Reward = TypeVar("Reward", bound=RewardModel)


class RewardAgent(WorldModelAgent, Generic[Reward]):
    """Critics learn from what a reward model says: the one object in which these methods differ."""

    @abstractmethod
    def score(self, reward: Reward, lived: Lived, key: Key[Array, ""]) -> Scores:
        """What the reward model learns from a batch, and says of it.

        The rewards must come without gradient; whether the loss shapes the latents is the method's choice.
        """

    def objective(self, state: LearnerState, lived: Lived, key: Key[Array, ""]) -> Objective:
        score_key, value_key, dropout_key = jax.random.split(key, 3)
        return regress(
            state.model,
            state.target_critics,
            lived,
            self.score(state.reward, lived, score_key),
            discount=self.discount,
            rho=self.rho,
            beta=0.0,
            value_key=value_key,
            dropout_key=dropout_key,
        )

    def imagined_reward(
        self,
        state: LearnerState,
        z: Float[Array, " Z"] | Fixed,
        action: Float[Array, " A"],
        following: Float[Array, " Z"],
    ) -> Float[Array, ""]:
        del following
        return state.reward(join(z, action))
