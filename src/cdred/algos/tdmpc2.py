"""TD-MPC2 (arXiv 2310.16828) with the environment's reward, used to train experts."""

from typing import ClassVar, Self

import equinox as eqx
import jax
from jaxtyping import Array, Float, Key

from cdred.algos.base import Metrics
from cdred.algos.method import CriticState, LatentBatch
from cdred.algos.reward_model import RewardModel
from cdred.algos.td import RewardMethod, RewardOutput
from cdred.nn.layers import MLP, SplitInput
from cdred.nn.two_hot import TwoHot
from cdred.types import Precision


class RewardHead(RewardModel):
    """Reward head from x = (z, a) to a two-hot distribution over symlog rewards."""

    head: MLP
    two_hot: TwoHot

    @classmethod
    def create(
        cls,
        input_dim: int,
        hidden_dims: tuple[int, ...],
        two_hot: TwoHot,
        *,
        precision: Precision = "float32",
        key: Key[Array, ""],
    ) -> Self:
        """Initialise the head with reward 0 everywhere."""
        return cls(MLP(input_dim, hidden_dims, two_hot.num_bins, zero_head=True, precision=precision, key=key), two_hot)

    @property
    def trainable(self) -> MLP:
        return self.head

    def after_update(self, metrics: Metrics) -> Self:
        del metrics
        return self

    def expert_novelty(self, x: Float[Array, " in"]) -> None:
        del x

    def __call__(self, x: Float[Array, " in"] | SplitInput) -> Float[Array, ""]:
        return self.two_hot.decode(self.head(x))

    def loss(self, x: Float[Array, " in"], reward: Float[Array, ""]) -> Float[Array, ""]:
        """Compute CE(head(x), twohot(reward))."""
        return self.two_hot.cross_entropy(self.head(x), reward)


class TDMPC2(RewardMethod):
    """TD-MPC2: a reward head is regressed on the environment's reward and shapes the latents; no demonstrations.

    Attributes:
        hidden_dims: hidden layers of the reward head.
        two_hot: its value encoding.
    """

    uses_demos: ClassVar[bool] = False
    has_warmup: ClassVar[bool] = False

    hidden_dims: tuple[int, ...] = eqx.field(static=True)
    two_hot: TwoHot
    precision: Precision = eqx.field(static=True, default="float32")

    def make_reward(self, input_dim: int, *, key: Key[Array, ""]) -> RewardHead:
        return RewardHead.create(input_dim, self.hidden_dims, self.two_hot, precision=self.precision, key=key)

    def reward_output(self, state: CriticState, batch: LatentBatch, key: Key[Array, ""]) -> RewardOutput:
        """Compute CE(head(z_t, a_t), twohot(r_t)), and r_t itself, which is 0 in absorbing states."""
        del key
        assert isinstance(state.reward, RewardHead)
        reward = batch.segments.reward
        return RewardOutput(jax.vmap(jax.vmap(state.reward.loss))(batch.state_actions(state.model), reward), reward, {})
