"""Interface of reward models R(z, a)."""

from abc import abstractmethod
from typing import Self

import equinox as eqx
from jaxtyping import Array, Float, PyTree

from cdred.nn.layers import SplitInput


class RewardModel(eqx.Module):
    """Reward R(x) of one x = (z, a), and the part of it that is trained."""

    @property
    @abstractmethod
    def trainable(self) -> PyTree:
        """Networks that gradients update; everything else in the model stays as initialised."""

    @abstractmethod
    def update_ema(self) -> Self:
        """Update the EMA copies, if any, after a gradient step of `trainable`."""

    @abstractmethod
    def expert_novelty(self, x: Float[Array, " in"]) -> Float[Array, ""] | None:
        """Compute how far x is from the expert's data; None for a model that estimates no density."""

    @abstractmethod
    def __call__(self, x: Float[Array, " in"] | SplitInput) -> Float[Array, ""]:
        """Compute R(x)."""
