"""Soft actor-critic (arXiv 1801.01290) on raw observations, with any method's losses: baselines without a world model.

Replay buffers, schedules, network sizes and updates per step are those of the world-model agent.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from cdred.algos import losses
from cdred.algos.base import Algorithm, Batch, Metrics
from cdred.algos.diagnostics import diagnostics, gradient_share
from cdred.algos.method import (
    LatentBatch,
    Method,
    TDParams,
    concat_batch,
    encode_batch,
    reward_metrics,
    set_obs_stats,
)
from cdred.algos.optim import OptimConfig
from cdred.algos.pretrain import Pretrained, Pretraining, choose_action, self_imitation_loss
from cdred.algos.reward_input import input_dim
from cdred.constraints import NonNegative
from cdred.models.actor_critic import ObsActorCritic
from cdred.nn.layers import Ensemble, ema
from cdred.planning.mppi import MPPIState
from cdred.types import ImageObs, Segment


@dataclass(frozen=True)
class SACConfig:
    """Soft actor-critic (methods on raw observations); its networks have `model.hidden_dims`."""

    entropy_coef: NonNegative = 0.01
    """Fixed entropy coefficient of policy and targets: learning it destabilises inverse Q-learning."""


class CriticParams(NamedTuple):
    """Parameters that are differentiated together: critics and reward model, everything but the policy."""

    critics: PyTree
    reward: PyTree


class SACState(eqx.Module):
    """Networks, target critics and optimiser states.

    `reward` is None for a method without a reward model, `pretrained` without pretraining.
    """

    model: ObsActorCritic
    reward: Any
    pretrained: Pretrained | None
    target_critics: Ensemble
    critic_opt_state: optax.OptState
    policy_opt_state: optax.OptState
    updates: Int[Array, ""]

    @property
    def trainable(self) -> CriticParams:
        return CriticParams(self.model.critics, None if self.reward is None else self.reward.trainable)

    def replace_trainable(self, new: CriticParams) -> "SACState":
        """Return the state with these parameters."""
        state = eqx.tree_at(lambda s: s.model.critics, self, new.critics)
        return state if new.reward is None else eqx.tree_at(lambda s: s.reward.trainable, state, new.reward)


class SACAgent(Algorithm[SACState]):
    """Actor and critics with a fixed entropy coefficient, trained on one method's losses.

    Attributes:
        method: losses and reward model.
        config: BC weight, target EMA rate, warm-up.
        entropy_coef: of policy and targets.
        make_model: initialises actor and critics from a key.
        horizon, action_dim: shape of the (unused) planner state.
        discount: gamma.
        critic_optimizer, policy_optimizer: of critics and reward model, and of the policy.
        pretraining: None without.
    """

    uses_env: ClassVar[bool] = True

    method: Method
    config: OptimConfig = eqx.field(static=True)
    entropy_coef: float = eqx.field(static=True)
    make_model: Callable[..., ObsActorCritic] = eqx.field(static=True)
    horizon: int = eqx.field(static=True)
    action_dim: int = eqx.field(static=True)
    discount: float = eqx.field(static=True)
    critic_optimizer: optax.GradientTransformation = eqx.field(static=True)
    policy_optimizer: optax.GradientTransformation = eqx.field(static=True)
    pretraining: Pretraining | None

    @property
    def uses_demos(self) -> bool:
        return self.method.uses_demos

    def init(self, key: Key[Array, ""]) -> SACState:
        model_key, reward_key = jax.random.split(key)
        model = self.make_model(key=model_key)
        dim = input_dim(self.method.reward_input, len(model.absorbing_latent), self.action_dim)
        state = SACState(
            model=model,
            reward=self.method.make_reward(dim, key=reward_key),
            # A copy, so that no buffer is donated twice.
            target_critics=jax.tree.map(jnp.copy, model.critics),
            pretrained=None if self.pretraining is None else self.pretraining.placeholder(model),
            critic_opt_state=(),
            policy_opt_state=self.policy_optimizer.init(eqx.filter(model.policy, eqx.is_array)),
            updates=jnp.zeros((), jnp.int32),
        )
        return eqx.tree_at(lambda s: s.critic_opt_state, state, self.critic_optimizer.init(state.trainable))

    def init_plan(self) -> MPPIState:
        return MPPIState.create(self.horizon, self.action_dim)

    def set_obs_stats(self, state: SACState, mean: Float[Array, " obs"], std: Float[Array, " obs"]) -> SACState:
        return set_obs_stats(state, mean, std)

    def update(self, state: SACState, batch: Batch, key: Key[Array, ""]) -> tuple[SACState, Metrics]:
        critic_key, policy_key = jax.random.split(key)
        transitions = _as_transitions(state.model, batch)
        state, metrics = self._update_critics(state, transitions, critic_key)
        state, policy_metrics = self._update_policy(state, transitions, batch.selected, policy_key)
        state = eqx.tree_at(
            lambda s: (s.target_critics, s.updates),
            state,
            (ema(state.target_critics, state.model.critics, self.config.tau), state.updates + 1),
        )
        return state, metrics | policy_metrics

    def _update_critics(self, state, batch, key):
        params = TDParams(self.discount, 1.0, self.entropy_coef, target_entropy_coef=self.entropy_coef)

        def loss(trainable):
            method = self.method.losses(state.replace_trainable(trainable), batch, params, key)
            terms = {"critic_loss": method.critic_loss, "reward_loss": method.reward_loss}
            total = self._past_warmup(state) * method.critic_loss + method.reward_loss
            return total, terms | {"loss": total} | reward_metrics(method.reward, self.uses_demos) | method.metrics

        grads, metrics = jax.grad(loss, has_aux=True)(state.trainable)
        updates, opt_state = self.critic_optimizer.update(grads, state.critic_opt_state)
        state = state.replace_trainable(optax.apply_updates(state.trainable, updates))
        state = eqx.tree_at(lambda s: s.critic_opt_state, state, opt_state)
        if state.reward is not None:
            state = eqx.tree_at(lambda s: s.reward, state, state.reward.after_update(metrics))
        return state, metrics | {"grad_norm": optax.tree.norm(grads)}

    def _update_policy(self, state, batch, selected, key):
        def loss(policy):
            soft, (values, log_prob) = self._critic_term(policy, state, batch, key)
            metrics = {"policy_loss": soft, "q_pi": jnp.mean(values), "policy_entropy": -log_prob}
            total = self._past_warmup(state) * soft
            if self.uses_demos and batch.all_actions_known:
                bc = metrics["bc_loss"] = _bc_loss(policy, state, batch)
                # Without a weight the term is a metric only, and needs no gradient.
                total += self.config.bc_coef * bc if self.config.bc_coef else 0.0
            if selected is not None and self.pretraining is not None:
                metrics["self_imitation_loss"] = self_imitation_loss(policy, state.model, selected)
                total += self.pretraining.config.self_imitation_coef * metrics["self_imitation_loss"]
            return total, metrics

        grads, metrics = jax.grad(loss, has_aux=True)(state.model.policy)
        updates, opt_state = self.policy_optimizer.update(grads, state.policy_opt_state)
        new = (optax.apply_updates(state.model.policy, updates), opt_state)
        state = eqx.tree_at(lambda s: (s.model.policy, s.policy_opt_state), state, new)
        return state, metrics | {"policy_grad_norm": optax.tree.norm(grads)}

    def _critic_term(self, policy, state, batch, key):
        """Compute L_pi without the BC term, as `losses.policy_loss`."""
        args = (policy, state.model, batch.latents[:, :-1], jnp.ones(()), self.entropy_coef, 1.0, key)
        return losses.policy_loss(*args)

    def diagnostics(
        self, state: SACState, batch: Batch, recent: Segment, valid: Bool[Array, " N"], key: Key[Array, ""]
    ) -> Metrics:
        """Compute the shared diagnostics and Q's part in L_pi; without dynamics there is no prediction error."""
        del recent, valid
        metrics = diagnostics(state.model, state.reward, self.method.reward_input, batch)
        if batch.expert_with_actions is not None and self.config.bc_coef:
            transitions = _as_transitions(state.model, batch)
            critics_only = jax.grad(lambda policy: self._critic_term(policy, state, transitions, key)[0])
            bc_only = jax.grad(lambda policy: self.config.bc_coef * _bc_loss(policy, state, transitions))
            policy = state.model.policy
            metrics["q_gradient_share"] = gradient_share(critics_only(policy), bc_only(policy))
        return metrics

    def _past_warmup(self, state: SACState) -> Float[Array, ""]:
        warmup = self.config.reward_warmup_updates if self.method.has_warmup else 0
        return (state.updates >= warmup).astype(jnp.float32)

    def act(
        self,
        state: SACState,
        plan: MPPIState,
        obs: Float[Array, "..."] | ImageObs,
        key: Key[Array, ""],
        explore: Bool[Array, ""],
    ) -> tuple[Float[Array, " A"], MPPIState]:
        policy = state.model.pi(state.model.encode(obs))
        action = jnp.where(explore, policy.sample(key)[0], policy.mode)
        return choose_action(state.model, state.pretrained, action, obs, explore), plan


def _bc_loss(policy, state, batch):
    """Compute the BC loss on the expert's transitions, which come first."""
    expert = jax.tree.map(lambda x: x[: len(x) // 2], batch.segments)
    expert_z, absorbing = batch.latents[: len(expert.action), :-1], expert.absorbing[:, :-1]
    return losses.bc_loss(policy, state.model, expert_z, expert.action, absorbing, 1.0)


def _as_transitions(model: ObsActorCritic, batch: Batch) -> LatentBatch:
    """Split all segments into transitions, each a segment of length 1."""
    segments = concat_batch(batch)
    assert not isinstance(segments.obs, ImageObs), "images need a world model"
    flat = Segment(
        obs=_pairs(segments.obs),
        action=segments.action.reshape(-1, 1, segments.action.shape[-1]),
        reward=segments.reward.reshape(-1, 1),
        absorbing=_pairs(segments.absorbing),
    )
    z = encode_batch(model, flat.obs, flat.absorbing)
    return LatentBatch(flat, z, z[:, 1:])


def _pairs(rows: Array) -> Array:
    """Reshape [N, H + 1, ...] to [N H, 2, ...], the start and end of each transition."""
    return jnp.stack([rows[:, :-1], rows[:, 1:]], axis=2).reshape(-1, 2, *rows.shape[2:])
