"""Observation normalisation."""

from typing import Any, Self

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from cdred.types import ImageObs

# Outliers are clipped.
LIMIT = 10.0


class ObsNormalizer(eqx.Module):
    """Normaliser (x - mean) / std, clipped to [-10, 10]. Its statistics are set once, before the first update.

    Attributes:
        mean, std: statistics of the observations.
        min_std: smallest standard deviation, so that components that hardly vary are not magnified.
    """

    mean: Float[Array, " dim"]
    std: Float[Array, " dim"]
    min_std: float = eqx.field(static=True)

    @classmethod
    def identity(cls, dim: int, min_std: float) -> Self:
        """Return a normaliser that only clips, for use until the statistics are known."""
        return cls(jnp.zeros(dim), jnp.ones(dim), min_std)

    def with_stats(self, mean: Float[Array, " dim"], std: Float[Array, " dim"]) -> Self:
        """Return the normaliser with these statistics, standard deviations of at least `min_std`."""
        return type(self)(mean, jnp.maximum(std, self.min_std), self.min_std)

    def __call__(self, x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        return jnp.clip((x - self.mean) / self.std, -LIMIT, LIMIT)


def normalize_obs(normalizer: ObsNormalizer | None, obs: Float[Array, "..."] | ImageObs) -> Any:
    """Flatten an observation and normalise it, unless there is no normaliser; of an `ImageObs`, the vector."""
    if isinstance(obs, ImageObs):
        return obs if normalizer is None else obs._replace(state=normalizer(obs.state))
    flat = obs.reshape(-1)
    return flat if normalizer is None else normalizer(flat)
