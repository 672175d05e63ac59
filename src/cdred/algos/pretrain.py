"""Pretraining on demonstrations: encoder and policy by behavioural cloning, the latent dynamics by prediction."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from cdred.algos import losses
from cdred.algos.base import Metrics, Selected
from cdred.algos.judge import DemoStates, Judge, SelfImitationConfig
from cdred.algos.method import encode_batch
from cdred.constraints import NonNegative, NonNegativeInt, PositiveInt
from cdred.models.actor_critic import ActorCritic
from cdred.models.world_model import WorldModel
from cdred.types import Segment

# How an agent may act after training: as in training, by its policy's mode, by the pretrained policy's mode.
CANDIDATES = ("agent", "policy", "pretrained")
# Share of the demonstrations that end alike from which on `encoder` auto freezes.
MIN_ALIKE = 0.5


@dataclass(frozen=True)
class PretrainConfig:
    """Pretraining on the demonstrations before the first step (all methods that use demonstrations, except bc)."""

    updates: NonNegativeInt = 0
    """Updates of pretraining; with 0 there is none."""
    encoder: Literal["auto", "frozen", "free"] = "auto"
    """Encoder of a world model after pretraining: frozen, or trained further with optim.encoder_lr_scale (free). With
    auto it is frozen if most demonstrations end alike, as in manipulation, and free if not, as in locomotion."""
    episodes: PositiveInt = 5
    """Episodes of the pretrained policy with noise before learning begins, in place of random_episodes."""
    noise_std: NonNegative = 0.2
    """Standard deviation of the noise on its actions in these episodes."""
    noise_hold: PositiveInt = 1
    """Steps for which one draw of that noise is held."""
    selection_episodes: NonNegativeInt = 0
    """Episodes at the end of training in which each of the agent, its policy and the pretrained policy is judged; the
    one that ends most of them where demonstrations end acts from then on. With 0 the agent acts as trained."""


class Pretrained(eqx.Module):
    """Result of pretraining that an agent keeps beside its networks.

    Attributes:
        actor: copy of the networks that the pretrained policy acts by (`ActorCritic.actor`).
        encoder_scale: factor of the encoder's gradient, 0 where the encoder is frozen.
        judge: of episodes, in the latent space of `actor`.
        acting: index in `CANDIDATES` of how the agent acts.
    """

    actor: PyTree
    encoder_scale: Float[Array, ""]
    judge: Judge
    acting: Int[Array, ""]

    def distance(self, model: ActorCritic, obs: Float[Array, "..."]) -> Float[Array, ""]:
        """Compute the judge's distance of an observation from the ends of demonstrations."""
        return self.judge.distance(model.replace_actor(self.actor).encode(obs))


class DemoRows(NamedTuple):
    """All rows of the demonstrations, in order; `step` is that in the episode, negative where a row is empty."""

    obs: Float[Array, "M ..."]
    absorbing: Bool[Array, " M"]
    step: Int[Array, " M"]


class PretrainState(eqx.Module):
    """Networks in pretraining, and the optimiser's state."""

    model: ActorCritic
    opt_state: optax.OptState
    updates: Int[Array, ""]


class Pretraining(eqx.Module):
    """Pretraining of a model's encoder, policy and dynamics, written for one seed.

    Attributes:
        config: settings.
        self_imitation: settings of the judge.
        optimizer: of all networks that are trained.
        rho: weight of a prediction one transition further into a segment.
    """

    config: PretrainConfig = eqx.field(static=True)
    self_imitation: SelfImitationConfig = eqx.field(static=True)
    optimizer: optax.GradientTransformation = eqx.field(static=True)
    rho: float = eqx.field(static=True)

    def init(self, model: ActorCritic) -> PretrainState:
        """Return the state before the first update."""
        return PretrainState(model, self.optimizer.init(_trainable(model)), jnp.zeros((), jnp.int32))

    def update(self, state: PretrainState, segments: Segment) -> tuple[PretrainState, Metrics]:
        """Take one gradient step on a batch of the expert's segments."""
        params = _trainable(state.model)
        (loss, metrics), grads = jax.value_and_grad(pretrain_loss, has_aux=True)(
            params, state.model, segments, self.rho
        )
        updates, opt_state = self.optimizer.update(grads, state.opt_state, params)
        model = _replace(state.model, optax.apply_updates(params, updates))
        metrics |= {"loss": loss, "grad_norm": optax.tree.norm(grads)}
        return PretrainState(model, opt_state, state.updates + 1), metrics

    def placeholder(self, model: ActorCritic) -> Pretrained:
        """Return what an agent keeps before pretraining: the shapes of what `finish` returns."""
        latent_dim = len(model.absorbing_latent)
        judge = Judge.empty(latent_dim, self.self_imitation.window, self.self_imitation.tolerance)
        # A copy, so that no buffer is donated twice.
        return Pretrained(jax.tree.map(jnp.copy, model.actor), jnp.zeros(()), judge, jnp.zeros((), jnp.int32))

    def finish(self, model: ActorCritic, rows: DemoRows) -> Pretrained:
        """Return what the agent keeps of the pretrained `model` and the demonstrations."""
        kept, exists = self.placeholder(model), (rows.step >= 0) & ~rows.absorbing
        episode = jnp.where(exists, jnp.cumsum(rows.step == 0) - 1, -1)
        states = DemoStates(jax.vmap(model.encode)(rows.obs), episode, rows.step)
        judge, alike = kept.judge.fit(states)
        scale = {"auto": jnp.where(alike < MIN_ALIKE, 1.0, 0.0), "frozen": jnp.zeros(()), "free": jnp.ones(())}
        return eqx.tree_at(lambda p: (p.judge, p.encoder_scale), kept, (judge, scale[self.config.encoder]))

    def act(
        self,
        model: ActorCritic,
        pretrained: Pretrained,
        obs: Float[Array, "..."],
        key: Key[Array, ""],
        explore: Bool[Array, ""],
    ) -> Float[Array, " A"]:
        """Act by the pretrained policy: its mode, with noise if `explore`."""
        clone = model.replace_actor(pretrained.actor)
        action = clone.pi(clone.encode(obs)).mode
        noise = self.config.noise_std * jax.random.normal(key, action.shape)
        return jnp.clip(action + jnp.where(explore, noise, 0.0), -1.0, 1.0)


def choose_action(
    model: ActorCritic,
    pretrained: Pretrained | None,
    action: Float[Array, " A"],
    obs: Float[Array, "..."],
    explore: Bool[Array, ""],
) -> Float[Array, " A"]:
    """Return the agent's own `action`, or without exploration that of the candidate that was chosen to act."""
    if pretrained is None:
        return action
    clone = model.replace_actor(pretrained.actor)
    candidates = jnp.stack([action, model.pi(model.encode(obs)).mode, clone.pi(clone.encode(obs)).mode])
    return jnp.where(explore, action, candidates[pretrained.acting])


def pretrain_loss(
    params: PyTree, model: ActorCritic, segments: Segment, rho: float
) -> tuple[Float[Array, ""], Metrics]:
    """Compute the BC loss of encoder and policy plus, of a world model, the consistency loss of the dynamics.

    The latents are fixed for the dynamics: only the expert's actions shape them.

    Returns:
        The loss, and its two terms.
    """
    model = _replace(model, params)
    latents = encode_batch(model, segments.obs, segments.absorbing)
    metrics = {"bc_loss": losses.action_error(model, latents[:, :-1], segments.action, segments.absorbing[:, :-1])}
    if isinstance(model, WorldModel):
        fixed = jax.lax.stop_gradient(latents)
        predicted = jax.vmap(model.rollout)(fixed[:, 0], segments.action, segments.absorbing[:, 1:])
        metrics["consistency_loss"] = losses.consistency_loss(predicted[:, 1:], fixed[:, 1:], rho)
    return sum(metrics.values(), jnp.zeros(())), metrics


def self_imitation_loss(policy: eqx.Module, model: ActorCritic, selected: Selected) -> Float[Array, ""]:
    """Compute the action error of `policy` on the agent's selected segments, at encoded observations; 0 without any."""
    segments, absorbing = selected.segments, selected.segments.absorbing[:, :-1]
    latents = jax.lax.stop_gradient(encode_batch(model, segments.obs[:, :-1], absorbing))
    actor = eqx.tree_at(lambda m: m.policy, model, policy)
    return jnp.where(selected.exist, losses.action_error(actor, latents, segments.action, absorbing), 0.0)


def _trainable(model: ActorCritic) -> PyTree:
    """Return the actor, and the dynamics of a world model."""
    return model.actor, model.dynamics if isinstance(model, WorldModel) else None


def _replace(model: ActorCritic, params: PyTree) -> ActorCritic:
    actor, dynamics = params
    model = model.replace_actor(actor)
    return eqx.tree_at(lambda m: m.dynamics, model, dynamics) if isinstance(model, WorldModel) else model
