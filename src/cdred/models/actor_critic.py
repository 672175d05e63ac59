"""Critics and policy that all value-learning methods share, on an encoded observation z."""

from abc import abstractmethod
from functools import partial
from typing import Self, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from cdred.nn.layers import MLP, Ensemble, SharedLatent, SplitInput, concat_input
from cdred.nn.normalizer import ObsNormalizer, normalize_obs
from cdred.nn.tanh_gaussian import TanhGaussian
from cdred.nn.two_hot import TwoHot
from cdred.types import ImageObs, Precision

# Encoded observations `[..., Z]`, or one that a batch of actions shares.
Latents = TypeVar("Latents", bound=Array | SharedLatent)


class ActorCritic(eqx.Module):
    """Policy pi and ensemble of critics Q on encoded observations z.

    Every method takes one example: an encoded observation `z [Z]`, an action `a [A]`, an observation `obs [*obs]`.

    A critic's outputs are the logits of a distribution that `two_hot` decodes, or, without `two_hot`, the value itself.
    """

    critics: eqx.AbstractVar[Ensemble]
    policy: eqx.AbstractVar[MLP]
    two_hot: eqx.AbstractVar[TwoHot | None]
    normalizer: eqx.AbstractVar[ObsNormalizer | None]

    @property
    @abstractmethod
    def absorbing_latent(self) -> Float[Array, " Z"]:
        """Encoding of the absorbing state after termination, which no observation is encoded as."""

    @abstractmethod
    def encode(self, obs: Float[Array, "*obs"] | ImageObs) -> Float[Array, " Z"]:
        """Encode an observation."""

    def features(self, z: Latents) -> Latents:
        """Compute what critics and reward models see of encoded observations: these, if not overridden."""
        return z

    @property
    @abstractmethod
    def actor(self) -> PyTree:
        """Networks between an observation and the policy's action."""

    @abstractmethod
    def replace_actor(self, actor: PyTree) -> Self:
        """Return the model with these networks in place of `actor`."""

    @jax.named_scope("policy")
    def pi(self, z: Float[Array, " Z"]) -> TanhGaussian:
        """Return the action distribution pi(. | z)."""
        return TanhGaussian.from_features(self.policy(z))

    @jax.named_scope("critics")
    def values(
        self, critics: Ensemble, z: Float[Array, " Z"] | SharedLatent, action: Float[Array, " A"]
    ) -> Float[Array, " N"]:
        """Compute the values of an ensemble of critics (online, target or a subset) at (z, a)."""
        return self._decode(critics(self.state_action(z, action)))

    def state_action(
        self, z: Float[Array, " Z"] | SharedLatent, action: Float[Array, " A"]
    ) -> Float[Array, " in"] | SplitInput:
        """Return x = (z, a) as critics, dynamics and termination head see it."""
        return concat_input(self.features(z), action)

    @jax.named_scope("critics")
    def values_per_critic(self, critics: Ensemble, x: Float[Array, "N in"]) -> Float[Array, " N"]:
        """Compute the value of critic i at x_i = (z, a)."""
        return self._decode(critics.per_member(x))

    def _decode(self, outputs: Float[Array, "N out"]) -> Float[Array, " N"]:
        return outputs[:, 0] if self.two_hot is None else jax.vmap(self.two_hot.decode)(outputs)


def make_critics(
    input_dim: int,
    hidden_dims: tuple[int, ...],
    two_hot: TwoHot | None,
    *,
    num: int,
    dropout: float = 0.0,
    precision: Precision,
    key: Key[Array, ""],
) -> Ensemble:
    """Initialise critics with zero output weights, so that every value starts at 0."""
    outputs = 1 if two_hot is None else two_hot.num_bins
    make = partial(MLP, input_dim, hidden_dims, outputs, zero_head=True, dropout=dropout, precision=precision)
    return Ensemble(lambda k: make(key=k), num, key=key)


class ObsActorCritic(ActorCritic):
    """Actor and critics on raw or normalised observations, without a world model.

    In episodic tasks a further component of z marks the absorbing state (arXiv 1809.02925).
    """

    normalizer: ObsNormalizer | None
    critics: Ensemble
    policy: MLP
    two_hot: TwoHot | None
    obs_dim: int = eqx.field(static=True)
    can_terminate: bool = eqx.field(static=True)

    @classmethod
    def create(
        cls,
        obs_dim: int,
        action_dim: int,
        *,
        hidden_dims: tuple[int, ...],
        num_critics: int,
        two_hot: TwoHot | None,
        can_terminate: bool = False,
        min_obs_std: float | None = None,
        policy_layer_norm: bool = True,
        precision: Precision = "float32",
        key: Key[Array, ""],
    ) -> Self:
        """Initialise the networks; without `min_obs_std` observations are not normalised."""
        critics_key, policy_key = jax.random.split(key)
        dim = obs_dim + can_terminate
        return cls(
            normalizer=None if min_obs_std is None else ObsNormalizer.identity(obs_dim, min_obs_std),
            critics=make_critics(
                dim + action_dim, hidden_dims, two_hot, num=num_critics, precision=precision, key=critics_key
            ),
            policy=MLP(
                dim, hidden_dims, 2 * action_dim, layer_norm=policy_layer_norm, precision=precision, key=policy_key
            ),
            two_hot=two_hot,
            obs_dim=obs_dim,
            can_terminate=can_terminate,
        )

    @property
    def absorbing_latent(self) -> Float[Array, " Z"]:
        """One-hot absorbing-state indicator."""
        return jax.nn.one_hot(self.obs_dim, self.obs_dim + self.can_terminate)

    def encode(self, obs: Float[Array, "*obs"] | ImageObs) -> Float[Array, " Z"]:
        """Flatten and normalise the observation, without images."""
        assert not isinstance(obs, ImageObs), "images need a world model"
        return jnp.pad(normalize_obs(self.normalizer, obs), (0, int(self.can_terminate)))

    @property
    def actor(self) -> MLP:
        return self.policy

    def replace_actor(self, actor: MLP) -> Self:
        return eqx.tree_at(lambda m: m.policy, self, actor)
