"""Coupled Distributional Random Expert Distillation (arXiv 2505.02228).

Two predictors distil the same K random target networks, f_phi on expert data and f_psi on the agent's own data. The
distance of a predictor from the targets' mean, with a correction that counts visits (DRND, arXiv 2401.09750), estimates
the density of its data in latent space. The reward is the weighted difference of the two: expert density minus agent
density. Equations, metrics and options: docs/methods/cdred.md.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from cdred.algos.base import Metrics
from cdred.algos.method import CriticState, LatentBatch
from cdred.algos.reward_input import RewardInput
from cdred.algos.reward_model import RewardModel
from cdred.algos.td import RewardMethod, RewardOutput
from cdred.constraints import Fraction, HiddenDims, NonNegative, PositiveFraction, PositiveInt
from cdred.nn.layers import MLP, Ensemble, SplitInput, ema
from cdred.types import Precision


@dataclass(frozen=True)
class CDREDConfig:
    """CDRED's reward (cdred, cdred-sac)."""

    input: RewardInput = "state-action"
    """What the densities are estimated on: (z, a), the transition (z, z'), or the state z'."""
    zeta: Fraction = 0.8
    """Weight of the expert bonus against the agent bonus (1: no agent bonus); the initial one if it is adaptive."""
    zeta_schedule: Literal["constant", "overlap", "ratio"] = "constant"
    """Adaptation of that weight. With overlap it rises to 1 as the agent's data become as close to the expert's as
    these are themselves; with ratio the weighted agent bonus stays the same fraction of the weighted expert bonus, on
    the agent's data."""
    zeta_rate: PositiveFraction = 0.01
    """Step of the adaptive weight in an update."""
    alpha: Fraction = 0.9
    """Weight of the squared distance against the count correction within a bonus."""
    count_reduction: Literal["mean", "sum"] = "mean"
    """Reduction of the count estimates over the embedding; the squared distance is a sum."""
    sigma: NonNegative = 1.0
    """Scale of the bonuses in the reward."""
    transform: Literal["identity", "exp", "log"] = "identity"
    """Transform g applied to each bonus: v, exp(v) or -log(1 - v) of v = -sigma b."""
    num_targets: PositiveInt = 5
    """Random target networks, K; at least 2."""
    embedding_dim: PositiveInt = 64
    """Output dimension of targets and predictors."""
    target_hidden_dims: HiddenDims = (512, 512)
    """Hidden layers of the targets."""
    predictor_hidden_dims: HiddenDims = (1024, 1024, 1024)
    """Hidden layers of the two predictors."""
    variance_eps: NonNegative = 1e-3
    """Added to the targets' variance in the count estimate's denominator."""
    ema_rate: PositiveFraction = 1.0
    """Step of the predictors' EMA copies, from which the reward is computed (1: from the predictors themselves)."""
    input_gradient: bool = False
    """The densities' loss also trains the encoder, unless it is frozen, and the dynamics. Otherwise the densities only
    follow the latent space. Not with --cdred.input state, and not on raw observations."""


BONUS_EPS = 1e-6
# g of v <= 0. The logarithm compresses large bonuses, and has the slope of the identity at 0.
TRANSFORMS = {"identity": lambda v: v, "exp": jnp.exp, "log": lambda v: -jnp.log1p(-v)}


class TargetMoments(NamedTuple):
    """Mean mu(x) = mean_k f_k(x) and variance B2(x) - mu(x)^2 over the K targets, each `[e]`."""

    mean: Float[Array, " e"]
    variance: Float[Array, " e"]


def target_moments(embeddings: Float[Array, "K e"]) -> TargetMoments:
    """Compute the moments over K targets, the variance from centred values: B2 - mu^2 would cancel in float32."""
    mean = jnp.mean(embeddings, axis=0)
    return TargetMoments(mean, jnp.mean((embeddings - mean[None]) ** 2, axis=0))


def inverse_count(prediction: Float[Array, " e"], moments: TargetMoments, eps: float) -> Float[Array, " e"]:
    """Estimate 1/n after n visits: y(x) = (f^2 - mu^2) / (B2 - mu^2 + eps) (Lemma 1)."""
    return (prediction**2 - moments.mean**2) / (moments.variance + eps)


def distillation_loss(
    prediction: Float[Array, " e"], embeddings: Float[Array, "K e"], target_index: Int[Array, ""]
) -> Float[Array, ""]:
    """Compute |f(x) - f_k(x)|^2 for a sampled k, one term of L_r; minimised by the mean of the sampled targets."""
    return jnp.sum((prediction - embeddings[target_index]) ** 2)


class CoupledRND(RewardModel):
    """Coupled random network distillation: targets f_1..f_K, predictors f_phi and f_psi, and the reward.

    All methods take one input x = (z, a). The targets are never trained, but belong to the agent: the predictors mean
    nothing without them.

    Attributes:
        targets: K fixed random networks.
        predictors: two networks, f_phi at index `EXPERT` and f_psi at index `AGENT`.
        ema_predictors: their EMA copies, from which the reward is computed; None with an `ema_rate` of 1.
        adaptive_zeta: weight of the expert bonus; None where it is constant.
    """

    EXPERT = 0
    AGENT = 1

    targets: Ensemble
    predictors: Ensemble
    ema_predictors: Ensemble | None
    adaptive_zeta: Float[Array, ""] | None
    config: CDREDConfig = eqx.field(static=True)

    @classmethod
    def create(
        cls, input_dim: int, config: CDREDConfig, *, precision: Precision = "float32", key: Key[Array, ""]
    ) -> Self:
        """Initialise targets and predictors."""
        target_key, predictor_key = jax.random.split(key)

        def ensemble(num: int, hidden_dims: tuple[int, ...], key: Key[Array, ""]) -> Ensemble:
            dims = (input_dim, hidden_dims, config.embedding_dim)
            return Ensemble(lambda k: MLP(*dims, precision=precision, key=k), num, key=key)

        predictors = ensemble(2, config.predictor_hidden_dims, predictor_key)
        return cls(
            targets=ensemble(config.num_targets, config.target_hidden_dims, target_key),
            predictors=predictors,
            # A copy, so that no buffer is donated twice.
            ema_predictors=None if config.ema_rate == 1.0 else jax.tree.map(jnp.copy, predictors),
            adaptive_zeta=None if config.zeta_schedule == "constant" else jnp.float32(config.zeta),
            config=config,
        )

    @property
    def trainable(self) -> Ensemble:
        return self.predictors

    @property
    def zeta(self) -> float | Float[Array, ""]:
        """Weight of the expert bonus."""
        return self.config.zeta if self.adaptive_zeta is None else self.adaptive_zeta

    @jax.named_scope("ema")
    def after_update(self, metrics: Metrics) -> Self:
        reward = self
        if self.ema_predictors is not None:
            new = ema(self.ema_predictors, self.predictors, self.config.ema_rate)
            reward = eqx.tree_at(lambda r: r.ema_predictors, reward, new)
        if self.adaptive_zeta is not None:
            zeta = ema(self.adaptive_zeta, target_zeta(self.config, metrics), self.config.zeta_rate)
            reward = eqx.tree_at(lambda r: r.adaptive_zeta, reward, zeta)
        return reward

    def __call__(self, x: Float[Array, " in"] | SplitInput) -> Float[Array, ""]:
        with jax.named_scope("targets"):
            moments = target_moments(self.targets(x))
        with jax.named_scope("predictors"):
            predictions = self._reward_predictors(x)
        return self.reward(predictions, moments)

    def expert_novelty(self, x: Float[Array, " in"]) -> Float[Array, ""]:
        """Compute the expert bonus b_phi(x)."""
        return self.bonus(self._reward_predictors(x)[self.EXPERT], target_moments(self.targets(x)))

    @property
    def _reward_predictors(self) -> Ensemble:
        return self.predictors if self.ema_predictors is None else self.ema_predictors

    @jax.named_scope("reward")
    def reward(self, predictions: Float[Array, "2 e"], moments: TargetMoments) -> Float[Array, ""]:
        """Compute R from both predictions and the targets' moments."""
        return self.reward_and_bonuses(predictions, moments)[0]

    def reward_and_bonuses(
        self, predictions: Float[Array, "2 e"], moments: TargetMoments
    ) -> tuple[Float[Array, ""], Float[Array, "2"]]:
        """Compute R and the bonuses b_phi and b_psi that it consists of."""
        bonuses = self.bonus(predictions[self.EXPERT], moments), self.bonus(predictions[self.AGENT], moments)
        return self.combine(*bonuses), jnp.stack(bonuses)

    def bonus(self, prediction: Float[Array, " e"], moments: TargetMoments) -> Float[Array, ""]:
        """Compute b_f(x) = alpha |f - mu|^2 + (1 - alpha) sqrt(|y|), y the mean (or sum) over the embedding."""
        distance = jnp.sum((prediction - moments.mean) ** 2)
        counts = inverse_count(prediction, moments, self.config.variance_eps)
        count = jnp.sum(counts) if self.config.count_reduction == "sum" else jnp.mean(counts)
        return self.config.alpha * distance + (1.0 - self.config.alpha) * jnp.sqrt(jnp.abs(count))

    def combine(self, expert: Float[Array, ""], agent: Float[Array, ""]) -> Float[Array, ""]:
        """Compute R = zeta g(-sigma b_phi) - (1 - zeta) g(-sigma b_psi)."""
        zeta, sigma = self.zeta, self.config.sigma
        g = TRANSFORMS[self.config.transform]
        return zeta * g(-sigma * expert) - (1.0 - zeta) * g(-sigma * agent)


def cdred_reward(reward: CoupledRND, x: Float[Array, "N H in"], key: Key[Array, ""]) -> RewardOutput:
    """Compute L_r per transition, |f - f_k|^2 of each half by its own predictor, and the reward R.

    Without `input_gradient` the input is cut from the gradient: the density estimates follow the latent space and do
    not shape it.
    """
    x = x if reward.config.input_gradient else jax.lax.stop_gradient(x)
    halves = x.reshape(2, -1, x.shape[-1])
    with jax.named_scope("targets"):
        embeddings = jax.lax.stop_gradient(jax.vmap(jax.vmap(reward.targets))(halves))
    target_index = jax.random.randint(key, halves.shape[:2], 0, len(reward.targets))
    own_predictions, predictions = _predict(reward, halves)
    distillation = jax.vmap(jax.vmap(distillation_loss))(own_predictions, embeddings, target_index)
    moments = jax.vmap(jax.vmap(target_moments))(embeddings)
    r, bonuses = jax.lax.stop_gradient(jax.vmap(jax.vmap(reward.reward_and_bonuses))(predictions, moments))
    (expert_on_expert, _), (expert_on_agent, agent_on_agent) = jnp.mean(bonuses, axis=1)
    metrics = {
        "expert_bonus_on_expert": expert_on_expert,
        "expert_bonus_on_agent": expert_on_agent,
        "agent_bonus_on_agent": agent_on_agent,
        "zeta": jnp.asarray(reward.zeta, jnp.float32),
    }
    return RewardOutput(distillation.reshape(x.shape[:2]), r.reshape(x.shape[:2]), metrics)


def target_zeta(config: CDREDConfig, metrics: Metrics) -> Float[Array, ""]:
    """Compute the weight that the adaptive zeta moves to, from the mean bonuses of a batch.

    With zeta_0 = `config.zeta` it is zeta_0 + (1 - zeta_0) min(1, b_phi(expert) / b_phi(agent)) with overlap, and with
    ratio the zeta of (1 - zeta) b_psi(agent) = (1 - zeta_0) / zeta_0 zeta b_phi(agent).
    """
    expert_on_agent, agent_on_agent = metrics["expert_bonus_on_agent"], metrics["agent_bonus_on_agent"]
    if config.zeta_schedule == "overlap":
        overlap = jnp.minimum(1.0, metrics["expert_bonus_on_expert"] / jnp.maximum(expert_on_agent, BONUS_EPS))
        return config.zeta + (1.0 - config.zeta) * overlap
    ratio = (1.0 - config.zeta) / config.zeta
    return agent_on_agent / jnp.maximum(agent_on_agent + ratio * expert_on_agent, BONUS_EPS)


@jax.named_scope("predictors")
def _predict(reward: CoupledRND, halves: Float[Array, "2 n in"]) -> tuple[Float[Array, "2 n e"], Array]:
    """Predict each half by its own predictor (loss), and by both without gradient, `[2, n, 2, e]` (reward).

    Without EMA copies one pass of each network serves both.
    """
    per_predictor = jax.vmap(reward.predictors.per_member, in_axes=1, out_axes=1)
    own = per_predictor(halves)
    if reward.ema_predictors is not None:
        return own, jax.lax.stop_gradient(jax.vmap(jax.vmap(reward.ema_predictors))(halves))
    crossed = per_predictor(halves[::-1])
    on_expert, on_agent = jnp.stack([own[0], crossed[1]], 1), jnp.stack([crossed[0], own[1]], 1)
    return own, jax.lax.stop_gradient(jnp.stack([on_expert, on_agent]))


class CDRED(RewardMethod):
    """CDRED: reward = expert density minus agent density, both estimated in latent space."""

    config: CDREDConfig = eqx.field(static=True)
    precision: Precision = eqx.field(static=True, default="float32")

    @property
    def reward_input(self) -> RewardInput:
        return self.config.input

    def make_reward(self, input_dim: int, *, key: Key[Array, ""]) -> CoupledRND:
        return CoupledRND.create(input_dim, self.config, precision=self.precision, key=key)

    def reward_output(self, state: CriticState, batch: LatentBatch, key: Key[Array, ""]) -> RewardOutput:
        assert isinstance(state.reward, CoupledRND)
        return cdred_reward(state.reward, batch.reward_inputs(self.config.input, state.model), key)
