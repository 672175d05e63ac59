"""TD-MPC2 (arXiv 2310.16828) on the environment's own reward: the maker of experts, and the ceiling of a comparison."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cdred.algos.reward_agent import RewardAgent, Scores
from cdred.models.rewards.supervised import SupervisedReward
from cdred.types import Segment


class TDMPC2(RewardAgent[SupervisedReward]):
    """The reward is regressed, and shapes the latents; there is no expert."""

    imitates: ClassVar[bool] = False

    def score(
        self, reward: SupervisedReward, latents: Float[Array, "N T Z"], segments: Segment, key: Key[Array, ""]
    ) -> Scores:
        """CE(head(z_t, a_t), twohot(r_t)); critics learn from r_t itself. An ended world gives 0 for ever."""
        del key
        x = jnp.concatenate([latents[:, :-1], segments.action], axis=-1)
        return Scores(jax.vmap(jax.vmap(reward.loss))(x, segments.reward), segments.reward)
