"""Observations brought to one scale before a network sees them."""

from typing import Self

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

# A component that hardly moves is magnified no more than tenfold (docs/defaults.md), and no outlier is taken for more
# than LIMIT.
SMALLEST_STD = 0.1
LIMIT = 10.0


class ObsNormalizer(eqx.Module):
    """(x - mean) / std, clipped to [-10, 10]. Statistics are set once, before learning, and never trained."""

    mean: Float[Array, " dim"]
    std: Float[Array, " dim"]

    @classmethod
    def identity(cls, dim: int) -> Self:
        """Until it is known how x is distributed: nothing but the clipping."""
        return cls(jnp.zeros(dim), jnp.ones(dim))

    @classmethod
    def fitted(cls, mean: Float[Array, " dim"], std: Float[Array, " dim"]) -> Self:
        """Of these statistics, the standard deviation at least 0.1."""
        return cls(mean, jnp.maximum(std, SMALLEST_STD))

    def __call__(self, x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        return jnp.clip((x - self.mean) / self.std, -LIMIT, LIMIT)
