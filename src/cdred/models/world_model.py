"""Decoder-free latent world model of TD-MPC2 (arXiv 2310.16828), without its reward model."""

from dataclasses import dataclass
from functools import partial
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from cdred.constraints import HiddenDims, NonNegative, NonNegativeInt, Positive, PositiveInt
from cdred.models.actor_critic import ActorCritic, Latents, make_critics
from cdred.nn.image_encoder import ImageEncoder
from cdred.nn.layers import MLP, Ensemble, SharedLatent, simnorm
from cdred.nn.normalizer import ObsNormalizer, normalize_obs
from cdred.nn.two_hot import TwoHot
from cdred.types import ImageObs, Precision


@dataclass(frozen=True)
class ModelConfig:
    """Networks of the world model, and of actor and critics without one."""

    latent_dim: PositiveInt = 512
    """Dimension of the latent state z."""
    simnorm_dim: PositiveInt = 8
    """Components per SimNorm group; divides latent_dim."""
    encoder_hidden_dims: HiddenDims = (256,)
    """Hidden layers of the observation encoder, after the convolutions of camera images."""
    image_shift: NonNegativeInt = 3
    """Largest random shift of the camera images in updates, in pixels (arXiv 2107.09645)."""
    hidden_dims: HiddenDims = (512, 512)
    """Hidden layers of dynamics, critics and policy."""
    num_critics: PositiveInt = 5
    """Critics in the ensemble, at least 2."""
    num_bins: PositiveInt = 101
    """Bins of the two-hot value and reward distributions over symlog values in [-10, 10]."""
    normalize_obs: bool = False
    """Normalise observations by mean and standard deviation of the demonstrations and the random episodes, the colour
    channels of camera images by their own."""
    min_obs_std: Positive = 0.1
    """Smallest standard deviation that observations are divided by; larger ones make encoder and policy smoother."""
    encoder_layer_norm: bool = True
    """Layer normalisation in the encoder, and in the policy of methods on raw observations. Without it they generalise
    better from few demonstrations."""
    residual_dynamics: bool = False
    """Latent dynamics predict the change of z instead of z'."""
    center_latents: bool = False
    """Critics, dynamics and reward see V z - 1 in place of z, for SimNorm groups of V: 0 where a group is uniform."""
    dropout: NonNegative = 0.01
    """Dropout rate of the first layer of a world model's critics in updates; critics on raw observations have none."""


# Keeps the logarithm of a latent finite: the absorbing latent has zeros, and a sharp SimNorm may underflow.
LOG_EPS = 1e-6


class WorldModel(ActorCritic):
    """Encoder h, latent dynamics d, critic ensemble Q and policy pi.

    In episodic tasks `termination` predicts from (z, a) the logit of termination; the state after it is encoded as
    `absorbing_latent`, which the encoder never produces and no action leaves.
    """

    normalizer: ObsNormalizer | None
    encoder: MLP | ImageEncoder
    dynamics: MLP
    critics: Ensemble
    policy: MLP
    termination: MLP | None
    two_hot: TwoHot | None
    latent_dim: int = eqx.field(static=True)
    simnorm_dim: int = eqx.field(static=True)
    residual_dynamics: bool = eqx.field(static=True, default=False)
    center_latents: bool = eqx.field(static=True, default=False)

    @classmethod
    def create(
        cls,
        obs_dim: int,
        action_dim: int,
        config: ModelConfig,
        *,
        two_hot: TwoHot | None,
        image_size: int | None = None,
        can_terminate: bool = False,
        precision: Precision = "float32",
        key: Key[Array, ""],
    ) -> Self:
        """Initialise the networks.

        Args:
            obs_dim: size of a flattened observation, or of the vector beside an image.
            action_dim: number of action components.
            config: sizes.
            two_hot: encoding of the critics' value distributions; None for scalar critics.
            image_size: height and width of the images that are observed; None without images.
            can_terminate: make a termination head.
            precision: of matrix products.
            key: of the initial weights.
        """
        ke, kd, kq, kp = jax.random.split(key, 4)
        kt = jax.random.fold_in(key, 4)
        mlp, input_dim, hidden_dims = (
            partial(MLP, precision=precision),
            config.latent_dim + action_dim,
            config.hidden_dims,
        )
        to_latent = partial(mlp, out_dim=config.latent_dim, simnorm_group=config.simnorm_dim)
        # With zero output weights the first prediction is "nothing changes".
        to_change = partial(mlp, out_dim=config.latent_dim, zero_head=True)
        dynamics = to_change if config.residual_dynamics else to_latent
        # Without a vector beside images there is nothing to normalise.
        normalized = config.normalize_obs and obs_dim > 0
        if image_size is None:
            encoder = to_latent(obs_dim, config.encoder_hidden_dims, layer_norm=config.encoder_layer_norm, key=ke)
        else:
            encoder = ImageEncoder(
                image_size,
                obs_dim,
                config.encoder_hidden_dims,
                config.latent_dim,
                simnorm_group=config.simnorm_dim,
                layer_norm=config.encoder_layer_norm,
                standardize=config.normalize_obs,
                precision=precision,
                key=ke,
            )
        return cls(
            normalizer=ObsNormalizer.identity(obs_dim, config.min_obs_std) if normalized else None,
            encoder=encoder,
            dynamics=dynamics(input_dim, hidden_dims, key=kd),
            critics=make_critics(
                input_dim,
                hidden_dims,
                two_hot,
                num=config.num_critics,
                dropout=config.dropout,
                precision=precision,
                key=kq,
            ),
            policy=mlp(config.latent_dim, hidden_dims, 2 * action_dim, key=kp),
            termination=mlp(input_dim, hidden_dims, 1, key=kt) if can_terminate else None,
            two_hot=two_hot,
            latent_dim=config.latent_dim,
            simnorm_dim=config.simnorm_dim,
            residual_dynamics=config.residual_dynamics,
            center_latents=config.center_latents,
        )

    @property
    def absorbing_latent(self) -> Float[Array, " Z"]:
        """Corner of every SimNorm simplex, for the state after termination."""
        return jnp.tile(jax.nn.one_hot(0, self.simnorm_dim), self.latent_dim // self.simnorm_dim)

    @jax.named_scope("encoder")
    def encode(self, obs: Float[Array, "*obs"] | ImageObs) -> Float[Array, " Z"]:
        """Compute z = h(obs)."""
        return self.encoder(normalize_obs(self.normalizer, obs))

    def features(self, z: Latents) -> Latents:
        """Compute V z - 1 with centred latents, else z.

        A smooth encoder leaves every component near 1 / V, and little of the input of a network of (z, a) then depends
        on the state.
        """
        return jax.tree.map(lambda x: self.simnorm_dim * x - 1.0, z) if self.center_latents else z

    @property
    def actor(self) -> tuple[MLP | ImageEncoder, MLP]:
        return self.encoder, self.policy

    def replace_actor(self, actor: tuple[MLP | ImageEncoder, MLP]) -> Self:
        return eqx.tree_at(lambda m: (m.encoder, m.policy), self, actor)

    @jax.named_scope("dynamics")
    def next(self, z: Float[Array, " Z"] | SharedLatent, action: Float[Array, " A"]) -> Float[Array, " Z"]:
        """Compute z' = d(z, a), or SimNorm(log z + d(z, a)) with residual dynamics, which is z where d is 0."""
        output = self.dynamics(self.state_action(z, action))
        if not self.residual_dynamics:
            return output
        latent = z.z if isinstance(z, SharedLatent) else z
        return simnorm(jnp.log(latent + LOG_EPS) + output, self.simnorm_dim)

    def rollout(
        self, z: Float[Array, " Z"], actions: Float[Array, "H A"], absorbing: Bool[Array, " H"]
    ) -> Float[Array, "H+1 Z"]:
        """Roll out latents z_0 .. z_H along actions, z_0 = z; `absorbing` marks absorbing states among z_1 .. z_H."""
        latents = [z]
        for action, terminated in zip(actions, absorbing, strict=True):
            latents.append(jnp.where(terminated, self.absorbing_latent, self.next(latents[-1], action)))
        return jnp.stack(latents)

    def predict_next(self, z: Float[Array, " Z"] | SharedLatent, action: Float[Array, " A"]) -> Float[Array, " Z"]:
        """Predict the next latent: d(z, a), or the absorbing latent where the termination head's logit is positive."""
        next_z = self.next(z, action)
        if self.termination is None:
            return next_z
        with jax.named_scope("termination"):
            return jnp.where(self.termination(self.state_action(z, action))[0] > 0.0, self.absorbing_latent, next_z)
