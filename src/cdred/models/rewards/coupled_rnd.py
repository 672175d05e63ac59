"""The coupled reward: where the expert was, away from where the agent already is (arXiv 2505.02228).

Two predictors distil the same K random target networks, one on expert data (f_phi), one on the agent's own (f_psi).
How far each is from the targets' mean, with a correction that counts visits (DRND, arXiv 2401.09750), estimates the
two densities; the reward is their weighted difference. Equations: docs/method.md section 2.
"""

from typing import Literal, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from cdred.algos.reward_model import RewardModel
from cdred.nn.layers import MLP, Apart, Ensemble, ema
from cdred.types import Precision

Coupling = Literal["identity", "exp"]
Reduction = Literal["sum", "mean"]


class TargetMoments(NamedTuple):
    """mu(x) = mean_k f_k(x), and the variance B2(x) - mu(x)^2 over the K targets, each `[e]`."""

    mean: Float[Array, " e"]
    variance: Float[Array, " e"]


def target_moments(embeddings: Float[Array, "K e"]) -> TargetMoments:
    """Moments over the K targets. The variance is centred before squaring: B2 - mu^2 would cancel in float32."""
    mean = jnp.mean(embeddings, axis=0)
    return TargetMoments(mean, jnp.mean((embeddings - mean[None]) ** 2, axis=0))


def visit_rate(prediction: Float[Array, " e"], moments: TargetMoments, floor: float) -> Float[Array, " e"]:
    """y(x) = (f^2 - mu^2) / (B2 - mu^2): after n visits its mean is 1/n (Lemma 1).

    `floor` is added to the denominator, which K targets that agree by chance leave tiny (trap 4).
    """
    return (prediction**2 - moments.mean**2) / (moments.variance + floor)


class CoupledRND(RewardModel):
    """Targets f_1..f_K (never trained, yet part of the agent), predictors (f_phi, f_psi), and the reward from them.

    All methods take one input x = (z, a).

    Attributes:
        targets: K fixed random networks.
        predictors: two networks: index `EXPERT` is f_phi, index `OWN` is f_psi.
        averages: their moving averages, which the reward is read from; None if it is read from the predictors.
        ema_rate: step of the averages towards the predictors.
        zeta: weight of the expert's bonus against the agent's own.
        alpha: weight of the squared distance against the count correction within a bonus.
        sigma: scale of the reward.
        coupling: g of the paper, `identity` or `exp`.
        distance_reduction: how |f - mu|^2 is reduced over the embedding (`sum` is the norm as written).
        count_reduction: how y is reduced over the embedding, before the root.
        variance_eps: added to B2 - mu^2.
    """

    EXPERT = 0
    OWN = 1

    targets: Ensemble
    predictors: Ensemble
    averages: Ensemble | None
    ema_rate: float = eqx.field(static=True)
    zeta: float = eqx.field(static=True)
    alpha: float = eqx.field(static=True)
    sigma: float = eqx.field(static=True)
    coupling: Coupling = eqx.field(static=True)
    distance_reduction: Reduction = eqx.field(static=True)
    count_reduction: Reduction = eqx.field(static=True)
    variance_eps: float = eqx.field(static=True)

    @classmethod
    def create(
        cls,
        input_dim: int,
        *,
        num_targets: int,
        target_hidden_dims: tuple[int, ...],
        predictor_hidden_dims: tuple[int, ...],
        embedding_dim: int,
        zeta: float,
        alpha: float,
        sigma: float,
        coupling: Coupling,
        distance_reduction: Reduction,
        count_reduction: Reduction,
        variance_eps: float,
        ema_rate: float = 1.0,
        precision: Precision = "float32",
        key: Key[Array, ""],
    ) -> Self:
        """Random targets and freshly initialised predictors, read as they are if `ema_rate` is 1."""
        kt, kp = jax.random.split(key)

        def ensemble(num: int, hidden_dims: tuple[int, ...], key: Key[Array, ""]) -> Ensemble:
            return Ensemble(
                lambda k: MLP(input_dim, hidden_dims, embedding_dim, precision=precision, key=k), num, key=key
            )

        predictors = ensemble(2, predictor_hidden_dims, kp)
        return cls(
            targets=ensemble(num_targets, target_hidden_dims, kt),
            predictors=predictors,
            # A copy, so that donated buffers are never given away twice.
            averages=None if ema_rate == 1.0 else jax.tree.map(jnp.copy, predictors),
            ema_rate=ema_rate,
            zeta=zeta,
            alpha=alpha,
            sigma=sigma,
            coupling=coupling,
            distance_reduction=distance_reduction,
            count_reduction=count_reduction,
            variance_eps=variance_eps,
        )

    @property
    def trainable(self) -> Ensemble:
        return self.predictors

    @jax.named_scope("averages")
    def settled(self) -> Self:
        if self.averages is None:
            return self
        return eqx.tree_at(lambda r: r.averages, self, ema(self.averages, self.predictors, self.ema_rate))

    def __call__(self, x: Float[Array, " in"] | Apart) -> Float[Array, ""]:
        judges = self.predictors if self.averages is None else self.averages
        with jax.named_scope("targets"):
            moments = target_moments(self.targets(x))
        with jax.named_scope("predictors"):
            predictions = judges(x)
        return self.reward(predictions, moments)

    def expert_bonus(self, x: Float[Array, " in"]) -> Float[Array, ""]:
        """b_phi(x)."""
        judges = self.predictors if self.averages is None else self.averages
        return self.bonus(judges(x)[self.EXPERT], target_moments(self.targets(x)))

    @jax.named_scope("reward")
    def reward(self, predictions: Float[Array, "2 e"], moments: TargetMoments) -> Float[Array, ""]:
        """R from both predictors' outputs and the targets' moments, for callers who have them already."""
        return self.couple(self.bonus(predictions[self.EXPERT], moments), self.bonus(predictions[self.OWN], moments))

    def bonus(self, prediction: Float[Array, " e"], moments: TargetMoments) -> Float[Array, ""]:
        """b_f(x) = alpha |f - mu|^2 + (1 - alpha) sqrt(|y|)."""
        distance = _reduce((prediction - moments.mean) ** 2, self.distance_reduction)
        rate = _reduce(visit_rate(prediction, moments, self.variance_eps), self.count_reduction)
        return self.alpha * distance + (1.0 - self.alpha) * jnp.sqrt(jnp.abs(rate))

    def couple(self, expert: Float[Array, ""], own: Float[Array, ""]) -> Float[Array, ""]:
        """R = zeta g(-sigma b_phi) - (1 - zeta) g(-sigma b_psi)."""
        g = jnp.exp if self.coupling == "exp" else (lambda v: v)
        return self.zeta * g(-self.sigma * expert) - (1.0 - self.zeta) * g(-self.sigma * own)


def distillation_loss(
    prediction: Float[Array, " e"], embeddings: Float[Array, "K e"], drawn: Int[Array, ""]
) -> Float[Array, ""]:
    """|f(x) - f_k(x)|^2 for the drawn k (one term of L_r). Its optimum after n draws is the drawn targets' mean."""
    return jnp.sum((prediction - embeddings[drawn]) ** 2)


def _reduce(x: Float[Array, " e"], reduction: Reduction) -> Float[Array, ""]:
    return jnp.sum(x) if reduction == "sum" else jnp.mean(x)
