"""Coupled Distributional Random Expert Distillation (arXiv 2505.02228) on a TD-MPC2 world model."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from cdred.algos import losses
from cdred.algos.base import Algorithm, Batch, Metrics
from cdred.models.rewards.coupled_rnd import CoupledRND, distillation_loss, target_moments
from cdred.models.world_model import WorldModel
from cdred.nn.layers import Ensemble
from cdred.planning.mppi import MPPI, PlanState


class Trainable(NamedTuple):
    """What the model's loss is differentiated by, everything but the prior and the targets; or one value for each."""

    encoder: PyTree
    dynamics: PyTree
    critics: PyTree
    predictors: PyTree


class LearnerState(eqx.Module):
    """The whole agent and what its learning remembers.

    The random targets are in `reward`: without them the reward means nothing (trap 1).
    """

    model: WorldModel
    reward: CoupledRND
    target_critics: Ensemble
    q_scale: Float[Array, ""]
    model_opt: optax.OptState
    policy_opt: optax.OptState
    updates: Int[Array, ""]

    @property
    def trainable(self) -> Trainable:
        model = self.model
        return Trainable(model.encoder, model.dynamics, model.critics, self.reward.predictors)

    def replace_trainable(self, new: Trainable) -> "LearnerState":
        """The state with the trained parts exchanged."""
        return eqx.tree_at(
            lambda s: (s.model.encoder, s.model.dynamics, s.model.critics, s.reward.predictors), self, tuple(new)
        )


class CDRED(Algorithm[LearnerState]):
    """The method. Its fields are settings; `init` makes networks, `update` learns, `act` plans.

    Attributes:
        make_model, make_reward: build fresh networks from a key.
        planner: MPPI's settings; its horizon is also a segment's length.
        plan_actions: plan with MPPI, or act from the prior alone.
        action_dim: components of an action.
        discount: gamma.
    """

    make_model: Callable[..., WorldModel] = eqx.field(static=True)
    make_reward: Callable[..., CoupledRND] = eqx.field(static=True)
    planner: MPPI
    model_optimiser: optax.GradientTransformation = eqx.field(static=True)
    policy_optimiser: optax.GradientTransformation = eqx.field(static=True)
    plan_actions: bool = eqx.field(static=True)
    action_dim: int = eqx.field(static=True)
    discount: float = eqx.field(static=True)
    discount_time: float = eqx.field(static=True)
    dynamics_coef: float = eqx.field(static=True)
    critic_coef: float = eqx.field(static=True)
    reward_coef: float = eqx.field(static=True)
    entropy_coef: float = eqx.field(static=True)
    tau: float = eqx.field(static=True)
    warmup_updates: int = eqx.field(static=True)

    def init(self, key: Key[Array, ""]) -> LearnerState:
        model_key, reward_key = jax.random.split(key)
        model, reward = self.make_model(key=model_key), self.make_reward(key=reward_key)
        state = LearnerState(
            model=model,
            reward=reward,
            # A copy, so that donated buffers are never given away twice.
            target_critics=jax.tree.map(jnp.copy, model.critics),
            q_scale=jnp.ones(()),
            model_opt=(),
            policy_opt=self.policy_optimiser.init(eqx.filter(model.policy, eqx.is_array)),
            updates=jnp.zeros((), jnp.int32),
        )
        return eqx.tree_at(lambda s: s.model_opt, state, self.model_optimiser.init(state.trainable))

    def init_plan(self) -> PlanState:
        return PlanState.create(self.planner.horizon, self.action_dim)

    def update(self, state: LearnerState, batch: Batch, key: Key[Array, ""]) -> tuple[LearnerState, Metrics]:
        model_key, policy_key = jax.random.split(key)
        state, latents, metrics = self._update_model(state, batch, model_key)
        state, policy_metrics = self._update_policy(state, latents, policy_key)
        state = eqx.tree_at(
            lambda s: (s.target_critics, s.updates),
            state,
            (losses.ema(state.target_critics, state.model.critics, self.tau), state.updates + 1),
        )
        return state, metrics | policy_metrics

    def _update_model(self, state, batch, key):
        grads, (latents, metrics) = jax.grad(self.model_loss, has_aux=True)(state.trainable, state, batch, key)
        updates, opt = self.model_optimiser.update(grads, state.model_opt, state.trainable)
        state = state.replace_trainable(optax.apply_updates(state.trainable, updates))
        return (
            eqx.tree_at(lambda s: s.model_opt, state, opt),
            latents,
            metrics | {"grad_norm": optax.tree.norm(grads)},
        )

    def _update_policy(self, state, latents, key):
        loss_and_grad = jax.value_and_grad(losses.policy_loss, has_aux=True)
        args = (state.model, latents, state.q_scale, self.entropy_coef, self.discount_time, key)
        (loss, (values, log_prob)), grads = loss_and_grad(state.model.policy, *args)
        grads = jax.tree.map(lambda g: g * self._learning(state), grads)
        updates, opt = self.policy_optimiser.update(grads, state.policy_opt)
        q_scale = losses.ema(state.q_scale, losses.q_range(values[:, :1]), self.tau)
        new = (optax.apply_updates(state.model.policy, updates), opt, q_scale)
        metrics = {
            "policy_loss": loss,
            "policy_value": jnp.mean(values),
            "policy_entropy": -log_prob,
            "policy_grad_norm": optax.tree.norm(grads),
            "q_scale": q_scale,
        }
        return eqx.tree_at(lambda s: (s.model.policy, s.policy_opt, s.q_scale), state, new), metrics

    def model_loss(
        self, trainable: Trainable, state: LearnerState, batch: Batch, key: Key[Array, ""]
    ) -> tuple[Float[Array, ""], tuple[Float[Array, "N T Z"], Metrics]]:
        """L of docs/method.md section 3 (without L_pi); also the rolled-out latents, cut off, and the metrics."""
        drawn_key, value_key, dropout_key = jax.random.split(key, 3)
        encoded = _encode(state.model, batch)
        state = state.replace_trainable(trainable)
        both = jax.tree.map(lambda e, o: jnp.concatenate([e, o]), batch.expert, batch.own)
        latents = jax.vmap(lambda s: state.model.rollout(state.model.encode(s.obs[0]), s.action))(both)
        cut = jax.lax.stop_gradient(latents)
        distilled, reward = self._distil(state.reward, cut[:, :-1], both.action, drawn_key)
        value = losses.next_values(state.model, state.target_critics, encoded, both.terminated, value_key)
        target = jax.lax.stop_gradient(reward + self.discount * value)
        terms = {
            "dynamics_loss": losses.dynamics_loss(latents[:, 1:], encoded, self.discount_time),
            "critic_loss": losses.critic_loss(
                state.model, latents[:, :-1], both.action, target, self.discount_time, dropout_key
            ),
            "reward_loss": losses.discounted_over_time(distilled, self.discount_time),
        }
        loss = (
            self.dynamics_coef * terms["dynamics_loss"]
            + self._learning(state) * self.critic_coef * terms["critic_loss"]
            + self.reward_coef * terms["reward_loss"]
        )
        expert, own = jnp.split(reward, 2)
        metrics = terms | {
            "loss": loss,
            "reward_expert": jnp.mean(expert),
            "reward_own": jnp.mean(own),
            "target_value": jnp.mean(target),
            "target_value_absmax": jnp.max(jnp.abs(target)),
        }
        return loss, (cut, metrics)

    def _distil(self, reward: CoupledRND, z: Float[Array, "N H Z"], action: Float[Array, "N H A"], key):
        """|f - f_k|^2 of each store's own predictor, and R (without gradient); one pass of each network for both.

        The first half of the N segments is the expert's. The latents are cut off beforehand: the density estimates
        follow the latent space and do not shape it.
        """
        x = jnp.concatenate([z, action], axis=-1)
        stores = x.reshape(2, -1, x.shape[-1])
        embeddings = jax.lax.stop_gradient(jax.vmap(jax.vmap(reward.targets))(stores))
        drawn = jax.random.randint(key, stores.shape[:2], 0, len(reward.targets))
        each = jax.vmap(reward.predictors.each, in_axes=1, out_axes=1)
        fitted, crossed = each(stores), jax.lax.stop_gradient(each(stores[::-1]))
        distilled = jax.vmap(jax.vmap(distillation_loss))(fitted, embeddings, drawn)
        on_expert, on_own = jnp.stack([fitted[0], crossed[1]], 1), jnp.stack([crossed[0], fitted[1]], 1)
        predictions = jax.lax.stop_gradient(jnp.stack([on_expert, on_own]))
        r = jax.vmap(jax.vmap(reward.reward))(predictions, jax.vmap(jax.vmap(target_moments))(embeddings))
        return distilled.reshape(x.shape[:2]), r.reshape(x.shape[:2])

    def _learning(self, state: LearnerState) -> Float[Array, ""]:
        """0 while the predictors warm up, then 1."""
        return (state.updates >= self.warmup_updates).astype(jnp.float32)

    def act(
        self,
        state: LearnerState,
        plan: PlanState,
        obs: Float[Array, "..."],
        key: Key[Array, ""],
        explore: Bool[Array, ""],
    ) -> tuple[Float[Array, " A"], PlanState]:
        z = state.model.encode(obs)
        pi_key, plan_key = jax.random.split(key)
        if not self.plan_actions:
            policy = state.model.pi(z)
            return jnp.where(explore, policy.sample(pi_key)[0], policy.mode), plan
        proposals = self._propose(state.model, z, pi_key)
        return self.planner.plan(z, plan, proposals, lambda z, a: self.imagined_return(state, z, a), plan_key, explore)

    def _propose(self, model: WorldModel, z: Float[Array, " Z"], key: Key[Array, ""]) -> Float[Array, "P H A"]:
        """Action sequences of the policy prior from z."""

        def one(key):
            actions, latent = [], z
            for k in jax.random.split(key, self.planner.horizon):
                actions.append(model.pi(latent).sample(k)[0])
                latent = model.next(latent, actions[-1])
            return jnp.stack(actions)

        return jax.vmap(one)(jax.random.split(key, self.planner.num_pi_trajs))

    def imagined_return(
        self, state: LearnerState, z: Float[Array, " Z"], actions: Float[Array, "H A"]
    ) -> Float[Array, ""]:
        """sum_{h<H} gamma^h R(z_h, a_h) + gamma^H mean_q Q(z_H, pi(z_H))."""
        latents = state.model.rollout(z, actions)
        rewards = jax.vmap(state.reward)(jnp.concatenate([latents[:-1], actions], axis=-1))
        final = jnp.mean(state.model.values(state.model.critics, latents[-1], state.model.pi(latents[-1]).mode))
        gammas = self.discount ** jnp.arange(self.planner.horizon, dtype=jnp.float32)
        return jnp.dot(gammas, rewards) + self.discount**self.planner.horizon * final


def _encode(model: WorldModel, batch: Batch) -> Float[Array, "N H Z"]:
    """h(s_1) .. h(s_H) of all segments, the expert's first."""
    after = jnp.concatenate([batch.expert.obs[:, 1:], batch.own.obs[:, 1:]])
    return jax.vmap(jax.vmap(model.encode))(after)
