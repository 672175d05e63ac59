"""Units of actions: those of an environment, and [-1, 1], in which agents are trained."""

import numpy as np
from jaxtyping import Float, Float32, Float64

# Excess over the bounds, relative to their distance, that passes for rounding.
ACTION_TOLERANCE = 1e-6


def normalize_actions(
    action: Float[np.ndarray, "*batch A"], low: Float64[np.ndarray, " A"], high: Float64[np.ndarray, " A"]
) -> Float32[np.ndarray, "*batch A"]:
    """Map actions from [low, high] to [-1, 1]; actions beyond are clipped, and a component of one value becomes 0."""
    span = np.where(high > low, high - low, 1.0)
    unit = np.where(high > low, 2.0 * (action.astype(np.float64) - low) / span - 1.0, 0.0)
    return np.clip(unit, -1.0, 1.0).astype(np.float32)


def denormalize_actions(
    action: Float[np.ndarray, "*batch A"], low: Float64[np.ndarray, " A"], high: Float64[np.ndarray, " A"]
) -> Float64[np.ndarray, "*batch A"]:
    """Map actions from [-1, 1] to [low, high]; components beyond are clipped."""
    unit = (np.clip(action, -1.0, 1.0).astype(np.float64) + 1.0) / 2.0
    return low + unit * (high - low)


def round_inwards(
    action: Float64[np.ndarray, "*batch A"], low: Float64[np.ndarray, " A"], high: Float64[np.ndarray, " A"]
) -> Float32[np.ndarray, "*batch A"]:
    """Convert actions to float32 so that rounding takes none of them beyond the bounds."""
    low32, high32 = low.astype(np.float32), high.astype(np.float32)
    low32 = np.where(low32 < low, np.nextafter(low32, np.float32(np.inf)), low32)
    high32 = np.where(high32 > high, np.nextafter(high32, np.float32(-np.inf)), high32)
    return np.clip(action.astype(np.float32), low32, high32)


def is_normalized(low: Float64[np.ndarray, " A"], high: Float64[np.ndarray, " A"]) -> bool:
    """Return True if the bounds are -1 and 1."""
    return bool((low == -1.0).all() and (high == 1.0).all())
