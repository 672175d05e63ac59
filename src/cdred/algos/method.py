"""A batch as networks see it, and what is learned from it: where encodings, methods and agents meet."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from cdred.algos.base import Batch, Metrics
from cdred.models.actor_critic import ActorCritic
from cdred.types import Segment


class Lived(NamedTuple):
    """A batch as the model sees it: all segments, the expert's first; their latents, rolled out and encoded.

    `latents` are z_0 .. z_H as the dynamics make them, `encoded` h(s_1) .. h(s_H). Without dynamics H is 1, and the
    latents are encoded too.
    """

    segments: Segment
    latents: Float[Array, "N T Z"]
    encoded: Float[Array, "N H Z"]

    @property
    def inputs(self) -> Float[Array, "N H in"]:
        """x_t = (z_t, a_t), concatenated."""
        return jnp.concatenate([self.latents[:, :-1], self.segments.action], axis=-1)


class Objective(NamedTuple):
    """What is good about a batch: the losses of those who learn it, the reward as they see it, and metrics."""

    critic_loss: Float[Array, ""]
    reward_loss: Float[Array, ""]
    reward: Float[Array, "N H"]
    metrics: Metrics


def joined(batch: Batch) -> Segment:
    """The segments of all stores, the expert's first."""
    assert batch.agent is not None, "critics learn from what was lived through"
    if batch.expert is None:
        return batch.agent
    return jax.tree.map(lambda e, o: jnp.concatenate([e, o]), batch.expert, batch.agent)


def encode(model: ActorCritic, obs: Float[Array, "N T ..."], absorbing: Bool[Array, "N T"]) -> Float[Array, "N T Z"]:
    """The latents of observations, the absorbing one where the world has ended."""
    latents = jax.vmap(jax.vmap(model.encode))(obs)
    return jnp.where(absorbing[..., None], model.absorbing, latents)


def mean_rewards(reward: Float[Array, "N H"], uses_demos: bool) -> Metrics:
    """The mean reward of each store, for the log."""
    stores = ("reward_expert", "reward_agent") if uses_demos else ("reward_agent",)
    return {name: jnp.mean(one) for name, one in zip(stores, jnp.split(reward, len(stores)), strict=True)}
