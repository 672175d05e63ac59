"""Inverse soft-Q learning (IQ-Learn, arXiv 2106.12142): critics that are the reward as well, on any encoding."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cdred.algos import losses
from cdred.algos.method import Lived, Objective
from cdred.models.actor_critic import ActorCritic
from cdred.nn.layers import Ensemble


def inverse_q(
    model: ActorCritic,
    target_critics: Ensemble,
    lived: Lived,
    *,
    alpha: float,
    gradient_penalty: float,
    discount: float,
    rho: float,
    beta: float,
    key: Key[Array, ""],
) -> Objective:
    """L_iq of docs/method.md section 6, for every critic of the ensemble.

    Args:
        model: whose critics are differentiated.
        target_critics: of the values beyond a transition.
        lived: a batch, the expert's half first.
        alpha: of the chi^2 divergence; the residuals' squares weigh 1 / (4 alpha).
        gradient_penalty: weight of (|dQ/dx| - 1)^2 between the expert's x and own ones.
        discount: gamma.
        rho: lambda.
        beta: the policy's temperature.
        key: of the actions that values are estimated with.
    """
    now_key, next_key, penalty_key = jax.random.split(key, 3)
    before, action = lived.latents[:, :-1], lived.segments.action
    q = jax.vmap(jax.vmap(partial(model.values, model.critics)))(before, action)
    v = losses.soft_values(model, model.critics, before, beta, now_key)
    following = discount * losses.next_values(model, target_critics, lived.encoded, beta, next_key)[..., None]
    residual = q - following
    each = jnp.mean(iq_loss(residual, (1.0 - discount) * v, alpha), axis=-1)
    # Without weight no gradient is computed for it.
    if gradient_penalty:
        values = partial(model.values_of_each, model.critics)
        each += gradient_penalty * losses.gradient_penalty(values, lived.inputs, penalty_key, len(model.critics))
    return Objective(
        losses.discounted_over_time(each, rho),
        jnp.zeros(()),
        jax.lax.stop_gradient(jnp.mean(residual, axis=-1)),
        {"v_expert": jnp.mean(jnp.split(v, 2)[0]), "q_abs_max": jnp.max(jnp.abs(q))},
    )


def iq_loss(residual: Float[Array, "N H num"], start: Float[Array, "N H num"], alpha: float) -> Float[Array, "N H num"]:
    """-E_E[Q - gamma V'] + (1 - gamma) E_E[V] + E[(Q - gamma V')^2] / (4 alpha), as a mean over both stores.

    Any of the expert's states may be a first one, for segments begin anywhere in an episode. (1 - gamma) E[V(s_0)] also
    telescopes to E[V - gamma V'], but not where gamma V' is a target without gradient, as it is here: what is left of
    that is E[V], which presses on all values with 1 / (1 - gamma) times the weight: the reward drowns (results/peers).

    Args:
        residual: Q(z_t, a_t) - gamma V(z_{t+1}), the expert's half first.
        start: (1 - gamma) V(z_t).
        alpha: of the chi^2 divergence.
    """
    expert = jnp.where(jnp.arange(len(residual)) < len(residual) // 2, 2.0, 0.0)[:, None, None]
    return expert * (start - residual) + residual**2 / (4.0 * alpha)
