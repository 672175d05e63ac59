"""Detection of successful episodes without a reward: they come to where demonstrations end."""

from typing import NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# States of the demonstrations' ends that are kept, evenly spread; and states that are compared with them at a time.
NUM_ENDS, BATCH = 1024, 256


class DemoStates(NamedTuple):
    """States of the demonstrations in order: latents, episode of each, and step in the episode.

    Rows that are no state (absorbing, empty) have episode -1.
    """

    latents: Float[Array, "M Z"]
    episode: Int[Array, " M"]
    step: Int[Array, " M"]


class SuccessDetector(eqx.Module):
    """Nearest-neighbour distances to the ends of demonstrations in a fixed latent space.

    An episode is detected as a success if one of its states after the first is near one of the last `window` states of
    a demonstration: not all policies hold still there, as demonstrations often do. The unit of that distance is the
    extent of the task, the median distance of the demonstrations' states from the ends of the other demonstrations. It
    is robust to outliers among the demonstrations, and does not depend on how still they hold at their ends.

    Attributes:
        ends: states of the demonstrations' last steps.
        threshold: largest distance from `ends` of a success.
        window: number of last steps of a demonstration that are its end.
        tolerance: threshold in units of the task's extent.
    """

    ends: Float[Array, "E Z"]
    threshold: Float[Array, ""]
    window: int = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)

    @classmethod
    def empty(cls, latent_dim: int, window: int, tolerance: float) -> Self:
        """Return a detector that detects no success, for use until `fit`."""
        return cls(jnp.zeros((NUM_ENDS, latent_dim)), jnp.full((), -1.0), window, tolerance)

    def fit(self, demos: DemoStates) -> tuple[Self, Float[Array, ""]]:
        """Fit the detector to demonstrations. A single demonstration is compared with its own end.

        Returns:
            The detector, and the fraction of the demonstrations that the others detect: they end near the others' ends,
            and do not begin there. It is near 0 in locomotion, which has no end state.
        """
        exists, size = demos.episode >= 0, len(demos.episode)
        last = jax.ops.segment_max(jnp.where(exists, demos.step, -1), demos.episode, size)
        is_end = exists & (demos.step > last[demos.episode] - self.window)
        ends = _spread(is_end, NUM_ENDS)
        single = jnp.max(demos.episode) == 0

        def from_other_ends(row):
            z, episode = row
            return _nearest(demos.latents[ends], z, (demos.episode[ends] != episode) | single)

        distance = jax.lax.map(from_other_ends, (demos.latents, demos.episode), batch_size=BATCH)
        threshold = self.tolerance * jnp.nanmedian(jnp.where(exists, distance, jnp.nan))
        detector = eqx.tree_at(lambda d: (d.ends, d.threshold), self, (demos.latents[ends], threshold))
        end, first = (
            jax.ops.segment_min(jnp.where(mask, distance, jnp.inf), demos.episode, size)
            for mask in (is_end, exists & (demos.step == 0))
        )
        count = jnp.max(demos.episode) + 1
        detected = (end <= threshold) & (first > threshold) & (jnp.arange(size) < count)
        return detector, jnp.sum(detected.astype(jnp.float32)) / count.astype(jnp.float32)

    def distance(self, z: Float[Array, " Z"]) -> Float[Array, ""]:
        """Compute the distance of a state from the nearest end of a demonstration."""
        return _nearest(self.ends, z, jnp.ones(len(self.ends), bool))

    def detect(
        self,
        latents: Float[Array, "W Z"],
        step: Int[Array, " W"],
        absorbing: Bool[Array, " W"],
        final: Bool[Array, " W"],
    ) -> Bool[Array, " W"]:
        """Detect the successes among the episodes that end within a range of consecutive rows.

        Args:
            latents: of the rows.
            step: step of each row in its episode; negative where empty.
            absorbing: rows after termination, which are left out.
            final: last rows of episodes.

        Returns:
            True at the last rows of the successful episodes.
        """
        # As in evaluations, the states that actions led to.
        reached, row = (step > 0) & ~absorbing, jnp.arange(len(step))
        # The row of an episode's first step; 0 for the one that begins before these rows.
        episode = jnp.maximum(row - step, -1) + 1
        distance = jnp.where(reached, jax.vmap(self.distance)(latents), jnp.inf)
        nearest = jax.ops.segment_min(distance, episode, len(step) + 1)
        return final & (nearest[episode] <= self.threshold)


def _spread(mask: Bool[Array, " M"], num: int) -> Int[Array, " num"]:
    """Return `num` indices spread evenly over those of `mask`; of fewer than `num`, some more than once."""
    order = jnp.argsort(~mask, stable=True)
    # In floating point, because the product of large integers would overflow.
    fraction = jnp.arange(num, dtype=jnp.float32) / num
    return order[(fraction * jnp.sum(mask.astype(jnp.float32))).astype(jnp.int32)]


def _nearest(latents: Float[Array, "M Z"], z: Float[Array, " Z"], mask: Bool[Array, " M"]) -> Float[Array, ""]:
    """Compute the distance to the nearest latent of `mask`; infinite without one."""
    # As a matrix product under `vmap`; rounding may make it slightly negative.
    square = jnp.sum(latents * latents, axis=-1) - 2.0 * jnp.dot(latents, z, precision="highest") + jnp.dot(z, z)
    return jnp.sqrt(jnp.maximum(jnp.min(jnp.where(mask, square, jnp.inf)), 0.0))
