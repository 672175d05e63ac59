"""The decoder-free latent world model of TD-MPC2 (arXiv 2310.16828); what scores (z, a) is not part of it."""

from functools import partial
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from cdred.models.actor_critic import ActorCritic, make_critics
from cdred.nn.layers import MLP, Ensemble, Fixed, join
from cdred.nn.normalizer import ObsNormalizer
from cdred.nn.two_hot import TwoHot
from cdred.types import Precision


class WorldModel(ActorCritic):
    """Encoder h, latent dynamics d, critic ensemble Q and policy prior pi (docs/method.md section 1).

    Where the world can end, `termination` tells from (z, a) whether it does, as a logit; what follows is `absorbing`,
    a latent that no encoder yields and no action leaves.
    """

    normalizer: ObsNormalizer | None
    encoder: MLP
    dynamics: MLP
    critics: Ensemble
    policy: MLP
    termination: MLP | None
    two_hot: TwoHot | None
    latent_dim: int = eqx.field(static=True)
    simnorm_dim: int = eqx.field(static=True)

    @classmethod
    def create(
        cls,
        obs_dim: int,
        action_dim: int,
        *,
        latent_dim: int,
        simnorm_dim: int,
        encoder_hidden_dims: tuple[int, ...],
        hidden_dims: tuple[int, ...],
        num_critics: int,
        dropout: float,
        two_hot: TwoHot | None,
        can_terminate: bool = False,
        normalize_obs: bool = False,
        precision: Precision = "float32",
        key: Key[Array, ""],
    ) -> Self:
        """Fresh networks."""
        ke, kd, kq, kp = jax.random.split(key, 4)
        kt = jax.random.fold_in(key, 4)
        mlp, input_dim = partial(MLP, precision=precision), latent_dim + action_dim
        return cls(
            normalizer=ObsNormalizer.identity(obs_dim) if normalize_obs else None,
            encoder=mlp(obs_dim, encoder_hidden_dims, latent_dim, key=ke, simnorm_group=simnorm_dim),
            dynamics=mlp(input_dim, hidden_dims, latent_dim, key=kd, simnorm_group=simnorm_dim),
            critics=make_critics(
                input_dim, hidden_dims, two_hot, num=num_critics, dropout=dropout, precision=precision, key=kq
            ),
            policy=mlp(latent_dim, hidden_dims, 2 * action_dim, key=kp),
            termination=mlp(input_dim, hidden_dims, 1, key=kt) if can_terminate else None,
            two_hot=two_hot,
            latent_dim=latent_dim,
            simnorm_dim=simnorm_dim,
        )

    @property
    def absorbing(self) -> Float[Array, " Z"]:
        """The latent of an ended world: a corner of every simplex."""
        return jnp.tile(jax.nn.one_hot(0, self.simnorm_dim), self.latent_dim // self.simnorm_dim)

    @jax.named_scope("encoder")
    def encode(self, obs: Float[Array, "*obs"]) -> Float[Array, " Z"]:
        """h(obs)."""
        flat = obs.reshape(-1)
        return self.encoder(flat if self.normalizer is None else self.normalizer(flat))

    @jax.named_scope("dynamics")
    def next(self, z: Float[Array, " Z"] | Fixed, action: Float[Array, " A"]) -> Float[Array, " Z"]:
        """d(z, a)."""
        return self.dynamics(join(z, action))

    def rollout(
        self, z: Float[Array, " Z"], actions: Float[Array, "H A"], absorbing: Bool[Array, " H"]
    ) -> Float[Array, "H+1 Z"]:
        """Latents z_0 .. z_H of what was lived through, z_0 = z; `absorbing` tells which of z_1 .. z_H are."""
        latents = [z]
        for action, over in zip(actions, absorbing, strict=True):
            latents.append(jnp.where(over, self.absorbing, self.next(latents[-1], action)))
        return jnp.stack(latents)

    def imagine(self, z: Float[Array, " Z"] | Fixed, action: Float[Array, " A"]) -> Float[Array, " Z"]:
        """What the model expects of (z, a): d(z, a), or the absorbing latent if it thinks that the world ends."""
        following = self.next(z, action)
        if self.termination is None:
            return following
        with jax.named_scope("termination"):
            return jnp.where(self.termination(join(z, action))[0] > 0.0, self.absorbing, following)
