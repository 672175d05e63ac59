"""Critics that learn from a reward: regression on one-step targets, whoever says what the reward is."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cdred.algos import losses
from cdred.algos.method import Lived, Objective
from cdred.models.actor_critic import ActorCritic
from cdred.nn.layers import Ensemble


class Scores(NamedTuple):
    """What a reward model makes of a batch: its loss, and the reward that critics learn from, per transition."""

    loss: Float[Array, "N H"]
    reward: Float[Array, "N H"]


def regress(
    model: ActorCritic,
    target_critics: Ensemble,
    lived: Lived,
    scores: Scores,
    *,
    discount: float,
    rho: float,
    beta: float,
    value_key: Key[Array, ""],
    dropout_key: Key[Array, ""],
) -> Objective:
    """q_t = R(z_t, a_t) + gamma min_{2 of 5} Vbar(h(s_{t+1})), and the reward model's own loss.

    Args:
        model: whose critics are differentiated.
        target_critics: of the values beyond a transition.
        lived: a batch.
        scores: what the reward model makes of it.
        discount: gamma.
        rho: lambda.
        beta: the policy's temperature, of V = Q - beta log pi; TD-MPC2's values leave the entropy out.
        value_key: of the actions that values are estimated with.
        dropout_key: of the critics' dropout.
    """
    value = losses.next_values(model, target_critics, lived.encoded, beta, value_key)
    target = jax.lax.stop_gradient(scores.reward + discount * value)
    args = (lived.latents[:, :-1], lived.segments.action, target, rho, dropout_key)
    return Objective(
        losses.critic_loss(model, *args),
        losses.discounted_over_time(scores.loss, rho),
        scores.reward,
        {"td_target": jnp.mean(target), "td_target_abs_max": jnp.max(jnp.abs(target))},
    )
