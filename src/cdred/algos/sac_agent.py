"""Soft actor-critic (arXiv 1801.01290) on raw observations: what the peers were before they had a world model.

A method says what its critics learn, as on the world model: from a reward model's scores (`reward_sac.py`), or from the
demonstrations themselves (`iqlearn_sac.py`). Stores, schedules, networks' sizes and updates per step are the same.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from cdred.algos import losses
from cdred.algos.base import Algorithm, Batch, Metrics
from cdred.algos.diagnostics import signs
from cdred.algos.method import Lived, Objective, encode, joined, mean_rewards
from cdred.algos.reward_model import RewardModel
from cdred.models.actor_critic import ObsActorCritic
from cdred.nn.layers import Ensemble, ema
from cdred.nn.normalizer import ObsNormalizer
from cdred.planning.mppi import MPPIState
from cdred.types import Segment


class Judges(NamedTuple):
    """What is differentiated together: everything but the policy."""

    critics: PyTree
    reward: PyTree


class SACState(eqx.Module):
    """The whole agent; `reward` is None where the critics are the reward."""

    model: ObsActorCritic
    reward: Any
    target_critics: Ensemble
    judges_opt: optax.OptState
    policy_opt: optax.OptState
    updates: Int[Array, ""]

    @property
    def judges(self) -> Judges:
        return Judges(self.model.critics, None if self.reward is None else self.reward.trainable)

    def replace_judges(self, new: Judges) -> "SACState":
        """The state with critics and reward exchanged."""
        state = eqx.tree_at(lambda s: s.model.critics, self, new.critics)
        return state if new.reward is None else eqx.tree_at(lambda s: s.reward.trainable, state, new.reward)


class SACAgent(Algorithm[SACState]):
    """Actor and critics at a fixed temperature, which peers need: learning it destabilises inverse Q-learning.

    Attributes:
        make_model, make_reward: build fresh networks from a key; no reward model is made if the second is None.
        horizon, action_dim: of the plan that it does not make.
        discount: gamma.
        temperature: weight of the policy's entropy, beside values as they are.
        bc_coef: per update, the weight of the policy's squared distance from the expert's actions; None without.
        warmup_updates: updates that fit the reward model before anybody else learns from it.
    """

    uses_demos: ClassVar[bool] = True

    make_model: Callable[..., ObsActorCritic] = eqx.field(static=True)
    make_reward: Callable[..., RewardModel] | None = eqx.field(static=True)
    judges_optimiser: optax.GradientTransformation = eqx.field(static=True)
    policy_optimiser: optax.GradientTransformation = eqx.field(static=True)
    horizon: int = eqx.field(static=True)
    action_dim: int = eqx.field(static=True)
    discount: float = eqx.field(static=True)
    temperature: float = eqx.field(static=True)
    bc_coef: optax.Schedule | None = eqx.field(static=True)
    tau: float = eqx.field(static=True)
    warmup_updates: int = eqx.field(static=True)

    @abstractmethod
    def objective(self, state: SACState, lived: Lived, key: Key[Array, ""]) -> Objective:
        """What critics and reward model learn from a batch. `state` holds what is differentiated."""

    def init(self, key: Key[Array, ""]) -> SACState:
        model_key, reward_key = jax.random.split(key)
        model = self.make_model(key=model_key)
        state = SACState(
            model=model,
            reward=None if self.make_reward is None else self.make_reward(key=reward_key),
            # A copy, so that donated buffers are never given away twice.
            target_critics=jax.tree.map(jnp.copy, model.critics),
            judges_opt=(),
            policy_opt=self.policy_optimiser.init(eqx.filter(model.policy, eqx.is_array)),
            updates=jnp.zeros((), jnp.int32),
        )
        return eqx.tree_at(lambda s: s.judges_opt, state, self.judges_optimiser.init(state.judges))

    def init_plan(self) -> MPPIState:
        return MPPIState.create(self.horizon, self.action_dim)

    def set_obs_stats(self, state: SACState, mean, std) -> SACState:
        if state.model.normalizer is None:
            return state
        return eqx.tree_at(lambda s: s.model.normalizer, state, ObsNormalizer.fitted(mean, std))

    def update(self, state: SACState, batch: Batch, key: Key[Array, ""]) -> tuple[SACState, Metrics]:
        judges_key, policy_key = jax.random.split(key)
        lived = _lived(state.model, batch)
        state, metrics = self._update_judges(state, lived, judges_key)
        state, policy_metrics = self._update_policy(state, lived, policy_key)
        state = eqx.tree_at(
            lambda s: (s.target_critics, s.updates),
            state,
            (ema(state.target_critics, state.model.critics, self.tau), state.updates + 1),
        )
        return state, metrics | policy_metrics

    def _update_judges(self, state, lived, key):
        def loss(judges):
            objective = self.objective(state.replace_judges(judges), lived, key)
            terms = {"critic_loss": objective.critic_loss, "reward_loss": objective.reward_loss}
            total = self._learning(state) * objective.critic_loss + objective.reward_loss
            return total, terms | {"loss": total} | mean_rewards(objective.reward, self.uses_demos) | objective.metrics

        grads, metrics = jax.grad(loss, has_aux=True)(state.judges)
        updates, opt = self.judges_optimiser.update(grads, state.judges_opt)
        state = state.replace_judges(optax.apply_updates(state.judges, updates))
        state = eqx.tree_at(lambda s: s.judges_opt, state, opt)
        if state.reward is not None:
            state = eqx.tree_at(lambda s: s.reward, state, state.reward.settled())
        return state, metrics | {"grad_norm": optax.tree.norm(grads)}

    def _update_policy(self, state, lived, key):
        there = lived.latents[:, :-1]
        expert = jax.tree.map(lambda x: x[: len(x) // 2], lived.segments)

        def loss(policy):
            args = (policy, state.model, there, jnp.ones(()), self.temperature, 1.0, key)
            soft, (values, log_prob) = losses.policy_loss(*args)
            shown, over = there[: len(expert.action)], expert.absorbing[:, :-1]
            imitation = losses.bc_loss(policy, state.model, shown, expert.action, over, 1.0)
            metrics = {"policy_loss": soft, "q_pi": jnp.mean(values), "policy_entropy": -log_prob}
            total = self._learning(state) * soft
            # Without weight it is a metric, and no gradient is computed for it.
            total += self.bc_coef(state.updates) * imitation if self.bc_coef else 0.0
            return total, metrics | {"bc_loss": imitation}

        grads, metrics = jax.grad(loss, has_aux=True)(state.model.policy)
        updates, opt = self.policy_optimiser.update(grads, state.policy_opt)
        new = (optax.apply_updates(state.model.policy, updates), opt)
        state = eqx.tree_at(lambda s: (s.model.policy, s.policy_opt), state, new)
        return state, metrics | {"policy_grad_norm": optax.tree.norm(grads)}

    def diagnostics(self, state: SACState, batch: Batch, newest: Segment, there: Bool[Array, " N"]) -> Metrics:
        del newest, there  # without dynamics there is nothing to predict
        return signs(state.model, state.reward, batch)

    def _learning(self, state: SACState) -> Float[Array, ""]:
        """0 while the reward model warms up, then 1."""
        return (state.updates >= self.warmup_updates).astype(jnp.float32)

    def act(
        self, state: SACState, plan: MPPIState, obs: Float[Array, "..."], key: Key[Array, ""], explore: Bool[Array, ""]
    ) -> tuple[Float[Array, " A"], MPPIState]:
        policy = state.model.pi(state.model.encode(obs))
        return jnp.where(explore, policy.sample(key)[0], policy.mode), plan


def _lived(model: ObsActorCritic, batch: Batch) -> Lived:
    """The transitions of all segments, each one a segment of its own."""
    segments = joined(batch)
    flat = Segment(
        obs=_pairs(segments.obs),
        action=segments.action.reshape(-1, 1, segments.action.shape[-1]),
        reward=segments.reward.reshape(-1, 1),
        absorbing=_pairs(segments.absorbing),
    )
    z = encode(model, flat.obs, flat.absorbing)
    return Lived(flat, z, z[:, 1:])


def _pairs(rows: Array) -> Array:
    """[N, H + 1, ...] to [N H, 2, ...]: what each transition leads from and to."""
    return jnp.stack([rows[:, :-1], rows[:, 1:]], axis=2).reshape(-1, 2, *rows.shape[2:])
