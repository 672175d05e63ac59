"""The environment's own reward, regressed as TD-MPC2 does (arXiv 2310.16828): two-hot over symlog values."""

from typing import Self

from jaxtyping import Array, Float, Key

from cdred.algos.reward_model import RewardModel
from cdred.nn.layers import MLP, Apart
from cdred.nn.two_hot import TwoHot
from cdred.types import Precision


class RewardHead(RewardModel):
    """A network from x = (z, a) to a distribution over rewards; it starts at reward 0 everywhere."""

    head: MLP
    two_hot: TwoHot

    @classmethod
    def create(
        cls,
        input_dim: int,
        *,
        hidden_dims: tuple[int, ...],
        two_hot: TwoHot,
        precision: Precision = "float32",
        key: Key[Array, ""],
    ) -> Self:
        """A fresh network."""
        return cls(MLP(input_dim, hidden_dims, two_hot.num_bins, zero_head=True, precision=precision, key=key), two_hot)

    @property
    def trainable(self) -> MLP:
        return self.head

    def __call__(self, x: Float[Array, " in"] | Apart) -> Float[Array, ""]:
        return self.two_hot.decode(self.head(x))

    def loss(self, x: Float[Array, " in"], reward: Float[Array, ""]) -> Float[Array, ""]:
        """CE(head(x), twohot(reward))."""
        return self.two_hot.cross_entropy(self.head(x), reward)
