"""TD-MPC2 (arXiv 2310.16828) on the environment's own reward: the maker of experts, and the ceiling of a comparison."""

from typing import ClassVar

import jax
from jaxtyping import Array, Key

from cdred.algos.method import Lived
from cdred.algos.reward_agent import RewardAgent
from cdred.algos.td import Scores
from cdred.models.rewards.supervised import RewardHead


class TDMPC2(RewardAgent[RewardHead]):
    """The reward is regressed, and shapes the latents; there is no expert."""

    uses_demos: ClassVar[bool] = False

    def score(self, reward: RewardHead, lived: Lived, key: Key[Array, ""]) -> Scores:
        """CE(head(z_t, a_t), twohot(r_t)); critics learn from r_t itself. An ended world gives 0 for ever."""
        del key
        given = lived.segments.reward
        return Scores(jax.vmap(jax.vmap(reward.loss))(lived.inputs, given), given)
