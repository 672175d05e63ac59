"""What scores (z, a): the one object in which the world-model methods differ."""

from abc import abstractmethod
from typing import Self

import equinox as eqx
from jaxtyping import Array, Float, PyTree

from cdred.nn.layers import Apart


class RewardModel(eqx.Module):
    """A reward R(z, a), and which part of it a gradient may change."""

    @property
    @abstractmethod
    def trainable(self) -> PyTree:
        """The networks that learn; whatever else the model holds stays as it was made."""

    def settled(self) -> Self:
        """The model after a step of its trainable part: what follows it from afar moves now."""
        return self

    def expert_bonus(self, x: Float[Array, " in"]) -> Float[Array, ""] | None:
        """How unfamiliar x is beside the expert's data; None for a model that estimates no density."""
        del x
        return None

    @abstractmethod
    def __call__(self, x: Float[Array, " in"] | Apart) -> Float[Array, ""]:
        """R of one x = (z, a)."""
