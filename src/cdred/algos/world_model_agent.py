"""Agent that learns a TD-MPC2 world model (arXiv 2310.16828) and plans in it, with any method's losses and reward."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from cdred.algos import losses
from cdred.algos.base import Algorithm, Batch, Metrics
from cdred.algos.diagnostics import diagnostics, dynamics_error_ratio, fraction_variance_unexplained, gradient_share
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
from cdred.algos.rollouts import batch_latents, rollout_latents, scale_gradient
from cdred.models.world_model import WorldModel
from cdred.nn.layers import Ensemble, SharedLatent, ema
from cdred.planning.mppi import MPPI, Fallback, MPPIState, TrajectoryValueFn
from cdred.types import ImageObs, Segment


class ModelParams(NamedTuple):
    """Parameters that the model's loss is differentiated by, everything but the policy; or one value for each."""

    encoder: PyTree
    dynamics: PyTree
    critics: PyTree
    termination: PyTree
    reward: PyTree


class AgentState(eqx.Module):
    """Networks, target critics, Q-scale and optimiser states.

    `reward` is None for a method without a reward model, `pretrained` without pretraining.
    """

    model: WorldModel
    reward: Any
    pretrained: Pretrained | None
    target_critics: Ensemble
    q_scale: Float[Array, ""]
    model_opt_state: optax.OptState
    policy_opt_state: optax.OptState
    updates: Int[Array, ""]

    @property
    def trainable(self) -> ModelParams:
        model, reward = self.model, self.reward
        reward_params = None if reward is None else reward.trainable
        return ModelParams(model.encoder, model.dynamics, model.critics, model.termination, reward_params)

    def replace_trainable(self, new: ModelParams) -> "AgentState":
        """Return the state with these parameters."""
        *model_params, reward = new
        state = eqx.tree_at(
            lambda s: (s.model.encoder, s.model.dynamics, s.model.critics, s.model.termination),
            self,
            tuple(model_params),
            is_leaf=lambda x: x is None,
        )
        return state if reward is None else eqx.tree_at(lambda s: s.reward.trainable, state, reward)


class WorldModelAgent(Algorithm[AgentState]):
    """World model, critics, policy and MPPI planner, trained on one method's losses.

    Attributes:
        method: losses and reward.
        config: loss weights and optimiser settings.
        planner: MPPI; its horizon is also the length of a training segment.
        make_model: initialises the world model from a key.
        plan_actions: act by planning; otherwise by the policy.
        collect_by_policy: plan in evaluations only, and explore by the policy with noise of `explore_min_std`.
        action_dim: number of action components.
        discount: gamma.
        model_optimizer, policy_optimizer: of everything but the policy, and of the policy.
        pretraining: None without.
    """

    uses_env: ClassVar[bool] = True

    method: Method
    config: OptimConfig = eqx.field(static=True)
    planner: MPPI
    make_model: Callable[..., WorldModel] = eqx.field(static=True)
    plan_actions: bool = eqx.field(static=True)
    collect_by_policy: bool = eqx.field(static=True)
    action_dim: int = eqx.field(static=True)
    discount: float = eqx.field(static=True)
    model_optimizer: optax.GradientTransformation = eqx.field(static=True)
    policy_optimizer: optax.GradientTransformation = eqx.field(static=True)
    pretraining: Pretraining | None

    @property
    def uses_demos(self) -> bool:
        return self.method.uses_demos

    @property
    def _td_params(self) -> TDParams:
        # TD-MPC2's TD targets leave the entropy out.
        return TDParams(self.discount, self.config.rho, self.config.entropy_coef, target_entropy_coef=0.0)

    def init(self, key: Key[Array, ""]) -> AgentState:
        model_key, reward_key = jax.random.split(key)
        model = self.make_model(key=model_key)
        dim = input_dim(self.method.reward_input, model.latent_dim, self.action_dim)
        state = AgentState(
            model=model,
            reward=self.method.make_reward(dim, key=reward_key),
            # A copy, so that no buffer is donated twice.
            target_critics=jax.tree.map(jnp.copy, model.critics),
            pretrained=None if self.pretraining is None else self.pretraining.placeholder(model),
            q_scale=jnp.ones(()),
            model_opt_state=(),
            policy_opt_state=self.policy_optimizer.init(eqx.filter(model.policy, eqx.is_array)),
            updates=jnp.zeros((), jnp.int32),
        )
        return eqx.tree_at(lambda s: s.model_opt_state, state, self.model_optimizer.init(state.trainable))

    def init_plan(self) -> MPPIState:
        return MPPIState.create(self.planner.config.horizon, self.action_dim)

    def set_obs_stats(self, state: AgentState, mean: Float[Array, " obs"], std: Float[Array, " obs"]) -> AgentState:
        return set_obs_stats(state, mean, std)

    def update(self, state: AgentState, batch: Batch, key: Key[Array, ""]) -> tuple[AgentState, Metrics]:
        model_key, policy_key = jax.random.split(key)
        state, latents, metrics = self._update_model(state, batch, model_key)
        state, policy_metrics = self._update_policy(state, batch, latents, policy_key)
        with jax.named_scope("ema"):
            target_critics = ema(state.target_critics, state.model.critics, self.config.tau)
        state = eqx.tree_at(lambda s: (s.target_critics, s.updates), state, (target_critics, state.updates + 1))
        return state, metrics | policy_metrics

    def _update_model(self, state, batch, key):
        grads, (latents, metrics) = jax.grad(self.model_loss, has_aux=True)(state.trainable, state, batch, key)
        with jax.named_scope("optimizer"):
            updates, opt_state = self.model_optimizer.update(grads, state.model_opt_state, state.trainable)
            state = state.replace_trainable(optax.apply_updates(state.trainable, updates))
        state = eqx.tree_at(lambda s: s.model_opt_state, state, opt_state)
        if state.reward is not None:
            state = eqx.tree_at(lambda s: s.reward, state, state.reward.after_update(metrics))
        return state, latents, metrics | {"grad_norm": optax.tree.norm(grads)}

    def _update_policy(self, state, batch, latents, key):
        grad = jax.grad(self.policy_loss, has_aux=True)
        grads, (values, metrics) = grad(state.model.policy, state, batch, latents, key)
        with jax.named_scope("optimizer"):
            updates, opt_state = self.policy_optimizer.update(grads, state.policy_opt_state)
            policy = optax.apply_updates(state.model.policy, updates)
        q_scale = ema(state.q_scale, losses.percentile_range(values[:, :1]), self.config.tau)
        new = (policy, opt_state, q_scale)
        metrics |= {"policy_grad_norm": optax.tree.norm(grads), "q_scale": q_scale}
        return eqx.tree_at(lambda s: (s.model.policy, s.policy_opt_state, s.q_scale), state, new), metrics

    def model_loss(
        self, params: ModelParams, state: AgentState, batch: Batch, key: Key[Array, ""]
    ) -> tuple[Float[Array, ""], tuple[Float[Array, "N T Z"], Metrics]]:
        """Compute the loss L of everything but the policy.

        Returns:
            The loss, and with it the rolled-out latents without gradient and the metrics.
        """
        config, segments = self.config, concat_batch(batch)
        target_latents = encode_batch(state.model, segments.next_obs, segments.absorbing[:, 1:])
        state = state.replace_trainable(params)
        encoder_scale = None if state.pretrained is None else state.pretrained.encoder_scale
        latents = batch_latents(state.model, segments, encoder_scale)
        # With a frozen encoder the dynamics learn to predict, and nothing else: the gradients of values and of
        # termination would outweigh that of the consistency loss.
        encoded = LatentBatch(segments, scale_gradient(latents, encoder_scale), target_latents)
        method = self.method.losses(state, encoded, self._td_params, key)
        predicted, target, start, terminated = map(
            encoded.with_actions,
            (latents[:, 1:], target_latents, encoded.latents[:, :-1], segments.absorbing[:, 1:]),
        )
        terms = {
            "consistency_loss": losses.consistency_loss(predicted, target, config.rho),
            "critic_loss": method.critic_loss,
            "reward_loss": method.reward_loss,
            "termination_loss": losses.termination_loss(state.model, start, segments.action, terminated, config.rho),
        }
        loss = (
            config.consistency_coef * terms["consistency_loss"]
            + self._past_warmup(state) * config.value_coef * terms["critic_loss"]
            + config.reward_coef * terms["reward_loss"]
            + config.termination_coef * terms["termination_loss"]
        )
        if config.bc_encoder_coef and batch.expert_with_actions is not None:
            loss += config.bc_encoder_coef * self._bc_loss(state.model.policy, state, batch, latents)
        metrics = terms | {"loss": loss} | reward_metrics(method.reward, self.uses_demos) | method.metrics
        return loss, (jax.lax.stop_gradient(latents), metrics)

    def policy_loss(
        self,
        policy: eqx.Module,
        state: AgentState,
        batch: Batch,
        latents: Float[Array, "N T Z"],
        key: Key[Array, ""],
    ) -> tuple[Float[Array, ""], tuple[Float[Array, "N T"], Metrics]]:
        """Compute L_pi with the BC term.

        Returns:
            The loss, and with it the values of the sampled actions and the metrics.
        """
        config = self.config
        loss, (values, log_prob) = self._critic_term(policy, state, latents, key)
        metrics = {"policy_loss": loss, "q_pi": jnp.mean(values), "policy_entropy": -log_prob}
        loss = self._past_warmup(state) * loss
        if batch.expert_with_actions is not None:
            bc = self._bc_loss(policy, state, batch, latents)
            metrics["bc_loss"] = bc
            # Without a weight the term is a metric only, and needs no gradient.
            loss += config.bc_coef * bc if config.bc_coef else 0.0
        if batch.selected is not None and self.pretraining is not None:
            metrics["self_imitation_loss"] = self_imitation_loss(policy, state.model, batch.selected)
            loss += self.pretraining.config.self_imitation_coef * metrics["self_imitation_loss"]
        return loss, (values, metrics)

    def _critic_term(self, policy, state, latents, key):
        """Compute L_pi without the BC term, as `losses.policy_loss`."""
        args = (policy, state.model, latents, state.q_scale, self.config.entropy_coef, self.config.rho, key)
        return losses.policy_loss(*args)

    def _bc_loss(self, policy, state, batch, latents):
        """Compute the BC loss at the latents of the expert's segments, which come first."""
        action, absorbing = batch.expert.action, batch.expert.absorbing[:, :-1]
        expert_latents = latents[: len(action), :-1]
        return losses.bc_loss(policy, state.model, expert_latents, action, absorbing, self.config.rho)

    def diagnostics(
        self, state: AgentState, batch: Batch, recent: Segment, valid: Bool[Array, " N"], key: Key[Array, ""]
    ) -> Metrics:
        """Compute the shared diagnostics, prediction errors over a segment and one step, and Q's part in L_pi."""
        model, agent = state.model, batch.agent
        assert agent is not None, "a world model is trained on the agent's own data"
        predicted = jax.vmap(rollout_latents, in_axes=(None, 0))(model, recent)
        encoded = jax.vmap(jax.vmap(model.encode))(recent.obs)
        sample = jax.vmap(jax.vmap(model.encode))(agent.obs).reshape(-1, encoded.shape[-1])
        valid = valid & ~recent.absorbing[:, -1]
        args = (predicted[:, -1], encoded[:, -1], valid, sample, ~agent.absorbing.reshape(-1))
        metrics = diagnostics(model, state.reward, self.method.reward_input, batch)
        metrics["open_loop_fvu"] = fraction_variance_unexplained(*args)
        metrics["dynamics_error_ratio"] = dynamics_error_ratio(predicted[:, 1], encoded[:, 0], encoded[:, 1], valid)
        if batch.expert_with_actions is not None and self.config.bc_coef:
            metrics["q_gradient_share"] = self._q_gradient_share(state, batch, key)
        return metrics

    def _q_gradient_share(self, state: AgentState, batch: Batch, key: Key[Array, ""]) -> Float[Array, ""]:
        """Compute the share of the critics' gradient in that of L_pi, by norms; the rest is the BC term's."""
        latents = batch_latents(state.model, concat_batch(batch))
        critics_only = jax.grad(lambda policy: self._critic_term(policy, state, latents, key)[0])(state.model.policy)
        bc_only = jax.grad(lambda policy: self.config.bc_coef * self._bc_loss(policy, state, batch, latents))
        return gradient_share(critics_only, bc_only(state.model.policy))

    def _past_warmup(self, state: AgentState) -> Float[Array, ""]:
        warmup = self.config.reward_warmup_updates if self.method.has_warmup else 0
        return (state.updates >= warmup).astype(jnp.float32)

    def act(
        self,
        state: AgentState,
        plan: MPPIState,
        obs: Float[Array, "..."] | ImageObs,
        key: Key[Array, ""],
        explore: Bool[Array, ""],
    ) -> tuple[Float[Array, " A"], MPPIState]:
        z = state.model.encode(obs)
        if not self.plan_actions:
            policy = state.model.pi(z)
            action = jnp.where(explore, policy.sample(jax.random.split(key)[0])[0], policy.mode)
        elif self.collect_by_policy:
            # Branches, so that nothing is planned while exploring.
            by_policy, by_plan = self._noisy_policy, partial(self._plan, obs=obs, explore=jnp.array(False))
            action, plan = jax.lax.cond(explore, by_policy, by_plan, state, plan, z, key)
        else:
            action, plan = self._plan(state, plan, z, key, obs, explore)
        return choose_action(state.model, state.pretrained, action, obs, explore), plan

    def _noisy_policy(self, state, plan, z, key):
        noise = self.planner.config.explore_min_std * jax.random.normal(key, (self.action_dim,))
        return jnp.clip(state.model.pi(z).mode + noise, -1.0, 1.0), plan

    def _plan(self, state, plan, z, key, obs, explore):
        pi_key, plan_key = jax.random.split(key)
        policy_actions = self._policy_rollouts(state.model, z, pi_key)
        objective, fallback = self.plan_objective(state, z), self.pretrained_fallback(state, z, obs)
        return self.planner.plan(plan, policy_actions, objective, plan_key, explore, fallback)

    def _policy_rollouts(self, model: WorldModel, z: Float[Array, " Z"], key: Key[Array, ""]) -> Float[Array, "P H A"]:
        """Sample action sequences of the policy from z."""

        def rollout(key):
            actions, latent = [], z
            for k in jax.random.split(key, self.planner.config.horizon):
                actions.append(model.pi(latent).sample(k)[0])
                latent = model.predict_next(latent, actions[-1])
            return jnp.stack(actions)

        return jax.vmap(rollout)(jax.random.split(key, self.planner.config.num_pi_trajs))

    def plan_objective(self, state: AgentState, z: Float[Array, " Z"]) -> TrajectoryValueFn:
        """Return the planner's objective from z: the imagined return minus c S sum_h |a_h - mu_h|^2.

        mu are the policy's modes along the model's prediction. Far from the demonstrations reward and critics are
        guesses, and the best of many sampled sequences is the one most overestimated; the penalty keeps plans near the
        policy, which is regularised towards the expert's actions. The Q-scale S makes the weight c independent of the
        reward's scale.
        """
        start = SharedLatent(z)
        coef = self.planner.config.policy_penalty_coef if self.uses_demos else 0.0
        if not coef:
            return lambda actions: self.imagined_return(state, start, actions)
        mu, weight = self._policy_modes(state.model, z, state.model.pi(z).mode), coef * state.q_scale
        return lambda actions: self.imagined_return(state, start, actions) - weight * jnp.sum((actions - mu) ** 2)

    def pretrained_fallback(
        self, state: AgentState, z: Float[Array, " Z"], obs: Float[Array, "*obs"] | ImageObs
    ) -> Fallback | None:
        """Return the pretrained policy's action sequence, which a plan replaces only where all critics agree.

        As in IBRL (arXiv 2311.02198) a frozen imitation policy proposes actions beside the agent. Errors of the critics
        favour the action of the highest estimate, so that a lower estimate by a single critic is a reason to keep the
        proposal. Its first action is the pretrained policy's, the others are the policy's modes along the model's
        prediction, because the pretrained policy acts in latents of its own encoder.
        """
        if self.pretraining is None or state.pretrained is None or not self.pretraining.config.propose_actions:
            return None
        actions = self._policy_modes(state.model, z, state.pretrained.mode(state.model, obs))

        def returns(actions):
            return self.imagined_return(state, z, actions, losses.values_at_mode)

        proposed = returns(actions)
        return Fallback(actions, lambda plan: jnp.all(returns(plan) > proposed))

    def _policy_modes(self, model: WorldModel, z: Float[Array, " Z"], first: Float[Array, " A"]) -> Float[Array, "H A"]:
        """Compute `first` and the policy's modes along the model's prediction from z."""
        modes, latent = [first], z
        for _ in range(1, self.planner.config.horizon):
            latent = model.predict_next(latent, modes[-1])
            modes.append(model.pi(latent).mode)
        return jnp.stack(modes)

    def reward_at(
        self, state: AgentState, obs: Float[Array, "*obs"] | ImageObs, action: Float[Array, " A"]
    ) -> Float[Array, ""]:
        """Compute the reward used in planning, at an observation and an action."""
        z = state.model.encode(obs)
        return self.predict_reward(state, z, action, state.model.predict_next(z, action))

    def predict_reward(
        self,
        state: AgentState,
        z: Float[Array, " Z"] | SharedLatent,
        action: Float[Array, " A"],
        next_z: Float[Array, " Z"],
    ) -> Float[Array, ""]:
        """Compute the method's reward of (z, a) with predicted next latent `next_z`."""
        return self.method.reward(state, z, action, next_z, self.discount)

    def imagined_return(
        self,
        state: AgentState,
        z: Float[Array, " Z"] | SharedLatent,
        actions: Float[Array, "H A"],
        bootstrap: Callable[[WorldModel, Float[Array, " Z"]], Array] = losses.bootstrap_value,
    ) -> Float[Array, "*critics"]:
        """Compute sum_{h<H} gamma^h R(z_h, a_h) + gamma^H V(z_H).

        `bootstrap` computes V: by default mean_q Q(z, pi(z)); `losses.values_at_mode` gives a return per critic.
        """
        first, *others = actions
        latent = state.model.predict_next(z, first)
        total = self.predict_reward(state, z, first, latent)
        for h, action in enumerate(others, 1):
            next_latent = state.model.predict_next(latent, action)
            total += self.discount**h * self.predict_reward(state, latent, action, next_latent)
            latent = next_latent
        return total + self.discount**self.planner.config.horizon * bootstrap(state.model, latent)
