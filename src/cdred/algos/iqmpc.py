"""IQ-MPC (arXiv 2410.14081): inverse soft-Q learning on the world model; the reward is decoded from the critics."""

from functools import partial
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cdred.algos.losses import discounted_over_time, gradient_penalty, two_of
from cdred.algos.world_model_agent import LearnerState, Lived, Objective, WorldModelAgent, mean_value
from cdred.models.world_model import WorldModel
from cdred.nn.layers import Ensemble


class IQMPC(WorldModelAgent):
    """Critics whose Bellman residual is high on the expert's data, and small elsewhere; there is no reward model.

    Attributes:
        alpha: of the chi^2 divergence; the residuals' squares weigh 1 / (4 alpha).
        gradient_penalty: weight of (|dQ/dx| - 1)^2 between the expert's x and own ones.
    """

    imitates: ClassVar[bool] = True

    alpha: float = eqx.field(static=True)
    gradient_penalty: float = eqx.field(static=True)

    def objective(self, state: LearnerState, lived: Lived, key: Key[Array, ""]) -> Objective:
        """L_iq of docs/method.md section 6, for every critic of the ensemble."""
        now_key, next_key, penalty_key = jax.random.split(key, 3)
        (segments, latents, encoded), model = lived, state.model
        before, action = latents[:, :-1], segments.action
        q = jax.vmap(jax.vmap(lambda z, a: model.values(model.critics, z, a)))(before, action)
        v = soft_values(model, model.critics, before, self.entropy_coef, now_key)
        following = self.discount * self._following_value(state, encoded, next_key)[..., None]
        residual, drift = q - following, v - following
        each = jnp.mean(iq_loss(residual, drift, self.alpha), axis=-1)
        # Without weight no gradient is computed for it.
        if self.gradient_penalty:
            x = jnp.concatenate([before, action], axis=-1)
            each += self.gradient_penalty * gradient_penalty(partial(_values_at, model), x, penalty_key)
        return Objective(
            discounted_over_time(each, self.discount_time),
            jnp.zeros(()),
            jax.lax.stop_gradient(jnp.mean(residual, axis=-1)),
            {"expert_value": jnp.mean(jnp.split(v, 2)[0]), "value_absmax": jnp.max(jnp.abs(q))},
        )

    def imagined_reward(
        self, state: LearnerState, z: Float[Array, " Z"], action: Float[Array, " A"], following: Float[Array, " Z"]
    ) -> Float[Array, ""]:
        """r = Q(z, a) - gamma V(z'), the mean over critics, the prior at its mode."""
        model = state.model
        return jnp.mean(model.values(model.critics, z, action)) - self.discount * mean_value(model, following)

    def _following_value(
        self, state: LearnerState, encoded: Float[Array, "N H Z"], key: Key[Array, ""]
    ) -> Float[Array, "N H"]:
        """min_{2 of 5} Vbar(h(s_{t+1})), from the target critics."""
        pair_key, action_key = jax.random.split(key)
        pair = state.target_critics.subset(two_of(len(state.target_critics), pair_key))
        values = soft_values(state.model, pair, encoded, self.entropy_coef, action_key)
        return jax.lax.stop_gradient(jnp.min(values, axis=-1))


def soft_values(
    model: WorldModel, critics: Ensemble, z: Float[Array, "N T Z"], beta: float, key: Key[Array, ""]
) -> Float[Array, "N T num"]:
    """V(z) = Q(z, a) - beta log pi(a|z), a ~ pi, of each critic; the action is not differentiated."""

    def one(z, k):
        action, log_prob = model.pi(jax.lax.stop_gradient(z)).sample(k)
        return model.values(critics, z, action) - beta * log_prob

    return jax.vmap(jax.vmap(one))(z, jax.random.split(key, z.shape[:2]))


def iq_loss(residual: Float[Array, "N H num"], drift: Float[Array, "N H num"], alpha: float) -> Float[Array, "N H num"]:
    """-E_E[Q - gamma V'] + E[V - gamma V'] + E[(Q - gamma V')^2] / (4 alpha), as a mean over both stores' transitions.

    The middle term is (1 - gamma) E[V(s_0)], telescoped over what was lived through: segments begin anywhere in an
    episode (arXiv 2106.12142, section 5).

    Args:
        residual: Q(z_t, a_t) - gamma V(z_{t+1}), the expert's half first.
        drift: V(z_t) - gamma V(z_{t+1}).
        alpha: of the chi^2 divergence.
    """
    expert = jnp.where(jnp.arange(len(residual)) < len(residual) // 2, 2.0, 0.0)[:, None, None]
    return -expert * residual + drift + residual**2 / (4.0 * alpha)


def _values_at(model: WorldModel, x: Float[Array, " in"]) -> Float[Array, " num"]:
    """Q of each critic at x = (z, a)."""
    return model.values(model.critics, *jnp.split(x, [model.latent_dim]))
