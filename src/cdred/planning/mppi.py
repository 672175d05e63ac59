"""Model predictive path integral control over a latent model (arXiv 2310.16828, appendix)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from cdred.constraints import NonNegative, Positive, PositiveInt

TrajectoryValueFn = Callable[[Float[Array, "H A"]], Float[Array, ""]]


class Fallback(NamedTuple):
    """Action sequence that is taken unless the plan is better.

    Attributes:
        actions: the sequence, which is also a candidate of the planner in every iteration.
        is_better: function that tells if another sequence may replace it.
    """

    actions: Float[Array, "H A"]
    is_better: Callable[[Float[Array, "H A"]], Bool[Array, ""]]


@dataclass(frozen=True)
class MPPIConfig:
    """MPPI planning."""

    horizon: PositiveInt = 3
    """Steps of the planning horizon; also the number of transitions in a training segment."""
    num_samples: PositiveInt = 512
    """Action sequences per iteration, the policy's included."""
    num_pi_trajs: PositiveInt = 24
    """Action sequences proposed by the policy, once per plan."""
    num_elites: PositiveInt = 64
    """Best sequences, from which the next sampling distribution is fitted."""
    iterations: PositiveInt = 6
    """Iterations per plan; 2 more where actions have 20 or more components, as in TD-MPC2."""
    temperature: NonNegative = 0.5
    """Inverse temperature of the elites' weights (TD-MPC2's name and value)."""
    min_std: Positive = 0.05
    """Minimum standard deviation of the sampling distribution in evaluations."""
    max_std: Positive = 2.0
    """Maximum standard deviation, and that of the first iteration."""
    explore_min_std: Positive = 0.05
    """Minimum standard deviation while exploring, and so the least exploration noise."""
    policy_penalty_coef: NonNegative = 0.0
    """Penalty on a plan's squared distance from the policy's own action sequence, in units of the Q-scale. Not used by
    tdmpc2, which has no demonstrations to stay near."""


class MPPIState(eqx.Module):
    """Planner state of one environment between steps: the mean of its last plan."""

    mean: Float[Array, "H A"]

    @classmethod
    def create(cls, horizon: int, action_dim: int) -> Self:
        """Return the state at an episode's first step: zeros."""
        return cls(jnp.zeros((horizon, action_dim)))

    def shifted(self) -> Self:
        """Return the warm start of the next step: the plan moved on by one step, its last action zero."""
        return type(self)(jnp.concatenate([self.mean[1:], jnp.zeros_like(self.mean[:1])]))


class MPPI(eqx.Module):
    """MPPI planner."""

    config: MPPIConfig = eqx.field(static=True)

    def plan(
        self,
        state: MPPIState,
        policy_actions: Float[Array, "num_pi_trajs H A"],
        value: TrajectoryValueFn,
        key: Key[Array, ""],
        explore: Bool[Array, ""],
        fallback: Fallback | None = None,
    ) -> tuple[Float[Array, " A"], MPPIState]:
        """Plan the next action of one environment.

        Args:
            state: the last plan.
            policy_actions: the policy's action sequences, which stay candidates in every iteration.
            value: estimated return of an action sequence from the present state. Sequences of non-finite value are
                never elites; if all values are non-finite, the action is NaN.
            key: randomness of this step.
            explore: add noise of the final sampling distribution to the action.
            fallback: sequence to act by where the plan is not better; None to act by the plan.

        Returns:
            The action, and the plan to warm-start the next step from.
        """
        config = self.config
        noise_key, elite_key, explore_key = jax.random.split(key, 3)
        mean = state.shifted().mean
        std = jnp.full_like(mean, config.max_std)
        min_std = jnp.where(explore, config.explore_min_std, config.min_std)
        if fallback is not None:
            policy_actions = jnp.concatenate([fallback.actions[None], policy_actions])
        # The policy's sequences do not change within a plan, so they are evaluated once.
        policy_values = self._evaluate(policy_actions, value)

        def refine(carry, k):
            mean, std = carry[:2]
            sequences = self._sample(mean, std, k)
            candidates = jnp.concatenate([policy_actions, sequences])
            values = jnp.concatenate([policy_values, self._evaluate(sequences, value)])
            return self._refit(candidates, values, min_std), None

        elites = (jnp.zeros((config.num_elites, *mean.shape)), jnp.zeros(config.num_elites))
        (mean, std, sequences, logits), _ = jax.lax.scan(
            refine, (mean, std, *elites), jax.random.split(noise_key, config.iterations)
        )
        chosen = sequences[jax.random.categorical(elite_key, logits)]
        if fallback is not None:
            chosen = jnp.where(fallback.is_better(chosen), chosen, fallback.actions)
        # Without a sequence of finite value the elites are arbitrary, and their action must not pass for a plan.
        action = jnp.where(jnp.all(jnp.isfinite(mean)), chosen[0], jnp.nan)
        noise = std[0] * jax.random.normal(explore_key, action.shape)
        return jnp.clip(action + jnp.where(explore, noise, 0.0), -1.0, 1.0), MPPIState(mean)

    @jax.named_scope("planner")
    def _sample(self, mean: Array, std: Array, key: Key[Array, ""]) -> Float[Array, "N H A"]:
        noise = jax.random.normal(key, (self.config.num_samples - self.config.num_pi_trajs, *mean.shape))
        return jnp.clip(mean[None] + std[None] * noise, -1.0, 1.0)

    def _evaluate(self, sequences: Float[Array, "N H A"], value: TrajectoryValueFn) -> Float[Array, " N"]:
        values = jax.vmap(value)(sequences)
        return jnp.where(jnp.isfinite(values), values, -jnp.inf)

    @jax.named_scope("planner")
    def _refit(
        self, candidates: Float[Array, "M H A"], values: Float[Array, " M"], min_std: Float[Array, ""]
    ) -> tuple[Float[Array, "H A"], Float[Array, "H A"], Float[Array, "elites H A"], Float[Array, " elites"]]:
        """Return weighted mean and std of the elites, the elites, and their log-weights."""
        top, index = jax.lax.top_k(values, self.config.num_elites)
        elites = candidates[index]
        logits = self.config.temperature * (top - top[0])
        weight = jax.nn.softmax(logits)[:, None, None]
        mean = jnp.sum(weight * elites, axis=0)
        std = jnp.sqrt(jnp.sum(weight * (elites - mean[None]) ** 2, axis=0))
        return mean, jnp.clip(std, min_std, self.config.max_std), elites, logits
