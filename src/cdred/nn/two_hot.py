"""Categorical distributions over scalars: two-hot targets over symlog values (arXiv 2301.04104)."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def symlog(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Compute sign(x) log(1 + |x|)."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def symexp(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Compute the inverse of `symlog`."""
    return jnp.sign(x) * jnp.expm1(jnp.abs(x))


class TwoHot(eqx.Module):
    """Two-hot encoding over `num_bins` bins, evenly spaced over symlog values in [low, high], with clipping."""

    num_bins: int = eqx.field(static=True, default=101)
    low: float = eqx.field(static=True, default=-10.0)
    high: float = eqx.field(static=True, default=10.0)

    @property
    def bins(self) -> Float[Array, " num_bins"]:
        return jnp.linspace(self.low, self.high, self.num_bins)

    def encode(self, x: Float[Array, ""]) -> Float[Array, " num_bins"]:
        """Return the two-hot distribution with expected symlog value symlog(x)."""
        width = (self.high - self.low) / (self.num_bins - 1)
        position = (jnp.clip(symlog(x), self.low, self.high) - self.low) / width
        return jnp.maximum(0.0, 1.0 - jnp.abs(position - jnp.arange(self.num_bins, dtype=jnp.float32)))

    def decode(self, logits: Float[Array, " num_bins"]) -> Float[Array, ""]:
        """Return the value with the distribution's mean as its symlog."""
        return symexp(jnp.dot(jax.nn.softmax(logits), self.bins, precision="highest"))

    def cross_entropy(self, logits: Float[Array, " num_bins"], target: Float[Array, ""]) -> Float[Array, ""]:
        """Compute -sum_i twohot(target)_i log softmax(logits)_i."""
        return jax.nn.logsumexp(logits) - jnp.dot(self.encode(target), logits, precision="highest")
