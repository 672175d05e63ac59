"""Units of the actions in a file, and their rescaling to [-1, 1]."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Bool, Float32, Float64

from cdred.action_units import ACTION_TOLERANCE, is_normalized, normalize_actions
from cdred.errors import UserError
from cdred.types import DemoDataset, EnvSpec

# Keys of the provenance: the bounds of the units in which actions are stored, where known, and the bounds that they
# were rescaled from.
BOUNDS_KEY, RESCALED_KEY = "action_bounds", "actions_rescaled"
DECLARED, GIVEN = "the bounds that the file declares", "--action-low and --action-high"
RESCALE_HINT = "`cdred demos convert SRC DST --rescale-actions`"


class ActionBounds(NamedTuple):
    """Bounds of action components, and where they come from."""

    low: Float64[np.ndarray, " A"]
    high: Float64[np.ndarray, " A"]
    origin: str

    @classmethod
    def given(cls, low: Sequence[float] | float, high: Sequence[float] | float) -> Self:
        """Return bounds that the user gives: a number for all components, or one per component."""
        return cls(np.atleast_1d(np.asarray(low, np.float64)), np.atleast_1d(np.asarray(high, np.float64)), GIVEN)

    @classmethod
    def of_task(cls, spec: EnvSpec) -> Self:
        """Return the bounds of a task's environment."""
        return cls(*spec.action_bounds, f"the bounds of {spec.task}")

    @classmethod
    def declared(cls, dataset: DemoDataset) -> Self | None:
        """Return the bounds that the provenance states; None if it states none."""
        bounds: Any = dataset.provenance.get(BOUNDS_KEY)
        return cls(*_as_arrays(bounds), DECLARED) if isinstance(bounds, dict) else None

    @property
    def is_normalized(self) -> bool:
        return is_normalized(self.low, self.high)

    def equals(self, other: "ActionBounds") -> bool:
        """Return True if the bounds agree up to rounding to float32."""
        pairs = ((self.low, other.low), (self.high, other.high))
        return all(a.shape == b.shape and np.allclose(a, b, rtol=1e-6, atol=1e-9) for a, b in pairs)

    def __str__(self) -> str:
        low, high = self.low.tolist(), self.high.tolist()
        if len(set(low)) == len(set(high)) == 1:
            return f"[{low[0]:g}, {high[0]:g}]"
        return f"{low} to {high}"


def rescale_actions(
    dataset: DemoDataset, source: str, given: ActionBounds | None = None, task: ActionBounds | None = None
) -> DemoDataset:
    """Map the lower bound of each action component to -1 and the upper bound to 1; the provenance records the bounds.

    Actions beyond given or declared bounds are clipped, as an environment clips them, and counted in the provenance. A
    component of one value becomes 0.

    Args:
        dataset: demonstrations with actions in any finite bounds.
        source: their path, for messages.
        given: bounds of the actions, which replace those that the file declares.
        task: bounds of the task's environment, used if the file declares none.

    Raises:
        UserError: there are no actions, they differ in size or are not finite, or their bounds are unknown or
            contradict those of the task.
    """
    if not dataset.has_actions:
        raise UserError(f"{source}: no actions in it to rescale.")
    sizes = {trajectory.action.shape[1:] for trajectory in dataset}
    if len(sizes) > 1:
        raise UserError(f"{source}: its episodes' actions differ in size, so they have no common bounds.")
    if not all(np.isfinite(trajectory.action).all() for trajectory in dataset):
        raise UserError(f"{source}: its actions are not all finite, so they cannot be rescaled.")
    bounds = _choose_bounds(dataset, source, given, task)
    _check_bounds(bounds, source, sizes.pop()[0])
    if bounds is task:
        _check_within(bounds, dataset, source)
    clipped = sum(int(_exceeding(trajectory.action, bounds).any(axis=1).sum()) for trajectory in dataset)
    provenance = {
        BOUNDS_KEY: normalized_bounds(len(bounds.low)),
        RESCALED_KEY: {
            "low": bounds.low.tolist(),
            "high": bounds.high.tolist(),
            "from": bounds.origin,
            "clipped_steps": clipped,
        },
    }
    trajectories = tuple(
        replace(trajectory, action=normalize_actions(trajectory.action, bounds.low, bounds.high))
        for trajectory in dataset
    )
    return replace(dataset, trajectories=trajectories, provenance=dataset.provenance | provenance)


def to_task_units(dataset: DemoDataset, source: str, spec: EnvSpec) -> DemoDataset:
    """Return `dataset` with actions in [-1, 1], rescaled if the file declares the bounds of the task's environment.

    Raises:
        UserError: the units of the actions are unknown or those of other bounds than the task's.
    """
    declared, task = ActionBounds.declared(dataset), ActionBounds.of_task(spec)
    if not dataset.has_actions:
        return dataset
    if declared is None:
        if task.is_normalized:
            return dataset
        raise UserError(
            f"{source}: it does not state the units of its actions, and those of {spec.task} are in {task}, not in "
            f"[-1, 1]. If the actions are in the environment's own units, use {RESCALE_HINT} with `--task "
            f"{shlex.quote(spec.task)}`; if they are in [-1, 1] already, with `--action-low -1 --action-high 1`."
        )
    if declared.is_normalized:
        _check_rescaled_from(dataset, source, task)
        return dataset
    return rescale_actions(dataset, source, task=task) if declared.equals(task) else dataset


def normalized_bounds(size: int) -> dict[str, list[float]]:
    """Return the entry of the provenance that states actions in [-1, 1]."""
    return {"low": [-1.0] * size, "high": [1.0] * size}


def _choose_bounds(
    dataset: DemoDataset, source: str, given: ActionBounds | None, task: ActionBounds | None
) -> ActionBounds:
    declared = ActionBounds.declared(dataset)
    if given is not None:
        size = dataset[0].action.shape[1]
        low, high = (np.broadcast_to(bound, size) if len(bound) == 1 else bound for bound in (given.low, given.high))
        return ActionBounds(low, high, given.origin)
    if declared is None:
        if task is None:
            raise UserError(
                f"{source}: it does not declare the bounds of its actions, which the range of the recorded ones does "
                "not tell: give the task whose environment it was recorded in (--task), or the bounds "
                "(--action-low and --action-high)."
            )
        return task
    if task is not None and not task.is_normalized and not declared.equals(task):
        raise UserError(
            f"{source}: it declares action bounds {declared}, but {task.origin} are {task}: give the bounds that its "
            "actions have with --action-low and --action-high."
        )
    return declared


def _check_bounds(bounds: ActionBounds, source: str, size: int) -> None:
    low, high, origin = bounds
    if low.shape != (size,) or high.shape != (size,):
        raise UserError(f"{source}: its actions have {size} components, but {origin} have {low.size} and {high.size}.")
    if not (np.isfinite(low).all() and np.isfinite(high).all()) or (low > high).any() or (low == high).all():
        raise UserError(f"{source}: {origin} must be finite, the lower below the upper, got {bounds}.")


def _check_within(bounds: ActionBounds, dataset: DemoDataset, source: str) -> None:
    for episode, trajectory in enumerate(dataset):
        for step, component in np.argwhere(_exceeding(trajectory.action, bounds)):
            raise UserError(
                f"{source}, episode {episode}: action component {component} is {trajectory.action[step, component]:g} "
                f"at step {step}, beyond {bounds.origin}, {bounds}: give the bounds that it was recorded in with "
                "--action-low and --action-high; actions beyond these are clipped."
            )


def _exceeding(action: Float32[np.ndarray, "T A"], bounds: ActionBounds) -> Bool[np.ndarray, "T A"]:
    tolerance = ACTION_TOLERANCE * (bounds.high - bounds.low)
    return (action < bounds.low - tolerance) | (action > bounds.high + tolerance)


def _check_rescaled_from(dataset: DemoDataset, source: str, task: ActionBounds) -> None:
    """Check that actions that were rescaled were rescaled from the task's own units."""
    origin: Any = dataset.provenance.get(RESCALED_KEY)
    if isinstance(origin, dict):
        bounds = ActionBounds(*_as_arrays(origin), "")
        if not (bounds.is_normalized or task.is_normalized or bounds.equals(task)):
            raise UserError(
                f"{source}: its actions were rescaled from {bounds}, but {task.origin} are {task}: convert the "
                f"original recording again, with {RESCALE_HINT} and `--task {shlex.quote(task.origin.split()[-1])}`."
            )


def _as_arrays(bounds: dict[str, list[float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array(bounds["low"], np.float64), np.array(bounds["high"], np.float64)
