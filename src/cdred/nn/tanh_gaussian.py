"""Gaussian squashed into (-1, 1) by tanh (arXiv 1801.01290, appendix C)."""

from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

LOG_STD_MIN, LOG_STD_MAX = -10.0, 2.0


class TanhGaussian(eqx.Module):
    """Distribution of a = tanh(u), u ~ N(mean, diag(std^2))."""

    mean: Float[Array, " A"]
    log_std: Float[Array, " A"]

    @classmethod
    def from_features(cls, features: Float[Array, " two_A"]) -> Self:
        """Split a network's output into mean and log-std; the log-std is squashed smoothly into [-10, 2]."""
        mean, raw = jnp.split(features, 2)
        return cls(mean, LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (jnp.tanh(raw) + 1.0))

    @property
    def mode(self) -> Float[Array, " A"]:
        """Action at the Gaussian's mean."""
        return jnp.tanh(self.mean)

    def sample(self, key: Key[Array, ""]) -> tuple[Float[Array, " A"], Float[Array, ""]]:
        """Sample an action and its log-density, computed from the pre-tanh sample and so exact near the bounds."""
        noise = jax.random.normal(key, self.mean.shape)
        u = self.mean + jnp.exp(self.log_std) * noise
        return jnp.tanh(u), self._log_prob_pre_tanh(u, noise)

    def log_prob(self, action: Float[Array, " A"]) -> Float[Array, ""]:
        """Compute the log-density of a given action, by the inverse tanh of the action clipped to (-1, 1)."""
        u = jnp.arctanh(jnp.clip(action, -1.0 + 1e-6, 1.0 - 1e-6))
        return self._log_prob_pre_tanh(u, (u - self.mean) * jnp.exp(-self.log_std))

    def _log_prob_pre_tanh(self, u: Array, noise: Array) -> Array:
        gaussian = -0.5 * noise**2 - self.log_std - 0.5 * jnp.log(2.0 * jnp.pi)
        # log(1 - tanh(u)^2), in the form that does not cancel for large |u|
        squash = 2.0 * (jnp.log(2.0) - u - jax.nn.softplus(-2.0 * u))
        return jnp.sum(gaussian - squash)
