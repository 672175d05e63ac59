"""Model predictive path integral control over a latent model (docs/method.md section 4; arXiv 2310.16828, appendix)."""

from collections.abc import Callable
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

Return = Callable[[Float[Array, "H A"]], Float[Array, ""]]


class MPPIState(eqx.Module):
    """What one environment's planner remembers between steps: the mean of its last plan."""

    mean: Float[Array, "H A"]

    @classmethod
    def create(cls, horizon: int, action_dim: int) -> Self:
        """The plan of an episode's first step: zeros."""
        return cls(jnp.zeros((horizon, action_dim)))

    def shifted(self) -> Self:
        """The warm start of the next step: one step on, the last action zero."""
        return type(self)(jnp.concatenate([self.mean[1:], jnp.zeros_like(self.mean[:1])]))


class MPPI(eqx.Module):
    """The planner's settings, and the plan itself.

    Attributes:
        horizon: steps looked ahead, H.
        num_samples: action sequences per iteration, those of the prior included.
        num_pi_trajs: how many of them the policy prior proposes, once per plan.
        num_elites: best sequences that form the next distribution.
        iterations: refinements of the distribution.
        temperature: inverse temperature of the elites' weights.
        min_std, max_std: bounds of the sampling distribution's standard deviation.
        explore_min_std: the lower one while exploring, and so the least noise that is added then.
    """

    horizon: int = eqx.field(static=True)
    num_samples: int = eqx.field(static=True)
    num_pi_trajs: int = eqx.field(static=True)
    num_elites: int = eqx.field(static=True)
    iterations: int = eqx.field(static=True)
    temperature: float = eqx.field(static=True)
    min_std: float = eqx.field(static=True)
    max_std: float = eqx.field(static=True)
    explore_min_std: float = eqx.field(static=True)

    def plan(
        self,
        state: MPPIState,
        proposals: Float[Array, "num_pi_trajs H A"],
        value: Return,
        key: Key[Array, ""],
        explore: Bool[Array, ""],
    ) -> tuple[Float[Array, " A"], MPPIState]:
        """The next action of one environment and the plan to warm-start from.

        Args:
            state: the last plan.
            proposals: the prior's action sequences, which stay candidates in every iteration.
            value: estimated return of an action sequence from here; sequences of non-finite value are never elites,
                and if all are such, or the elites themselves are not finite, neither is the action.
            key: randomness of this step.
            explore: whether to add the plan's own noise to the action.
        """
        noise_key, elite_key, explore_key = jax.random.split(key, 3)
        mean = state.shifted().mean
        std = jnp.full_like(mean, self.max_std)
        least_std = jnp.where(explore, self.explore_min_std, self.min_std)
        # The prior's proposals do not change within a plan, so they are rolled out once.
        proposal_values = self._evaluate(proposals, value)

        def refine(carry, k):
            mean, std = carry[:2]
            sequences = self._sample(mean, std, k)
            candidates = jnp.concatenate([proposals, sequences])
            values = jnp.concatenate([proposal_values, self._evaluate(sequences, value)])
            return self._fit(candidates, values, least_std), None

        elites = (jnp.zeros((self.num_elites, *mean.shape)), jnp.zeros(self.num_elites))
        (mean, std, sequences, logits), _ = jax.lax.scan(
            refine, (mean, std, *elites), jax.random.split(noise_key, self.iterations)
        )
        action = sequences[jax.random.categorical(elite_key, logits), 0]
        # Where no sequence had a finite value there is no plan, and an action must not look as if there were (trap 4).
        action = jnp.where(jnp.all(jnp.isfinite(mean)), action, jnp.nan)
        noise = std[0] * jax.random.normal(explore_key, action.shape)
        return jnp.clip(action + jnp.where(explore, noise, 0.0), -1.0, 1.0), MPPIState(mean)

    @jax.named_scope("planner")
    def _sample(self, mean: Array, std: Array, key: Key[Array, ""]) -> Float[Array, "N H A"]:
        noise = jax.random.normal(key, (self.num_samples - self.num_pi_trajs, *mean.shape))
        return jnp.clip(mean[None] + std[None] * noise, -1.0, 1.0)

    def _evaluate(self, sequences: Float[Array, "N H A"], value: Return) -> Float[Array, " N"]:
        values = jax.vmap(value)(sequences)
        return jnp.where(jnp.isfinite(values), values, -jnp.inf)

    @jax.named_scope("planner")
    def _fit(
        self, candidates: Float[Array, "M H A"], values: Float[Array, " M"], least_std: Float[Array, ""]
    ) -> tuple[Float[Array, "H A"], Float[Array, "H A"], Float[Array, "elites H A"], Float[Array, " elites"]]:
        """Weighted mean and std of the elites, the elites, and their log-weights."""
        top, index = jax.lax.top_k(values, self.num_elites)
        elites = candidates[index]
        logits = self.temperature * (top - top[0])
        weight = jax.nn.softmax(logits)[:, None, None]
        mean = jnp.sum(weight * elites, axis=0)
        std = jnp.sqrt(jnp.sum(weight * (elites - mean[None]) ** 2, axis=0))
        return mean, jnp.clip(std, least_std, self.max_std), elites, logits
