"""Inverse soft-Q learning: IQ-MPC (arXiv 2410.14081) on a world model, IQ-Learn (arXiv 2106.12142) with SAC."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cdred.algos import losses
from cdred.algos.method import CriticState, LatentBatch, Method, MethodLosses, TDParams
from cdred.constraints import NonNegative, Positive
from cdred.nn.layers import SharedLatent


@dataclass(frozen=True)
class IQLearnConfig:
    """Inverse soft-Q learning (iqmpc, iqlearn-sac)."""

    chi2_coef: Positive = 0.5
    """Coefficient alpha of the chi^2 divergence: squared Bellman residuals have weight 1 / (4 alpha)."""
    gradient_penalty: NonNegative = 0.0
    """Weight of the critics' gradient penalty."""


def iq_learn_losses(
    state: CriticState, batch: LatentBatch, params: TDParams, config: IQLearnConfig, key: Key[Array, ""]
) -> MethodLosses:
    """Compute L_iq for every critic of the ensemble, on a batch with the expert's half first."""
    model, beta = state.model, params.entropy_coef
    now_key, next_key, penalty_key = jax.random.split(key, 3)
    z, action = batch.latents[:, :-1], batch.segments.action
    q = jax.vmap(jax.vmap(partial(model.values, model.critics)))(z, action)
    v = losses.soft_values(model, model.critics, z, beta, now_key)
    next_value = losses.target_values(model, state.target_critics, batch.target_latents, beta, next_key)
    td_residual = q - params.discount * next_value[..., None]
    loss = jnp.mean(iq_loss(td_residual, (1.0 - params.discount) * v, config.chi2_coef), axis=-1)
    # Without a weight the penalty's gradient need not be computed.
    if config.gradient_penalty:
        values = partial(model.values_per_critic, model.critics)
        penalty = losses.gradient_penalty(values, batch.state_actions(model), penalty_key, len(model.critics))
        loss += config.gradient_penalty * penalty
    return MethodLosses(
        losses.rho_weighted(loss, params.rho),
        jnp.zeros(()),
        jax.lax.stop_gradient(jnp.mean(td_residual, axis=-1)),
        {"v_expert": jnp.mean(jnp.split(v, 2)[0]), "q_abs_max": jnp.max(jnp.abs(q))},
    )


def iq_loss(
    td_residual: Float[Array, "N H num"], initial_value: Float[Array, "N H num"], chi2_coef: float
) -> Float[Array, "N H num"]:
    """Compute -E_E[Q - gamma V'] + (1 - gamma) E_E[V] + E[(Q - gamma V')^2] / (4 alpha) as terms of a mean over all.

    Segments begin anywhere in an episode, so any expert state may be an initial state. (1 - gamma) E[V(s_0)] telescopes
    to E[V - gamma V'] as well, but not here, where gamma V' is a target without gradient: only E[V] would remain, which
    lowers all values with 1 / (1 - gamma) times the weight and hides the reward.

    Args:
        td_residual: Q(z_t, a_t) - gamma V(z_{t+1}), the expert's half first.
        initial_value: (1 - gamma) V(z_t).
        chi2_coef: alpha of the chi^2 divergence.
    """
    expert = jnp.where(jnp.arange(len(td_residual)) < len(td_residual) // 2, 2.0, 0.0)[:, None, None]
    return expert * (initial_value - td_residual) + td_residual**2 / (4.0 * chi2_coef)


class IQLearn(Method):
    """Inverse soft-Q learning: scalar critics with a high Bellman residual on the expert's data; no reward model.

    In planning the reward is decoded as r = Q(z, a) - gamma V(z').
    """

    has_warmup: ClassVar[bool] = False
    scalar_critics: ClassVar[bool] = True

    config: IQLearnConfig = eqx.field(static=True)

    def make_reward(self, input_dim: int, *, key: Key[Array, ""]) -> None:
        del input_dim, key

    def losses(self, state: CriticState, batch: LatentBatch, params: TDParams, key: Key[Array, ""]) -> MethodLosses:
        return iq_learn_losses(state, batch, params, self.config, key)

    def reward(
        self,
        state: CriticState,
        z: Float[Array, " Z"] | SharedLatent,
        action: Float[Array, " A"],
        next_z: Float[Array, " Z"],
        discount: float,
    ) -> Float[Array, ""]:
        """Decode r = Q(z, a) - gamma V(z'), the mean over critics, with the policy's mode as next action."""
        model = state.model
        return jnp.mean(model.values(model.critics, z, action)) - discount * losses.bootstrap_value(model, next_z)
