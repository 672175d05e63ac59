"""Action repeat of demonstrations: what a file states, its comparison with a task's, and folding to a larger one."""

import shlex
from dataclasses import replace

import numpy as np

from cdred.data.formats.common import sanitize_text
from cdred.errors import UserError
from cdred.task_name import REPEAT, repeat_of, with_parameters, with_repeat
from cdred.types import DemoDataset, EnvSpec, Trajectory

# Keys of the provenance: simulator frames per step, and what was folded to that.
REPEAT_KEY, FOLDED_KEY = "action_repeat", "steps_folded"


def stated_repeat(dataset: DemoDataset, source: str) -> int | None:
    """Return the action repeat that the provenance states, or else the task's name; None if neither does.

    Raises:
        UserError: the provenance states something else than a positive integer.
    """
    stated = dataset.provenance.get(REPEAT_KEY)
    if stated is None:
        return repeat_of(dataset.task)
    if type(stated) is not int or stated < 1:
        text = sanitize_text(repr(stated))
        raise UserError(f"{source}: its provenance states {REPEAT_KEY} {text}, expected a positive integer.")
    return stated


def check_action_repeat(dataset: DemoDataset, source: str, spec: EnvSpec) -> None:
    """Compare the action repeat that a dataset states with that of the task.

    Raises:
        UserError: they differ.
    """
    stated = stated_repeat(dataset, source)
    if stated in (None, spec.action_repeat):
        return
    plain = with_parameters(spec.task, {REPEAT: None})
    task = plain if dataset.task == plain != spec.task else with_repeat(plain, stated)
    raise UserError(
        f"{source}: it was recorded at an action repeat of {stated}, expected {spec.action_repeat}, that of "
        f"{spec.task}: {_ways_on(spec, stated, task)}."
    )


def length_hint(dataset: DemoDataset, source: str, spec: EnvSpec, steps: int) -> str:
    """Return what to do about an episode that is too long if its length is that of another action repeat; else ""."""
    repeat, remainder = divmod(spec.episode_length * spec.action_repeat, steps)
    if remainder or not repeat or stated_repeat(dataset, source) is not None:
        return ""
    ways_on = _ways_on(spec, repeat, with_repeat(spec.task, repeat))
    return f" If it was recorded at an action repeat of {repeat}, not {spec.action_repeat}: {ways_on}."


def _ways_on(spec: EnvSpec, repeat: int, task: str) -> str:
    """Say how demonstrations at action repeat `repeat` can be used; `task` is the task at that repeat."""
    train = f"train on the task at that repeat, {shlex.quote(task)} (dmc and metaworld only)"
    if spec.action_repeat % repeat:
        return f"{train}; {spec.action_repeat} is not a multiple of {repeat}, so steps cannot be folded"
    return f"{train}, or fold steps with `cdred demos convert SRC DST --action-repeat {spec.action_repeat}`"


def fold_steps(dataset: DemoDataset, source: str, action_repeat: int, recorded: int | None) -> DemoDataset:
    """Fold successive steps into one of `action_repeat` frames, which is exact where their actions are equal.

    Observations are those between the folded steps, rewards are summed, success is that of any step. Steps at the end
    that do not fill a folded one are dropped, unless the episode terminated in them.

    Args:
        dataset: valid demonstrations, with actions in [-1, 1].
        source: its path, for messages.
        action_repeat: simulator frames of a folded step.
        recorded: simulator frames of a step in `dataset`; None if unknown, which is taken for 1.

    Raises:
        UserError: `action_repeat` is not a multiple of `recorded`, actions differ within a folded step or are missing,
            or an episode is shorter than one.
    """
    num, remainder = divmod(action_repeat, recorded or 1)
    if remainder or num < 1:
        raise UserError(
            f"{source}: recorded at an action repeat of {recorded or 1}, so --action-repeat should be a multiple of "
            f"that, got {action_repeat}."
        )
    if not dataset.has_actions:
        raise UserError(f"{source}: --action-repeat needs actions, to see that each was held; it has none.")
    _check_held(dataset, source, num)
    folded = {
        "recorded_at": recorded or 1,
        "known_from": "the file" if recorded else "nothing, assumed",
        "dropped_steps": sum(len(trajectory) - _num_folded(trajectory, num) for trajectory in dataset),
    }
    return replace(
        dataset,
        trajectories=tuple(_fold(trajectory, num) for trajectory in dataset),
        provenance=dataset.provenance | {REPEAT_KEY: action_repeat, FOLDED_KEY: folded},
    )


def _num_folded(trajectory: Trajectory, num: int) -> int:
    """Return the number of steps to fold: all if the last one is terminal, which the simulator does not repeat."""
    return len(trajectory) if trajectory.terminated else len(trajectory) // num * num


def _check_held(dataset: DemoDataset, source: str, num: int) -> None:
    """Check that episodes are long enough and that actions do not change within a folded step."""
    largest, location = 0.0, ""
    for index, trajectory in enumerate(dataset):
        steps = np.arange(_num_folded(trajectory, num))
        if not len(steps):
            raise UserError(f"{source}, episode {index}: {len(trajectory)} steps, expected at least {num} to fold.")
        differences = np.abs(trajectory.action[steps] - trajectory.action[steps // num * num]).max(axis=1)
        step = int(differences.argmax())
        if differences[step] > largest:
            largest, location = float(differences[step]), f"episode {index}: actions {step // num * num} and {step}"
    if largest:
        raise UserError(
            f"{source}, {location} differ by {largest:.3g}, the largest difference, expected the same action for {num} "
            "successive steps: otherwise folded steps are not those of the environment. Train on the task at the "
            "repeat of the recording instead (dmc and metaworld: TASK?repeat=N)."
        )


def _fold(trajectory: Trajectory, num: int) -> Trajectory:
    steps = _num_folded(trajectory, num)
    starts = np.arange(0, steps, num)
    reward, success = trajectory.reward, trajectory.success
    return replace(
        trajectory,
        obs=trajectory.obs[[*starts, steps]],
        image=None if trajectory.image is None else trajectory.image[[*starts, steps]],
        action=trajectory.action[starts],
        reward=None
        if reward is None
        else np.add.reduceat(reward[:steps].astype(np.float64), starts).astype(np.float32),
        success=None if success is None else np.logical_or.reduceat(success[:steps], starts),
        truncated=trajectory.truncated or steps < len(trajectory),
    )
