"""Learning and planning on a TD-MPC2 world model (arXiv 2310.16828), whatever makes (z, a) good.

A method says what its critics learn: from a reward model's scores (`reward_agent.py`), or from the demonstrations
themselves (`iqmpc.py`).
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from cdred.algos import losses
from cdred.algos.base import Algorithm, Batch, Metrics
from cdred.algos.diagnostics import signs, unexplained
from cdred.algos.method import Lived, Objective, encode, joined, mean_rewards
from cdred.algos.reward_model import RewardModel
from cdred.models.world_model import WorldModel
from cdred.nn.layers import Ensemble, Fixed, ema
from cdred.nn.normalizer import ObsNormalizer
from cdred.planning.mppi import MPPI, MPPIState, Return
from cdred.types import Segment


class Trainable(NamedTuple):
    """What the model's loss is differentiated by, everything but the prior; or one value for each."""

    encoder: PyTree
    dynamics: PyTree
    critics: PyTree
    termination: PyTree
    reward: PyTree


class LearnerState(eqx.Module):
    """The whole agent and what its learning remembers.

    What a reward model never trains is in `reward` too: CDRED's means nothing without its targets (trap 1). A method
    without a reward model has None there.
    """

    model: WorldModel
    reward: Any
    target_critics: Ensemble
    q_scale: Float[Array, ""]
    model_opt: optax.OptState
    policy_opt: optax.OptState
    updates: Int[Array, ""]

    @property
    def trainable(self) -> Trainable:
        model, reward = self.model, self.reward
        learned = None if reward is None else reward.trainable
        return Trainable(model.encoder, model.dynamics, model.critics, model.termination, learned)

    def replace_trainable(self, new: Trainable) -> "LearnerState":
        """The state with the trained parts exchanged."""
        *learned, reward = new
        state = eqx.tree_at(
            lambda s: (s.model.encoder, s.model.dynamics, s.model.critics, s.model.termination),
            self,
            tuple(learned),
            is_leaf=lambda x: x is None,
        )
        return state if reward is None else eqx.tree_at(lambda s: s.reward.trainable, state, reward)


class WorldModelAgent(Algorithm[LearnerState]):
    """World model, critics, prior and planner. The fields are settings; `init` makes networks.

    Attributes:
        make_model, make_reward: build fresh networks from a key; no reward model is made if the second is None.
        planner: MPPI's settings; its horizon is also a segment's length.
        plan_actions: plan with MPPI, or act from the prior alone.
        policy_penalty_coef: what a plan pays for leaving the prior's.
        action_dim: components of an action.
        discount: gamma.
    """

    make_model: Callable[..., WorldModel] = eqx.field(static=True)
    make_reward: Callable[..., RewardModel] | None = eqx.field(static=True)
    planner: MPPI
    model_optimiser: optax.GradientTransformation = eqx.field(static=True)
    policy_optimiser: optax.GradientTransformation = eqx.field(static=True)
    plan_actions: bool = eqx.field(static=True)
    policy_penalty_coef: float = eqx.field(static=True)
    action_dim: int = eqx.field(static=True)
    discount: float = eqx.field(static=True)
    rho: float = eqx.field(static=True)
    consistency_coef: float = eqx.field(static=True)
    value_coef: float = eqx.field(static=True)
    reward_coef: float = eqx.field(static=True)
    termination_coef: float = eqx.field(static=True)
    entropy_coef: float = eqx.field(static=True)
    bc_coef: optax.Schedule | None = eqx.field(static=True)
    bc_encoder_coef: float = eqx.field(static=True)
    tau: float = eqx.field(static=True)
    warmup_updates: int = eqx.field(static=True)

    @abstractmethod
    def objective(self, state: LearnerState, lived: Lived, key: Key[Array, ""]) -> Objective:
        """What critics and reward model learn from a batch. `state` holds what is differentiated."""

    @abstractmethod
    def imagined_reward(
        self,
        state: LearnerState,
        z: Float[Array, " Z"] | Fixed,
        action: Float[Array, " A"],
        following: Float[Array, " Z"],
    ) -> Float[Array, ""]:
        """The reward of (z, a), after which the model expects the latent `following`."""

    def init(self, key: Key[Array, ""]) -> LearnerState:
        model_key, reward_key = jax.random.split(key)
        model = self.make_model(key=model_key)
        reward = None if self.make_reward is None else self.make_reward(key=reward_key)
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

    def init_plan(self) -> MPPIState:
        return MPPIState.create(self.planner.horizon, self.action_dim)

    def set_obs_stats(self, state: LearnerState, mean, std) -> LearnerState:
        if state.model.normalizer is None:
            return state
        return eqx.tree_at(lambda s: s.model.normalizer, state, ObsNormalizer.fitted(mean, std))

    def update(self, state: LearnerState, batch: Batch, key: Key[Array, ""]) -> tuple[LearnerState, Metrics]:
        model_key, policy_key = jax.random.split(key)
        state, latents, metrics = self._update_model(state, batch, model_key)
        state, policy_metrics = self._update_policy(state, batch, latents, policy_key)
        with jax.named_scope("averages"):
            target_critics = ema(state.target_critics, state.model.critics, self.tau)
        state = eqx.tree_at(lambda s: (s.target_critics, s.updates), state, (target_critics, state.updates + 1))
        return state, metrics | policy_metrics

    def _update_model(self, state, batch, key):
        grads, (latents, metrics) = jax.grad(self.model_loss, has_aux=True)(state.trainable, state, batch, key)
        with jax.named_scope("optimiser"):
            updates, opt = self.model_optimiser.update(grads, state.model_opt, state.trainable)
            state = state.replace_trainable(optax.apply_updates(state.trainable, updates))
        state = eqx.tree_at(lambda s: s.model_opt, state, opt)
        if state.reward is not None:
            state = eqx.tree_at(lambda s: s.reward, state, state.reward.settled())
        return state, latents, metrics | {"grad_norm": optax.tree.norm(grads)}

    def _update_policy(self, state, batch, latents, key):
        grad = jax.grad(self.policy_loss, has_aux=True)
        grads, (values, metrics) = grad(state.model.policy, state, batch, latents, key)
        with jax.named_scope("optimiser"):
            updates, opt = self.policy_optimiser.update(grads, state.policy_opt)
            policy = optax.apply_updates(state.model.policy, updates)
        q_scale = ema(state.q_scale, losses.q_range(values[:, :1]), self.tau)
        new = (policy, opt, q_scale)
        metrics |= {"policy_grad_norm": optax.tree.norm(grads), "q_scale": q_scale}
        return eqx.tree_at(lambda s: (s.model.policy, s.policy_opt, s.q_scale), state, new), metrics

    def model_loss(
        self, trainable: Trainable, state: LearnerState, batch: Batch, key: Key[Array, ""]
    ) -> tuple[Float[Array, ""], tuple[Float[Array, "N T Z"], Metrics]]:
        """L of docs/method.md section 3 (without L_pi); also the rolled-out latents, cut off, and the metrics."""
        both = joined(batch)
        over, rate = both.absorbing[:, 1:], self.rho
        encoded = encode(state.model, both.obs[:, 1:], over)
        state = state.replace_trainable(trainable)
        latents = jax.vmap(_rolled_out, in_axes=(None, 0))(state.model, both)
        objective = self.objective(state, Lived(both, latents, encoded), key)
        terms = {
            "consistency_loss": losses.consistency_loss(latents[:, 1:], encoded, rate),
            "critic_loss": objective.critic_loss,
            "reward_loss": objective.reward_loss,
            "termination_loss": losses.termination_loss(state.model, latents[:, :-1], both.action, over, rate),
        }
        loss = (
            self.consistency_coef * terms["consistency_loss"]
            + self._learning(state) * self.value_coef * terms["critic_loss"]
            + self.reward_coef * terms["reward_loss"]
            + self.termination_coef * terms["termination_loss"]
        )
        if self.bc_encoder_coef and batch.expert is not None:
            loss += self.bc_encoder_coef * self._imitation(state.model.policy, state, batch, latents)
        metrics = terms | {"loss": loss} | mean_rewards(objective.reward, self.uses_demos) | objective.metrics
        return loss, (jax.lax.stop_gradient(latents), metrics)

    def policy_loss(
        self, policy: eqx.Module, state: LearnerState, batch: Batch, latents: Float[Array, "N T Z"], key: Key[Array, ""]
    ) -> tuple[Float[Array, ""], tuple[Float[Array, "N T"], Metrics]]:
        """L_pi of docs/method.md section 3, and at all times how far the prior is from the expert's actions."""
        args = (policy, state.model, latents, state.q_scale, self.entropy_coef, self.rho, key)
        loss, (values, log_prob) = losses.policy_loss(*args)
        metrics = {"policy_loss": loss, "q_pi": jnp.mean(values), "policy_entropy": -log_prob}
        loss = self._learning(state) * loss
        if batch.expert is not None:
            imitation = self._imitation(policy, state, batch, latents)
            metrics["bc_loss"] = imitation
            # Without weight it is a metric, and no gradient is computed for it.
            loss += self.bc_coef(state.updates) * imitation if self.bc_coef else 0.0
        return loss, (values, metrics)

    def _imitation(self, policy, state, batch, latents):
        """How far the prior is from the expert's actions, at the latents of the expert's segments, which come first."""
        action, over = batch.expert.action, batch.expert.absorbing[:, :-1]
        there = latents[: len(action), :-1]
        return losses.bc_loss(policy, state.model, there, action, over, self.rho)

    def diagnostics(self, state: LearnerState, batch: Batch, newest: Segment, there: Bool[Array, " N"]) -> Metrics:
        model, own = state.model, batch.agent
        assert own is not None, "a world model is learned from what was lived through"
        predicted = jax.vmap(_rolled_out, in_axes=(None, 0))(model, newest)[:, -1]
        actual = jax.vmap(model.encode)(newest.obs[:, -1])
        seen = jax.vmap(jax.vmap(model.encode))(own.obs).reshape(-1, actual.shape[1])
        counts = there & ~newest.absorbing[:, -1]
        error = unexplained(predicted, actual, counts, seen, ~own.absorbing.reshape(-1))
        return signs(model, state.reward, batch) | {"open_loop_fvu": error}

    def _learning(self, state: LearnerState) -> Float[Array, ""]:
        """0 while the predictors warm up, then 1."""
        return (state.updates >= self.warmup_updates).astype(jnp.float32)

    def act(
        self,
        state: LearnerState,
        plan: MPPIState,
        obs: Float[Array, "..."],
        key: Key[Array, ""],
        explore: Bool[Array, ""],
    ) -> tuple[Float[Array, " A"], MPPIState]:
        z = state.model.encode(obs)
        pi_key, plan_key = jax.random.split(key)
        if not self.plan_actions:
            policy = state.model.pi(z)
            return jnp.where(explore, policy.sample(pi_key)[0], policy.mode), plan
        proposals = self._propose(state.model, z, pi_key)
        return self.planner.plan(plan, proposals, self.worth(state, z), plan_key, explore)

    def _propose(self, model: WorldModel, z: Float[Array, " Z"], key: Key[Array, ""]) -> Float[Array, "P H A"]:
        """Action sequences of the policy prior from z."""

        def one(key):
            actions, latent = [], z
            for k in jax.random.split(key, self.planner.horizon):
                actions.append(model.pi(latent).sample(k)[0])
                latent = model.imagine(latent, actions[-1])
            return jnp.stack(actions)

        return jax.vmap(one)(jax.random.split(key, self.planner.num_pi_trajs))

    def worth(self, state: LearnerState, z: Float[Array, " Z"]) -> Return:
        """What the planner maximises from z: the imagined return, less c S sum_h |a_h - mu_h|^2.

        mu is the prior's own plan, its modes along the model. Where few demonstrations reach, reward and critics are
        guesses, and the best of many guesses is the boldest; the prior has been held to the expert's actions. The
        Q-scale S gives the weight c the same meaning whatever the reward's scale.
        """
        # All sequences begin at the same latent.
        start = Fixed(z)
        if not self.policy_penalty_coef:
            return lambda actions: self.imagined_return(state, start, actions)
        modes, latent = [], z
        for _ in range(self.planner.horizon):
            modes.append(state.model.pi(latent).mode)
            latent = state.model.imagine(latent, modes[-1])
        nominal, weight = jnp.stack(modes), self.policy_penalty_coef * state.q_scale
        return lambda actions: self.imagined_return(state, start, actions) - weight * jnp.sum((actions - nominal) ** 2)

    def reward_at(self, state: LearnerState, obs: Float[Array, "*obs"], action: Float[Array, " A"]) -> Float[Array, ""]:
        """The imagined reward of an action at an observation."""
        z = state.model.encode(obs)
        return self.imagined_reward(state, z, action, state.model.imagine(z, action))

    def imagined_return(
        self, state: LearnerState, z: Float[Array, " Z"] | Fixed, actions: Float[Array, "H A"]
    ) -> Float[Array, ""]:
        """sum_{h<H} gamma^h R(z_h, a_h) + gamma^H mean_q Q(z_H, pi(z_H))."""
        first, *others = actions
        latent = state.model.imagine(z, first)
        total = self.imagined_reward(state, z, first, latent)
        for h, action in enumerate(others, 1):
            following = state.model.imagine(latent, action)
            total += self.discount**h * self.imagined_reward(state, latent, action, following)
            latent = following
        return total + self.discount**self.planner.horizon * mean_value(state.model, latent)


def mean_value(model: WorldModel, z: Float[Array, " Z"]) -> Float[Array, ""]:
    """mean_q Q(z, pi(z)), the prior at its mode."""
    return jnp.mean(model.values(model.critics, z, model.pi(z).mode))


def _rolled_out(model: WorldModel, segment: Segment) -> Float[Array, "T Z"]:
    """z_0 = h(s_0) and what the dynamics make of the actions."""
    first = jnp.where(segment.absorbing[0], model.absorbing, model.encode(segment.obs[0]))
    return model.rollout(first, segment.action, segment.absorbing[1:])
