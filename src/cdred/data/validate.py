"""Validation of demonstrations before training."""

import shlex
from collections import Counter
from dataclasses import replace

import numpy as np

from cdred.action_units import ACTION_TOLERANCE
from cdred.data.action_repeat import check_action_repeat, length_hint
from cdred.data.formats.common import sanitize_text
from cdred.data.images import check_images, match_images
from cdred.data.obs_names import match_obs_names
from cdred.data.rescale import RESCALE_HINT, ActionBounds
from cdred.errors import UserError
from cdred.task_name import with_obs
from cdred.types import DemoDataset, EnvSpec, Trajectory

SKIP_HINT = "`cdred demos convert SRC DST --skip-bad-episodes` leaves out damaged episodes."


def validate_demos(
    dataset: DemoDataset,
    source: str,
    spec: EnvSpec | None = None,
    *,
    allow_variable_horizon: bool = False,
    require_actions: bool = False,
    check_bounds: bool = True,
) -> DemoDataset:
    """Check `dataset`, clip actions that exceed [-1, 1] by rounding (at most 1e-6), and order observations by name.

    Args:
        dataset: as returned by a reader.
        source: its path, for messages.
        spec: spec of the task it is meant for; None skips the comparison.
        allow_variable_horizon: accept truncated episodes of different lengths.
        require_actions: reject demonstrations without actions.
        check_bounds: reject actions outside [-1, 1], and files that declare other bounds.

    Raises:
        UserError: the first problem found, with its location and how to fix it.
    """
    if not len(dataset):
        raise UserError(f"{source}: no trajectory in it, expected at least one.")
    if require_actions and not dataset.has_actions:
        raise UserError(
            f"{source}: it holds observations only, no actions, but training requires actions: use a recording with "
            "actions, or learn from the observations alone (--algo cdred --cdred.input transition)."
        )
    if spec is not None:
        check_action_repeat(dataset, source, spec)
        _check_task(dataset.task, source, spec)
        dataset = match_obs_names(match_images(dataset, source, spec), source, spec)
    declared = ActionBounds.declared(dataset)
    if check_bounds and declared is not None and not declared.is_normalized:
        raise UserError(f"{source}: it declares action bounds {declared}, expected [-1, 1]: use {RESCALE_HINT}.")
    for index, trajectory in enumerate(dataset):
        location = f"{source}, episode {index}"
        try:
            _check_damage(trajectory, location)
        except UserError as error:
            raise UserError(f"{error} {SKIP_HINT}") from error
        if check_bounds:
            _check_bounds(trajectory, location)
        _check_shapes(trajectory, location, dataset[0], spec)
        if spec is not None and len(trajectory) > spec.episode_length:
            raise UserError(
                f"{location}: {len(trajectory)} steps, but episodes of {spec.task} end after {spec.episode_length}."
                + length_hint(dataset, source, spec, len(trajectory))
            )
    if not allow_variable_horizon:
        _check_horizons(dataset, source)
    return replace(dataset, trajectories=tuple(map(_clip_actions, dataset))) if check_bounds else dataset


def damaged_episodes(dataset: DemoDataset) -> dict[int, str]:
    """Return what is wrong with each episode that `validate_demos` would refuse whatever its actions' bounds, by index.

    Shapes are compared with those of most episodes.
    """
    damaged: dict[int, str] = {}
    shapes = Counter((trajectory.obs.shape[1:], trajectory.action.shape[1:]) for trajectory in dataset)
    for index, trajectory in enumerate(dataset):
        try:
            _check_damage(trajectory, "damaged")
        except UserError as error:
            damaged[index] = str(error)
        else:
            shape = trajectory.obs.shape[1:], trajectory.action.shape[1:]
            if shape != (common := shapes.most_common(1)[0][0]):
                damaged[index] = f"damaged: observation and action have shapes {shape}, most episodes {common}."
    return damaged


def _clip_actions(trajectory: Trajectory) -> Trajectory:
    """Clip the actions; returns `trajectory` itself if there is nothing to clip, to avoid a copy of a large dataset."""
    if _max_abs_action(trajectory) <= 1.0:
        return trajectory
    return replace(trajectory, action=np.clip(trajectory.action, -1.0, 1.0))


def _max_abs_action(trajectory: Trajectory) -> float:
    return float(max(trajectory.action.max(initial=0.0), -trajectory.action.min(initial=0.0)))


def _check_task(task: str, source: str, spec: EnvSpec) -> None:
    # One recording with images is of all of a task's observations.
    if task and with_obs(task, "state") != with_obs(spec.task, "state"):
        raise UserError(
            f"{source}: its demonstrations are of {sanitize_text(task)}, expected {spec.task}. If they are meant for "
            f"it, `cdred demos convert SRC DST --task {shlex.quote(spec.task)}` stores that."
        )


def _check_damage(trajectory: Trajectory, location: str) -> None:
    _check_counts(trajectory, location)
    check_images(trajectory, location)
    _check_finite(trajectory, location)


def _check_counts(trajectory: Trajectory, location: str) -> None:
    steps = len(trajectory.action)
    if steps == 0:
        raise UserError(f"{location}: no action in it; remove empty episodes.")
    if trajectory.action.ndim != 2:
        raise UserError(
            f"{location}: one action has shape {trajectory.action.shape[1:]}, expected a vector; discrete actions "
            "are not supported."
        )
    if len(trajectory.obs) != steps + 1:
        raise UserError(
            f"{location}: {len(trajectory.obs)} observations for {steps} actions, expected {steps + 1} "
            "(one before each action and the final one; without the final one, drop the last action)."
        )
    per_step = {"reward": trajectory.reward, "success": trajectory.success}
    for key, values in per_step.items():
        if values is not None and values.shape != (steps,):
            raise UserError(f"{location}: {key} has shape {values.shape}, expected ({steps},), one number per action.")


def _check_finite(trajectory: Trajectory, location: str) -> None:
    for key in ("obs", "action", "reward"):
        values = getattr(trajectory, key)
        if values is None:
            continue
        non_finite = ~np.isfinite(values)
        if non_finite.any():
            step = int(np.argwhere(non_finite)[0][0])
            count = non_finite.sum()
            raise UserError(f"{location}: {key}[{step}] is not finite ({count} NaN or infinite values).")


def _check_bounds(trajectory: Trajectory, location: str) -> None:
    max_abs = _max_abs_action(trajectory)
    if max_abs > 1.0 + ACTION_TOLERANCE:
        raise UserError(
            f"{location}: an action component has magnitude {max_abs:.6g}, expected [-1, 1]: use {RESCALE_HINT} "
            "with the task (--task) or the bounds (--action-low and --action-high) that it was recorded in."
        )


def _check_shapes(trajectory: Trajectory, location: str, first: Trajectory, spec: EnvSpec | None) -> None:
    reference = "as in the first episode" if spec is None else f"as in {spec.task}"
    obs_shape = first.obs.shape[1:] if spec is None else spec.obs_shape
    action_shape = first.action.shape[1:] if spec is None else (spec.action_dim,)
    if spec is not None and first.action.shape[1:] == (0,):
        action_shape = (0,)
    for key, actual, expected in (("obs", trajectory.obs, obs_shape), ("action", trajectory.action, action_shape)):
        if actual.shape[1:] != expected:
            raise UserError(f"{location}: one {key} has shape {actual.shape[1:]}, expected {expected} {reference}.")
    sizes = [None if t.image is None else t.image.shape[1:] for t in (trajectory, first)]
    if sizes[0] != sizes[1]:
        raise UserError(f"{location}: its images have shape {sizes[0]}, expected {sizes[1]} as in the first episode.")


def _check_horizons(dataset: DemoDataset, source: str) -> None:
    lengths = {len(trajectory) for trajectory in dataset if not trajectory.terminated}
    if len(lengths) > 1:
        raise UserError(
            f"{source}: its episodes that did not terminate are {min(lengths)} to {max(lengths)} steps long; the "
            "length would leak how well an episode went. Keep one length, or accept it if intended "
            "(--allow-variable-horizon, in Python allow_variable_horizon=True)."
        )
