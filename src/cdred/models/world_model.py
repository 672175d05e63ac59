"""The decoder-free latent world model of TD-MPC2 (arXiv 2310.16828), without its reward head."""

from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cdred.nn.layers import MLP, Ensemble
from cdred.nn.tanh_gaussian import TanhGaussian
from cdred.nn.two_hot import TwoHot


class WorldModel(eqx.Module):
    """Encoder h, latent dynamics d, critic ensemble Q and policy prior pi (docs/method.md section 1).

    Every method takes one example: a latent `z [Z]`, an action `a [A]`, an observation `obs [*obs]`.
    """

    encoder: MLP
    dynamics: MLP
    critics: Ensemble
    policy: MLP
    two_hot: TwoHot

    @classmethod
    def create(
        cls,
        obs_dim: int,
        action_dim: int,
        *,
        latent_dim: int,
        simnorm_dim: int,
        encoder_widths: tuple[int, ...],
        widths: tuple[int, ...],
        num_critics: int,
        dropout: float,
        two_hot: TwoHot,
        key: Key[Array, ""],
    ) -> Self:
        """Fresh networks; the critics' heads start at zero, so every value starts at 0."""
        ke, kd, kq, kp = jax.random.split(key, 4)
        return cls(
            encoder=MLP(obs_dim, encoder_widths, latent_dim, key=ke, simnorm_group=simnorm_dim),
            dynamics=MLP(latent_dim + action_dim, widths, latent_dim, key=kd, simnorm_group=simnorm_dim),
            critics=Ensemble(
                lambda k: MLP(
                    latent_dim + action_dim, widths, two_hot.num_bins, key=k, zero_head=True, dropout=dropout
                ),
                num_critics,
                key=kq,
            ),
            policy=MLP(latent_dim, widths, 2 * action_dim, key=kp),
            two_hot=two_hot,
        )

    def encode(self, obs: Float[Array, "*obs"]) -> Float[Array, " Z"]:
        """h(obs)."""
        return self.encoder(obs.reshape(-1))

    def next(self, z: Float[Array, " Z"], action: Float[Array, " A"]) -> Float[Array, " Z"]:
        """d(z, a)."""
        return self.dynamics(jnp.concatenate([z, action]))

    def pi(self, z: Float[Array, " Z"]) -> TanhGaussian:
        """pi(. | z)."""
        return TanhGaussian.from_features(self.policy(z))

    def rollout(self, z: Float[Array, " Z"], actions: Float[Array, "H A"]) -> Float[Array, "H+1 Z"]:
        """Latents z_0 .. z_H of an action sequence, z_0 = z."""
        latents = [z]
        for action in actions:
            latents.append(self.next(latents[-1], action))
        return jnp.stack(latents)

    def values(self, critics: Ensemble, z: Float[Array, " Z"], action: Float[Array, " A"]) -> Float[Array, " N"]:
        """Decoded values of any ensemble of critics (the online ones, a target copy, a subset) at (z, a)."""
        return jax.vmap(self.two_hot.decode)(critics(jnp.concatenate([z, action])))
