"""What a reward model estimates its density or classifier on: states, states with actions, or transitions.

Without actions, demonstrations teach by their observations alone, as in GAIfO (arXiv 1807.06158) and MPAIL2
(arXiv 2602.24121).
"""

from typing import Literal, assert_never

import jax.numpy as jnp
from jaxtyping import Array, Float

from cdred.nn.layers import SharedLatent, SplitInput, concat_input

RewardInput = Literal["state-action", "transition", "state"]


def input_dim(kind: RewardInput, latent_dim: int, action_dim: int) -> int:
    """Return the number of components of a reward model's input."""
    return {"state-action": latent_dim + action_dim, "transition": 2 * latent_dim, "state": latent_dim}[kind]


def transition_input(
    kind: RewardInput,
    z: Float[Array, " Z"] | SharedLatent,
    action: Float[Array, " A"],
    next_z: Float[Array, " Z"],
) -> Float[Array, " in"] | SplitInput:
    """Return x = (z, a), (z, z') or z', the input of a reward model for one transition.

    The state is that which the action leads to: the reward of the present one would not depend on the action.
    """
    match kind:
        case "state-action":
            return concat_input(z, action)
        case "transition":
            return concat_input(z, next_z)
        case "state":
            return next_z
        case _:
            assert_never(kind)


def batch_input(
    kind: RewardInput,
    latents: Float[Array, "N T Z"],
    action: Float[Array, "M H A"],
    target_latents: Float[Array, "N H Z"],
) -> Float[Array, "N H in"]:
    """Return the inputs of a batch of segments.

    With actions they are the rolled-out latents, as in planning. Without, they are encodings of observations: a
    rolled-out latent depends on the actions.

    Args:
        kind: kind of input.
        latents: z_0 .. z_H, the first of which is an encoding.
        action: a_0 .. a_{H-1}, of all N segments if it is part of the input.
        target_latents: encodings h(s_1) .. h(s_H).
    """
    if kind == "state-action":
        return jnp.concatenate([latents[:, :-1], action], axis=-1)
    if kind == "state":
        return target_latents
    encoded = jnp.concatenate([latents[:, :1], target_latents], axis=1)
    return jnp.concatenate([encoded[:, :-1], encoded[:, 1:]], axis=-1)
