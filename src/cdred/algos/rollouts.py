"""Latents of segments: rolled out by the dynamics, with a scaled gradient to the encoder."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cdred.algos.method import encode_batch
from cdred.models.world_model import WorldModel
from cdred.types import Segment, map_obs


def batch_latents(
    model: WorldModel, segments: Segment, encoder_scale: Float[Array, ""] | None = None
) -> Float[Array, "N T Z"]:
    """Roll out the latents of a batch; where actions are unknown, encode the observations instead."""
    unknown = len(segments.absorbing) - len(segments.action)
    known = jax.tree.map(lambda x: x[-len(segments.action) :], segments)
    rolled_out = jax.vmap(rollout_latents, in_axes=(None, 0, None))(model, known, encoder_scale)
    if not unknown:
        return rolled_out
    encoded = encode_batch(model, map_obs(lambda x: x[:unknown], segments.obs), segments.absorbing[:unknown])
    return jnp.concatenate([jax.lax.stop_gradient(encoded), rolled_out])


def rollout_latents(
    model: WorldModel, segment: Segment, encoder_scale: Float[Array, ""] | None = None
) -> Float[Array, "T Z"]:
    """Roll out the latents of a segment from z_0 = h(s_0) along its actions; scale the gradient of h, if given."""
    encoded = scale_gradient(model.encode(map_obs(lambda x: x[0], segment.obs)), encoder_scale)
    first = jnp.where(segment.absorbing[0], model.absorbing_latent, encoded)
    return model.rollout(first, segment.action, segment.absorbing[1:])


def scale_gradient(x: Float[Array, "..."], scale: Float[Array, ""] | None) -> Float[Array, "..."]:
    """Return x, through which gradients are multiplied by `scale`, if given."""
    if scale is None:
        return x
    fixed = jax.lax.stop_gradient(x)
    return fixed + scale * (x - fixed)
