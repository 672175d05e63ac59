"""Checks that learner, metrics and actions are finite, per seed."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, PyTree

from cdred.errors import DivergenceError

HINT = "The last checkpoint is finite. Try a smaller --optim.learning-rate or --optim.grad-clip-norm."


class FiniteCheck(NamedTuple):
    """NaN/inf check of one `learn` call, per seed.

    Attributes:
        finite: every metric of every update is finite, and so is the learner after the last one.
        finite_updates: per metric, the number of updates before its first non-finite value.
        last_finite_metrics: metrics of the update before the first non-finite value; of the last update if all are
            finite.
        parameter_abs_max: largest absolute value in the learner, optimizer states and EMAs included.
    """

    finite: Bool[Array, "..."]
    finite_updates: dict[str, Int[Array, "..."]]
    last_finite_metrics: dict[str, Float[Array, "..."]]
    parameter_abs_max: Float[Array, "..."]


class Divergence(NamedTuple):
    """Description of a non-finite value, and the last finite metrics before it."""

    text: str
    metrics: dict[str, float]


NON_FINITE_ACTION = Divergence("planning found no finite action, although the learner is finite", {})


def check_finite(learner: PyTree, metrics: dict[str, Float[Array, " K"]]) -> FiniteCheck:
    """Check the metrics of K updates and the learner after them, for one seed."""
    finite_updates = {name: jnp.sum(jnp.cumprod(jnp.isfinite(x).astype(jnp.int32))) for name, x in metrics.items()}
    first = jnp.min(jnp.stack(list(finite_updates.values())))
    last_finite = {name: x[jnp.maximum(first - 1, 0)] for name, x in metrics.items()}
    leaves = jax.tree.leaves(eqx.filter(learner, eqx.is_inexact_array))
    abs_max = jnp.max(jnp.stack([jnp.max(jnp.abs(x)) for x in leaves]))
    (updates,) = next(iter(metrics.values())).shape
    return FiniteCheck((first == updates) & jnp.isfinite(abs_max), finite_updates, last_finite, abs_max)


def finite_rows(action: Float32[np.ndarray, "S E A"]) -> Bool[np.ndarray, " S"]:
    """Find the seeds with finite actions only."""
    return np.asarray(np.isfinite(action).all(axis=(1, 2)))


def require_finite_actions(finite: Bool[np.ndarray, " S"], seeds: tuple[int, ...], where: str) -> None:
    """Raise DivergenceError if `finite` does not hold for all seeds."""
    for row in np.flatnonzero(~finite):
        raise DivergenceError(f"seed {seeds[row]}, {where}: {NON_FINITE_ACTION.text}.\n{HINT}")
