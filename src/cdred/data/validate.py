"""What every demonstration must satisfy before anything learns from it."""

from dataclasses import replace

import numpy as np

from cdred.data.formats.common import one_line
from cdred.data.rescale_actions import DECLARED
from cdred.errors import UserError
from cdred.types import DemoDataset, EnvSpec, Trajectory

ACTION_TOLERANCE = 1e-6
MEND = "let `cdred demos convert SRC DST --rescale-actions` do it"


def validated(
    dataset: DemoDataset,
    source: str,
    spec: EnvSpec | None = None,
    *,
    allow_variable_horizon: bool = False,
    require_actions: bool = False,
    bounded: bool = True,
) -> DemoDataset:
    """`dataset`, its actions clipped to [-1, 1] where rounding took them at most 1e-6 outside.

    Args:
        dataset: what a reader found.
        source: where, for the messages.
        spec: the task that it is meant for; None leaves out the comparison.
        allow_variable_horizon: accept truncated episodes of different lengths.
        require_actions: refuse demonstrations that hold observations only.
        bounded: refuse actions outside [-1, 1], and those that were recorded between other bounds.

    Raises:
        UserError: the first thing wrong, with its place and the mend.
    """
    if not len(dataset):
        raise UserError(f"{source}: no trajectory in it; at least one is needed.")
    if require_actions and not dataset.has_actions:
        raise UserError(
            f"{source}: it holds observations only, no actions, and the methods that learn from it need actions: "
            "give a recording that has them."
        )
    if spec is not None:
        _check_task(dataset.task, source, spec)
    if bounded and DECLARED in dataset.provenance:
        raise UserError(
            f"{source}: it declares actions between other bounds than [-1, 1] ({dataset.provenance[DECLARED]}), "
            f"expected [-1, 1]: {MEND}."
        )
    for index, trajectory in enumerate(dataset):
        where = f"{source}, episode {index}"
        _check_counts(trajectory, where)
        _check_finite(trajectory, where)
        if bounded:
            _check_bounds(trajectory, where)
        _check_shapes(trajectory, where, dataset[0], spec)
    if not allow_variable_horizon:
        _check_horizons(dataset, source)
    return replace(dataset, trajectories=tuple(map(_clipped, dataset))) if bounded else dataset


def _clipped(one: Trajectory) -> Trajectory:
    """`one` itself where nothing is outside, so that a large dataset is not held twice."""
    return replace(one, action=np.clip(one.action, -1.0, 1.0)) if _largest(one) > 1.0 else one


def _largest(one: Trajectory) -> float:
    return float(max(one.action.max(initial=0.0), -one.action.min(initial=0.0)))


def _check_task(task: str, source: str, spec: EnvSpec) -> None:
    if task and task != spec.task:
        raise UserError(
            f"{source}: its demonstrations are of {one_line(task)}, not of {spec.task}; give those of {spec.task}."
        )


def _check_counts(trajectory: Trajectory, where: str) -> None:
    steps = len(trajectory.action)
    if steps == 0:
        raise UserError(f"{where}: no action in it; leave empty episodes out.")
    if trajectory.action.ndim != 2:
        raise UserError(
            f"{where}: one action has shape {trajectory.action.shape[1:]}, expected a vector; discrete actions cannot "
            "be used."
        )
    if len(trajectory.obs) != steps + 1:
        raise UserError(
            f"{where}: {len(trajectory.obs)} observations for {steps} actions, expected {steps + 1} "
            "(one before each action and the final one; without the final one, drop the last action)."
        )
    per_step = {"reward": trajectory.reward, "success": trajectory.success}
    for key, values in per_step.items():
        if values is not None and values.shape != (steps,):
            raise UserError(f"{where}: {key} has shape {values.shape}, expected ({steps},), one number an action.")


def _check_finite(trajectory: Trajectory, where: str) -> None:
    for key in ("obs", "action", "reward"):
        values = getattr(trajectory, key)
        broken = ~np.isfinite(values)
        if broken.any():
            step = int(np.argwhere(broken)[0][0])
            raise UserError(f"{where}: {key}[{step}] is not finite ({broken.sum()} such numbers); leave it out.")


def _check_bounds(trajectory: Trajectory, where: str) -> None:
    largest = _largest(trajectory)
    if largest > 1.0 + ACTION_TOLERANCE:
        raise UserError(
            f"{where}: an action component is {largest:.6g} in magnitude, expected [-1, 1]: "
            f"scale actions from the environment's bounds to [-1, 1] and clip, or {MEND}."
        )


def _check_shapes(trajectory: Trajectory, where: str, first: Trajectory, spec: EnvSpec | None) -> None:
    whose = "as in the first episode" if spec is None else f"as {spec.task} has it"
    obs_shape = first.obs.shape[1:] if spec is None else spec.obs_shape
    action_shape = first.action.shape[1:] if spec is None else (spec.action_dim,)
    if spec is not None and first.action.shape[1:] == (0,):
        action_shape = (0,)
    for key, actual, expected in (("obs", trajectory.obs, obs_shape), ("action", trajectory.action, action_shape)):
        if actual.shape[1:] != expected:
            raise UserError(f"{where}: one {key} has shape {actual.shape[1:]}, expected {expected} {whose}.")
    if spec is not None and len(trajectory) > spec.episode_length:
        raise UserError(
            f"{where}: {len(trajectory)} steps, but episodes of {spec.task} end after {spec.episode_length}: "
            f"was it recorded without the action repeat of {spec.action_repeat}?"
        )


def _check_horizons(dataset: DemoDataset, source: str) -> None:
    lengths = {len(one) for one in dataset if not one.terminated}
    if len(lengths) > 1:
        raise UserError(
            f"{source}: its episodes that did not terminate are {min(lengths)} to {max(lengths)} steps long; the "
            "length would tell good from bad. Keep one length, or accept it if it is meant (--allow-variable-horizon, in "
            "Python allow_variable_horizon=True)."
        )
