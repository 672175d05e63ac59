"""What a network's outputs mean as a number: a distribution over symlog values (arXiv 2301.04104), or the number."""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def symlog(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """sign(x) log(1 + |x|)."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def symexp(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The inverse of `symlog`."""
    return jnp.sign(x) * jnp.expm1(jnp.abs(x))


class ValueCode(eqx.Module):
    """How a value is read from a network's outputs.

    Attributes:
        num_bins: outputs per value.
    """

    num_bins: eqx.AbstractVar[int]

    @abstractmethod
    def decode(self, logits: Float[Array, " num_bins"]) -> Float[Array, ""]:
        """The value."""

    @abstractmethod
    def loss(self, logits: Float[Array, " num_bins"], target: Float[Array, ""]) -> Float[Array, ""]:
        """How far the outputs are from saying `target`."""


class Scalar(ValueCode):
    """One output, which is the value: for objectives that are functions of values, not regressions on targets."""

    num_bins: int = eqx.field(static=True, default=1)

    def decode(self, logits: Float[Array, " num_bins"]) -> Float[Array, ""]:
        """The output itself."""
        return logits[0]

    def loss(self, logits: Float[Array, " num_bins"], target: Float[Array, ""]) -> Float[Array, ""]:
        """(value - target)^2."""
        return (logits[0] - target) ** 2


class TwoHot(ValueCode):
    """`num_bins` bins, evenly spaced over symlog values in [low, high]; values beyond are clipped."""

    num_bins: int = eqx.field(static=True, default=101)
    low: float = eqx.field(static=True, default=-10.0)
    high: float = eqx.field(static=True, default=10.0)

    @property
    def bins(self) -> Float[Array, " num_bins"]:
        return jnp.linspace(self.low, self.high, self.num_bins)

    def encode(self, x: Float[Array, ""]) -> Float[Array, " num_bins"]:
        """The two-hot distribution whose expected symlog value is symlog(x)."""
        width = (self.high - self.low) / (self.num_bins - 1)
        position = (jnp.clip(symlog(x), self.low, self.high) - self.low) / width
        return jnp.maximum(0.0, 1.0 - jnp.abs(position - jnp.arange(self.num_bins, dtype=jnp.float32)))

    def decode(self, logits: Float[Array, " num_bins"]) -> Float[Array, ""]:
        """The value whose symlog is the distribution's mean."""
        return symexp(jnp.dot(jax.nn.softmax(logits), self.bins))

    def loss(self, logits: Float[Array, " num_bins"], target: Float[Array, ""]) -> Float[Array, ""]:
        """-sum_i twohot(target)_i log softmax(logits)_i."""
        return jax.nn.logsumexp(logits) - jnp.dot(self.encode(target), logits)
