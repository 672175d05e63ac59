"""Random keys of a run: one per seed and purpose.

All randomness of a run is a function of these keys and a counter of steps or updates, so a run resumes from its
counters and `TrainState.divergence_restarts` only.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int64, Key

# Purposes for which the key of a seed is split once, so that no two of them share randomness.
INIT, ACT, LEARN, EVALUATE, DIAGNOSTICS, PRETRAIN = range(6)
# Restarts are counted down from here, so that the number folded in is never a counter of steps or updates.
RESTART_OFFSET = 2**32


def seed_keys(seeds: tuple[int, ...], purpose: int) -> Key[Array, " S"]:
    """Make one key per seed for a purpose; the key of a seed is independent of the other seeds."""
    return jax.vmap(lambda s: jax.random.fold_in(jax.random.key(s), purpose))(jnp.array(seeds, jnp.uint32))


def rekey(keys: Key[Array, " S"], divergence_restarts: Int64[np.ndarray, " S"]) -> Key[Array, " S"]:
    """Replace the key of each seed that has restarted by another one per restart; keep the keys of the other seeds."""
    data = jnp.asarray((RESTART_OFFSET - np.maximum(divergence_restarts, 1)).astype(np.uint32))
    return jnp.where(jnp.asarray(divergence_restarts > 0), jax.vmap(jax.random.fold_in)(keys, data), keys)


class RunKeys:
    """Keys of a run. Those of acting and learning change with each divergence restart of their seed.

    Attributes:
        act: keys of exploration and planning.
        learn: keys of updates.
        evaluate: keys of evaluations.
        diagnostics: keys of the batches that diagnostics are computed on.
        pretrain: keys of the updates of pretraining.
    """

    def __init__(self, seeds: tuple[int, ...]):
        self._seeds = seeds
        self.evaluate, self.diagnostics = seed_keys(seeds, EVALUATE), seed_keys(seeds, DIAGNOSTICS)
        self.pretrain = seed_keys(seeds, PRETRAIN)
        self.set_restarts(np.zeros(len(seeds), np.int64))

    def set_restarts(self, divergence_restarts: Int64[np.ndarray, " S"]) -> None:
        """Set the keys of acting and learning for this number of restarts per seed."""
        self.act, self.learn = (rekey(seed_keys(self._seeds, p), divergence_restarts) for p in (ACT, LEARN))
