"""TD regression of critics on a learned or given reward."""

from abc import abstractmethod
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cdred.algos import losses
from cdred.algos.base import Metrics
from cdred.algos.method import CriticState, LatentBatch, Method, MethodLosses, TDParams
from cdred.algos.reward_input import transition_input
from cdred.nn.layers import SharedLatent


class RewardOutput(NamedTuple):
    """Reward model's loss and reward per transition, the reward without gradient, and metrics."""

    loss: Float[Array, "N H"]
    reward: Float[Array, "N H"]
    metrics: Metrics


class RewardMethod(Method):
    """Method whose critics learn from a reward model; implementations differ only in that model."""

    @abstractmethod
    def reward_output(self, state: CriticState, batch: LatentBatch, key: Key[Array, ""]) -> RewardOutput:
        """Compute the reward model's loss and reward on a batch, the reward without gradient."""

    def losses(self, state: CriticState, batch: LatentBatch, params: TDParams, key: Key[Array, ""]) -> MethodLosses:
        reward_key, value_key, dropout_key = jax.random.split(key, 3)
        output = self.reward_output(state, batch, reward_key)
        return td_losses(state, batch, output, params, value_key, dropout_key)

    def reward(
        self,
        state: CriticState,
        z: Float[Array, " Z"] | SharedLatent,
        action: Float[Array, " A"],
        next_z: Float[Array, " Z"],
        discount: float,
    ) -> Float[Array, ""]:
        del discount
        features, next_features = state.model.features(z), state.model.features(next_z)
        return state.reward(transition_input(self.reward_input, features, action, next_features))


def td_losses(
    state: CriticState,
    batch: LatentBatch,
    output: RewardOutput,
    params: TDParams,
    value_key: Key[Array, ""],
    dropout_key: Key[Array, ""],
) -> MethodLosses:
    """Compute the critic loss on q_t = R_t + gamma min_{2 of 5} Qbar(h(s_{t+1}), a'), and the reward loss.

    Critics learn from transitions with known actions.

    Args:
        state: its critics are differentiated; its target critics give the values of next states.
        batch: latents, actions and target latents.
        output: of the reward model.
        params: discount, rho and entropy coefficient of the targets.
        value_key: of the actions sampled for target values.
        dropout_key: of the critics' dropout.
    """
    entropy_coef = params.target_entropy_coef
    latents, target_latents, reward = map(batch.with_actions, (batch.latents, batch.target_latents, output.reward))
    value = losses.target_values(state.model, state.target_critics, target_latents, entropy_coef, value_key)
    target = jax.lax.stop_gradient(reward + params.discount * value)
    args = (latents[:, :-1], batch.segments.action, target, params.rho, dropout_key)
    return MethodLosses(
        losses.critic_loss(state.model, *args),
        losses.rho_weighted(output.loss, params.rho),
        output.reward,
        output.metrics | {"td_target": jnp.mean(target), "td_target_abs_max": jnp.max(jnp.abs(target))},
    )
