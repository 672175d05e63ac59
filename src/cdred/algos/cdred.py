"""Coupled Distributional Random Expert Distillation (arXiv 2505.02228)."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cdred.algos.method import Lived
from cdred.algos.reward_agent import RewardAgent
from cdred.algos.td import Scores
from cdred.models.rewards.coupled_rnd import CoupledRND, distillation_loss, target_moments


class CDRED(RewardAgent[CoupledRND]):
    """Be where the expert was, away from where you already go: both densities are learned beside the world model."""

    uses_demos: ClassVar[bool] = True

    def score(self, reward: CoupledRND, lived: Lived, key: Key[Array, ""]) -> Scores:
        return coupled_scores(reward, lived.inputs, key)


def coupled_scores(reward: CoupledRND, x: Float[Array, "N H in"], key: Key[Array, ""]) -> Scores:
    """|f - f_k|^2 of each store's own predictor (L_r), and R (docs/method.md section 2).

    x is cut off beforehand: the density estimates follow the latent space and do not shape it.
    """
    stores = jax.lax.stop_gradient(x).reshape(2, -1, x.shape[-1])
    with jax.named_scope("targets"):
        embeddings = jax.lax.stop_gradient(jax.vmap(jax.vmap(reward.targets))(stores))
    drawn = jax.random.randint(key, stores.shape[:2], 0, len(reward.targets))
    fitted, predictions = _predictions(reward, stores)
    distilled = jax.vmap(jax.vmap(distillation_loss))(fitted, embeddings, drawn)
    r = jax.vmap(jax.vmap(reward.reward))(predictions, jax.vmap(jax.vmap(target_moments))(embeddings))
    return Scores(distilled.reshape(x.shape[:2]), r.reshape(x.shape[:2]))


@jax.named_scope("predictors")
def _predictions(reward: CoupledRND, stores: Float[Array, "2 n in"]) -> tuple[Float[Array, "2 n e"], Array]:
    """What the loss fits, each store by its own predictor, and what the reward reads, `[2, n, 2, e]` without gradient.

    Without averages one pass of each network serves both (trap 10).
    """
    each = jax.vmap(reward.predictors.each, in_axes=1, out_axes=1)
    fitted = each(stores)
    if reward.averages is not None:
        return fitted, jax.lax.stop_gradient(jax.vmap(jax.vmap(reward.averages))(stores))
    crossed = each(stores[::-1])
    on_expert, on_own = jnp.stack([fitted[0], crossed[1]], 1), jnp.stack([crossed[0], fitted[1]], 1)
    return fitted, jax.lax.stop_gradient(jnp.stack([on_expert, on_own]))
