"""Rescaling of actions from the bounds of a file to [-1, 1]."""

from dataclasses import replace

import numpy as np

from cdred.errors import UserError
from cdred.types import DemoDataset

# Keys of the provenance: the action bounds that a file declares unless they are [-1, 1], and the bounds that actions
# were rescaled from.
BOUNDS_KEY, RESCALED_KEY = "action_bounds", "actions_rescaled"


def rescale_actions(dataset: DemoDataset, source: str) -> DemoDataset:
    """Map the lower bound of each action component to -1 and the upper bound to 1; the provenance records the bounds.

    The bounds are those that the file declares. If it declares none, they are the smallest and the largest action in
    it, and the environment has to use the same. A constant component becomes 0. Actions beyond declared bounds are
    clipped, as an environment clips them.

    Args:
        dataset: demonstrations with actions in any finite bounds.
        source: their path, for messages.

    Raises:
        UserError: there are no actions, they differ in size, or they are not finite.
    """
    if not dataset.has_actions:
        raise UserError(f"{source}: no actions in it to rescale.")
    if len({trajectory.action.shape[1:] for trajectory in dataset}) > 1:
        raise UserError(f"{source}: its episodes' actions differ in size, so they have no common bounds.")
    declared = dataset.provenance.get(BOUNDS_KEY)
    low, high = _declared_bounds(declared) if isinstance(declared, dict) else _observed_bounds(dataset)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise UserError(f"{source}: its actions are not all finite, so they have no bounds to rescale from.")
    trajectories = tuple(replace(trajectory, action=_to_unit(trajectory.action, low, high)) for trajectory in dataset)
    bounds = {
        "low": low.tolist(),
        "high": high.tolist(),
        "from": "the bounds that the file declares" if declared else "the smallest and the largest action",
    }
    provenance = {key: value for key, value in dataset.provenance.items() if key != BOUNDS_KEY}
    return replace(dataset, trajectories=trajectories, provenance=provenance | {RESCALED_KEY: bounds})


def _declared_bounds(bounds: dict[str, list[float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array(bounds["low"], np.float64), np.array(bounds["high"], np.float64)


def _observed_bounds(dataset: DemoDataset) -> tuple[np.ndarray, np.ndarray]:
    actions = [trajectory.action for trajectory in dataset if len(trajectory)]
    low = np.min([action.min(axis=0) for action in actions], axis=0)
    high = np.max([action.max(axis=0) for action in actions], axis=0)
    return low.astype(np.float64), high.astype(np.float64)


def _to_unit(action: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    span = np.where(high > low, high - low, 1.0)
    unit = np.where(high > low, 2.0 * (action.astype(np.float64) - low) / span - 1.0, 0.0)
    return np.clip(unit, -1.0, 1.0).astype(np.float32)
