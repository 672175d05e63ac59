"""Was the expert ever here? Random expert distillation (RED, arXiv 1905.06750)."""

from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cdred.algos.reward_model import RewardModel
from cdred.nn.layers import MLP, Apart
from cdred.types import Precision


class REDReward(RewardModel):
    """R(x) = exp(-sigma |f(x) - f_1(x)|^2): near 1 where the predictor f met the random target f_1, 0 far from there.

    Attributes:
        target: a fixed random network.
        predictor: fitted to it on the expert's data alone.
        sigma: how fast the reward falls with the distance.
    """

    target: MLP
    predictor: MLP
    sigma: float = eqx.field(static=True)

    @classmethod
    def create(
        cls,
        input_dim: int,
        *,
        target_hidden_dims: tuple[int, ...],
        predictor_hidden_dims: tuple[int, ...],
        embedding_dim: int,
        sigma: float,
        precision: Precision = "float32",
        key: Key[Array, ""],
    ) -> Self:
        """A random target and a fresh predictor."""
        target_key, predictor_key = jax.random.split(key)
        return cls(
            MLP(input_dim, target_hidden_dims, embedding_dim, precision=precision, key=target_key),
            MLP(input_dim, predictor_hidden_dims, embedding_dim, precision=precision, key=predictor_key),
            sigma,
        )

    @property
    def trainable(self) -> MLP:
        return self.predictor

    def __call__(self, x: Float[Array, " in"] | Apart) -> Float[Array, ""]:
        return self.reward(self.distance(x))

    def expert_bonus(self, x: Float[Array, " in"]) -> Float[Array, ""]:
        """The distance, which the reward falls with."""
        return self.distance(x)

    def distance(self, x: Float[Array, " in"] | Apart) -> Float[Array, ""]:
        """|f(x) - f_1(x)|^2: on the expert's x, the predictor's loss."""
        return jnp.sum((self.predictor(x) - jax.lax.stop_gradient(self.target(x))) ** 2)

    def reward(self, distance: Float[Array, ""]) -> Float[Array, ""]:
        """R at a distance that is known already."""
        return jnp.exp(-self.sigma * distance)
