"""Actions from the bounds of their file to [-1, 1]."""

from dataclasses import replace

import numpy as np

from cdred.errors import UserError
from cdred.types import DemoDataset

# In the provenance: the bounds that a file declares where they are not [-1, 1]; those that actions were rescaled from.
DECLARED, DONE = "action_bounds", "actions_rescaled"


def rescaled(dataset: DemoDataset, source: str) -> DemoDataset:
    """`dataset` with `low` of each action component at -1 and `high` at 1; the provenance says which they were.

    The bounds are those that the file declares; where it declares none, the smallest and the largest action in it, and
    then the environment has to use the same. A component that never changes becomes 0. Beyond declared bounds it is
    clipped, as an environment does.

    Raises:
        UserError: there are no actions, they differ in size, or they are not finite.
    """
    if not dataset.has_actions:
        raise UserError(f"{source}: no actions in it to rescale.")
    if len({one.action.shape[1:] for one in dataset}) > 1:
        raise UserError(f"{source}: its episodes' actions differ in size, so they have no common bounds.")
    declared = dataset.provenance.get(DECLARED)
    low, high = _declared(declared) if isinstance(declared, dict) else _seen(dataset)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise UserError(f"{source}: its actions are not all finite, so they have no bounds to rescale from.")
    trajectories = tuple(replace(one, action=_to_unit(one.action, low, high)) for one in dataset)
    note = {
        "low": low.tolist(),
        "high": high.tolist(),
        "from": "the bounds that the file declares" if declared else "the smallest and the largest action",
    }
    kept = {key: value for key, value in dataset.provenance.items() if key != DECLARED}
    return replace(dataset, trajectories=trajectories, provenance=kept | {DONE: note})


def _declared(bounds: dict[str, list[float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array(bounds["low"], np.float64), np.array(bounds["high"], np.float64)


def _seen(dataset: DemoDataset) -> tuple[np.ndarray, np.ndarray]:
    low = np.min([one.action.min(axis=0) for one in dataset if len(one)], axis=0)
    high = np.max([one.action.max(axis=0) for one in dataset if len(one)], axis=0)
    return low.astype(np.float64), high.astype(np.float64)


def _to_unit(action: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    span = np.where(high > low, high - low, 1.0)
    unit = np.where(high > low, 2.0 * (action.astype(np.float64) - low) / span - 1.0, 0.0)
    return np.clip(unit, -1.0, 1.0).astype(np.float32)
