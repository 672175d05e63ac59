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
from cdred.algos.diagnostics import action_error
from cdred.algos.method import encode_batch
from cdred.algos.success_detector import DemoStates, SuccessDetector
from cdred.constraints import NonNegative, NonNegativeInt, Positive, PositiveInt
from cdred.models.actor_critic import ActorCritic
from cdred.models.world_model import WorldModel
from cdred.types import ImageObs, Segment

EncoderLoss = Literal["bc", "consistency"]
# How an agent may act after training: as in training, by its policy's mode, by the pretrained policy's mode.
CANDIDATES = ("agent", "policy", "pretrained")
# Fraction of the demonstrations, detected as successes by the others, from which on `encoder` auto freezes.
MIN_DETECTED = 0.5


@dataclass(frozen=True)
class PretrainConfig:
    """Pretraining on the demonstrations before the first step (all methods that use demonstrations, except bc)."""

    updates: NonNegativeInt = 0
    """Updates of pretraining; with 0 there is none."""
    obs_noise_std: NonNegative = 0.0
    """Standard deviation of the noise on the observations in these updates, in units of normalised observations: the
    policy is also learned beside the demonstrations."""
    encoder: Literal["auto", "frozen", "free"] = "auto"
    """Encoder of a world model after pretraining: frozen, or trained further with optim.encoder_lr_scale (free). With
    auto it is frozen if at least half of the demonstrations end where others end, as in manipulation, else free."""
    encoder_loss: EncoderLoss = "bc"
    """Loss that trains the encoder of a world model in pretraining: of the expert's actions (bc), or of the dynamics'
    predictions alone (consistency)."""
    steps: PositiveInt = 500
    """Environment steps of the pretrained policy with noise before learning begins, per seed, rounded up to whole
    episodes; in place of random_episodes."""
    noise_std: NonNegative = 0.2
    """Standard deviation of the noise on its actions in these steps."""
    noise_hold: PositiveInt = 1
    """Steps for which one draw of that noise is held."""
    propose_actions: bool = False
    """The pretrained policy's action is a candidate of the planner, which acts by another one only where every critic
    estimates a higher return. Only with --planner mppi."""
    selection_episodes: NonNegativeInt = 0
    """Episodes at the end of training with each of the agent, its policy and the pretrained policy. The pretrained
    policy acts from then on, unless another one leads in detected successes by more than one standard error. With 0,
    or where less than half of the demonstrations end where others end, the agent acts as trained."""
    success_window: PositiveInt = 20
    """Number of last states of each demonstration to which the success detector compares the states of an episode."""
    success_tolerance: Positive = 0.3
    """Largest distance of a success from the ends of demonstrations, in units of the median distance of the
    demonstrations' states from the ends of the others."""
    self_imitation_coef: NonNegative = 0.0
    """Weight of the policy's squared distance from the actions of agent episodes that are detected as successes."""


class Pretrained(eqx.Module):
    """Result of pretraining that an agent keeps beside its networks.

    Attributes:
        actor: copy of the networks that the pretrained policy acts by (`ActorCritic.actor`).
        encoder_scale: factor of the encoder's gradient, 0 where the encoder is frozen.
        detector: of successes, in the latent space of `actor`.
        demos_detected: fraction of the demonstrations that the detector finds to be successes by the others.
        acting: index in `CANDIDATES` of how the agent acts.
    """

    actor: PyTree
    encoder_scale: Float[Array, ""]
    detector: SuccessDetector
    demos_detected: Float[Array, ""]
    acting: Int[Array, ""]

    def encode(self, model: ActorCritic, obs: Float[Array, "..."] | ImageObs) -> Float[Array, " Z"]:
        """Encode an observation with the pretrained encoder."""
        return model.replace_actor(self.actor).encode(obs)

    def mode(self, model: ActorCritic, obs: Float[Array, "..."] | ImageObs) -> Float[Array, " A"]:
        """Compute the pretrained policy's mode."""
        return model.replace_actor(self.actor).pi(self.encode(model, obs)).mode


class DemoRows(NamedTuple):
    """All rows of the demonstrations, in order; `step` is that in the episode, negative where a row is empty."""

    obs: Float[Array, "M ..."] | ImageObs
    absorbing: Bool[Array, " M"]
    step: Int[Array, " M"]


class PretrainState(eqx.Module):
    """Networks in pretraining, and the optimiser's state."""

    model: ActorCritic
    opt_state: optax.OptState


class Pretraining(eqx.Module):
    """Pretraining of a model's encoder, policy and dynamics, written for one seed.

    Attributes:
        config: settings.
        optimizer: of all networks that are trained.
        rho: weight of a prediction one transition further into a segment.
    """

    config: PretrainConfig = eqx.field(static=True)
    optimizer: optax.GradientTransformation = eqx.field(static=True)
    rho: float = eqx.field(static=True)

    def init(self, model: ActorCritic) -> PretrainState:
        """Return the state before the first update."""
        return PretrainState(model, self.optimizer.init(_trainable(model)))

    def update(self, state: PretrainState, segments: Segment, key: Key[Array, ""]) -> tuple[PretrainState, Metrics]:
        """Take one gradient step on a batch of the expert's segments; `key` is that of the noise."""
        params, segments = _trainable(state.model), self._add_noise(state.model, segments, key)
        (loss, metrics), grads = jax.value_and_grad(pretrain_loss, has_aux=True)(
            params, state.model, segments, self.rho, self.config.encoder_loss
        )
        updates, opt_state = self.optimizer.update(grads, state.opt_state, params)
        model = _replace(state.model, optax.apply_updates(params, updates))
        metrics |= {"loss": loss, "grad_norm": optax.tree.norm(grads)}
        return PretrainState(model, opt_state), metrics

    def _add_noise(self, model: ActorCritic, segments: Segment, key: Key[Array, ""]) -> Segment:
        scale = self.config.obs_noise_std
        if not scale:
            return segments
        # Images have the random shift in place of noise.
        state = segments.obs.state if isinstance(segments.obs, ImageObs) else segments.obs
        unit = 1.0 if model.normalizer is None else model.normalizer.std.reshape(1, 1, *state.shape[2:])
        noisy = state + scale * unit * jax.random.normal(key, state.shape)
        obs = segments.obs._replace(state=noisy) if isinstance(segments.obs, ImageObs) else noisy
        return segments._replace(obs=obs)

    def placeholder(self, model: ActorCritic) -> Pretrained:
        """Return what an agent keeps before pretraining: the shapes of what `finish` returns."""
        latent_dim, config = len(model.absorbing_latent), self.config
        detector = SuccessDetector.empty(latent_dim, config.success_window, config.success_tolerance)
        # A copy, so that no buffer is donated twice.
        actor, zero = jax.tree.map(jnp.copy, model.actor), jnp.zeros(())
        return Pretrained(actor, zero, detector, jnp.copy(zero), jnp.zeros((), jnp.int32))

    def finish(self, model: ActorCritic, rows: DemoRows) -> Pretrained:
        """Return what the agent keeps of the pretrained `model` and the demonstrations."""
        kept, exists = self.placeholder(model), (rows.step >= 0) & ~rows.absorbing
        episode = jnp.where(exists, jnp.cumsum(rows.step == 0) - 1, -1)
        states = DemoStates(jax.vmap(model.encode)(rows.obs), episode, rows.step)
        detector, detected = kept.detector.fit(states)
        scale = {"auto": jnp.where(detected < MIN_DETECTED, 1.0, 0.0), "frozen": jnp.zeros(()), "free": jnp.ones(())}
        new = (detector, detected, scale[self.config.encoder])
        return eqx.tree_at(lambda p: (p.detector, p.demos_detected, p.encoder_scale), kept, new)

    def act(
        self,
        model: ActorCritic,
        pretrained: Pretrained,
        obs: Float[Array, "..."] | ImageObs,
        key: Key[Array, ""],
        explore: Bool[Array, ""],
    ) -> Float[Array, " A"]:
        """Act by the pretrained policy: its mode, with noise if `explore`."""
        action = pretrained.mode(model, obs)
        noise = self.config.noise_std * jax.random.normal(key, action.shape)
        return jnp.clip(action + jnp.where(explore, noise, 0.0), -1.0, 1.0)


def choose_action(
    model: ActorCritic,
    pretrained: Pretrained | None,
    action: Float[Array, " A"],
    obs: Float[Array, "..."] | ImageObs,
    explore: Bool[Array, ""],
) -> Float[Array, " A"]:
    """Return the agent's own `action`, or without exploration that of the candidate that was chosen to act."""
    if pretrained is None:
        return action
    candidates = jnp.stack([action, model.pi(model.encode(obs)).mode, pretrained.mode(model, obs)])
    return jnp.where(explore, action, candidates[pretrained.acting])


def pretrain_loss(
    params: PyTree, model: ActorCritic, segments: Segment, rho: float, encoder_loss: EncoderLoss
) -> tuple[Float[Array, ""], Metrics]:
    """Compute the BC loss of the policy plus, of a world model, the consistency loss of the dynamics.

    One of the two shapes the latents, which are fixed for the other one.

    Returns:
        The loss, and its two terms.
    """
    model = _replace(model, params)
    latents = encode_batch(model, segments.obs, segments.absorbing)
    fixed = jax.lax.stop_gradient(latents)
    for_policy, for_dynamics = (latents, fixed) if encoder_loss == "bc" else (fixed, latents)
    mode = jax.vmap(jax.vmap(lambda z: model.pi(z).mode))(for_policy[:, :-1])
    metrics = {"bc_loss": losses.action_error(mode, segments.action, segments.absorbing[:, :-1])}
    if isinstance(model, WorldModel):
        predicted = jax.vmap(model.rollout)(for_dynamics[:, 0], segments.action, segments.absorbing[:, 1:])
        metrics["consistency_loss"] = losses.consistency_loss(predicted[:, 1:], fixed[:, 1:], rho)
    return sum(metrics.values(), jnp.zeros(())), metrics


def self_imitation_loss(policy: eqx.Module, model: ActorCritic, selected: Selected) -> Float[Array, ""]:
    """Compute the action error of `policy` on the agent's selected segments, at encoded observations; 0 without any."""
    actor = eqx.tree_at(lambda m: m.policy, model, policy)
    return jnp.where(selected.exist, action_error(actor, selected.segments), 0.0)


def _trainable(model: ActorCritic) -> PyTree:
    """Return the actor, and the dynamics of a world model."""
    return model.actor, model.dynamics if isinstance(model, WorldModel) else None


def _replace(model: ActorCritic, params: PyTree) -> ActorCritic:
    actor, dynamics = params
    model = model.replace_actor(actor)
    return eqx.tree_at(lambda m: m.dynamics, model, dynamics) if isinstance(model, WorldModel) else model
