"""Interface of reward models R(z, a)."""

from abc import abstractmethod
from typing import Self

import equinox as eqx
from jaxtyping import Array, Float, PyTree

from cdred.algos.base import Metrics
from cdred.nn.layers import SplitInput


class RewardModel(eqx.Module):
    """Reward R(x) of one x = (z, a), and the part of it that is trained."""

    @property
    @abstractmethod
    def trainable(self) -> PyTree:
        """Networks that gradients update; everything else in the model stays as initialised."""

    @abstractmethod
    def after_update(self, metrics: Metrics) -> Self:
        """Update what gradients do not, such as EMA copies, after a gradient step of `trainable` with these metrics."""

    @abstractmethod
    def expert_novelty(self, x: Float[Array, " in"]) -> Float[Array, ""] | None:
        """Compute how far x is from the expert's data; None for a model that estimates no density."""

    @abstractmethod
    def __call__(self, x: Float[Array, " in"] | SplitInput) -> Float[Array, ""]:
        """Compute R(x)."""
