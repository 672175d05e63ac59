"""What every demonstration must satisfy before anything learns from it."""

from dataclasses import replace

import numpy as np

from cdred.errors import UserError
from cdred.types import DemoDataset, EnvSpec, Trajectory

ACTION_TOLERANCE = 1e-6


def validated(
    dataset: DemoDataset, source: str, spec: EnvSpec | None = None, *, mixed_horizons: bool = False
) -> DemoDataset:
    """`dataset`, its actions clipped to [-1, 1] where rounding took them at most 1e-6 outside.

    Args:
        dataset: what a reader found.
        source: where, for the messages.
        spec: the task that it is meant for; None leaves out the comparison.
        mixed_horizons: accept truncated episodes of different lengths.

    Raises:
        UserError: the first thing wrong, with its place and the mend.
    """
    if not len(dataset):
        raise UserError(f"{source}: no trajectory in it; at least one is needed.")
    if spec is not None:
        _check_task(dataset.task, source, spec)
    for index, trajectory in enumerate(dataset):
        where = f"{source}, episode {index}"
        _check_counts(trajectory, where)
        _check_finite(trajectory, where)
        _check_bounds(trajectory, where)
        _check_shapes(trajectory, where, dataset[0], spec)
    if not mixed_horizons:
        _check_horizons(dataset, source)
    clipped = tuple(replace(one, action=np.clip(one.action, -1.0, 1.0)) for one in dataset)
    return replace(dataset, trajectories=clipped)


def _check_task(task: str, source: str, spec: EnvSpec) -> None:
    if task and task != spec.task:
        raise UserError(f"{source}: its demonstrations are of {task}, not of {spec.task}; give those of {spec.task}.")


def _check_counts(trajectory: Trajectory, where: str) -> None:
    steps = len(trajectory.action)
    if steps == 0:
        raise UserError(f"{where}: no action in it; leave empty episodes out.")
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
    largest = float(np.abs(trajectory.action).max())
    if largest > 1.0 + ACTION_TOLERANCE:
        raise UserError(
            f"{where}: an action component is {largest:.6g} in magnitude, expected [-1, 1]: "
            "scale actions from the environment's bounds to [-1, 1] and clip."
        )


def _check_shapes(trajectory: Trajectory, where: str, first: Trajectory, spec: EnvSpec | None) -> None:
    whose = "as in the first episode" if spec is None else f"as {spec.task} has it"
    obs_shape = first.obs.shape[1:] if spec is None else spec.obs_shape
    action_shape = first.action.shape[1:] if spec is None else (spec.action_dim,)
    for key, actual, expected in (("obs", trajectory.obs, obs_shape), ("action", trajectory.action, action_shape)):
        if actual.shape[1:] != expected:
            raise UserError(f"{where}: one {key} has shape {actual.shape[1:]}, expected {expected} {whose}.")
    if spec is not None and len(trajectory) > spec.episode_length:
        raise UserError(
            f"{where}: {len(trajectory)} decisions, but episodes of {spec.task} end after {spec.episode_length}: "
            f"was it recorded without the action repeat of {spec.action_repeat}?"
        )


def _check_horizons(dataset: DemoDataset, source: str) -> None:
    lengths = {len(one) for one in dataset if not one.terminated}
    if len(lengths) > 1:
        raise UserError(
            f"{source}: its episodes that did not terminate are {min(lengths)} to {max(lengths)} decisions long; the "
            "length would tell good from bad. Keep one length, or allow it (mixed_horizons=True) if it is meant."
        )
