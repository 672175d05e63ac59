"""Observation normalisation."""

from typing import Self

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

# Components that hardly vary are magnified at most tenfold, and outliers are clipped.
MIN_STD = 0.1
LIMIT = 10.0


class ObsNormalizer(eqx.Module):
    """Normaliser (x - mean) / std, clipped to [-10, 10]. Its statistics are set once, before the first update."""

    mean: Float[Array, " dim"]
    std: Float[Array, " dim"]

    @classmethod
    def identity(cls, dim: int) -> Self:
        """Return a normaliser that only clips, for use until the statistics are known."""
        return cls(jnp.zeros(dim), jnp.ones(dim))

    @classmethod
    def from_stats(cls, mean: Float[Array, " dim"], std: Float[Array, " dim"]) -> Self:
        """Return the normaliser of these statistics, with standard deviations of at least 0.1."""
        return cls(mean, jnp.maximum(std, MIN_STD))

    def __call__(self, x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        return jnp.clip((x - self.mean) / self.std, -LIMIT, LIMIT)
