"""Training of networks without an environment, measured at several numbers of updates."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

T = TypeVar("T")
LEARNING_RATE, BATCH = 3e-4, 128


def update_bounds(checkpoints: Sequence[int]) -> Int[Array, "checkpoints 2"]:
    """Return the first update of each checkpoint, and the one after its last."""
    return jnp.array([(0, *checkpoints[:-1]), checkpoints]).T


def fit(
    loss: Callable[[Any, Int[Array, ""]], Float[Array, ""]],
    params: Any,
    bounds: Int[Array, "checkpoints 2"],
    measure: Callable[[Any], T],
) -> T:
    """Minimise a loss with Adam.

    Args:
        loss: of the parameters, in the update of an index, which its randomness depends on.
        params: initial parameters.
        bounds: as from `update_bounds`.
        measure: of the parameters.

    Returns:
        The measurements at all checkpoints, along a new first axis.
    """
    optimizer = optax.adam(LEARNING_RATE)

    def update(index: Int[Array, ""], carry):
        params, opt_state = carry
        updates, opt_state = optimizer.update(jax.grad(loss)(params, index), opt_state)
        return optax.apply_updates(params, updates), opt_state

    def to_checkpoint(carry, bounds: Int[Array, "2"]):
        carry = jax.lax.fori_loop(bounds[0], bounds[1], update, carry)
        return carry, measure(carry[0])

    return jax.lax.scan(to_checkpoint, (params, optimizer.init(params)), bounds)[1]
