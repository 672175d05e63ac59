"""Demonstrations in one `.npz` file: NumPy arrays, no pickle.

Keys, for N episodes (`T` steps each; `*obs` is the shape of one observation):

    obs         [N, T+1, *obs]   observations, the final one included
    image       [N, T+1, H, H, 3]  optional; RGB camera images, uint8
    action      [N, T, A]        in [-1, 1]; missing where only observations were recorded
    reward      [N, T]           optional
    success     [N, T]           optional; goal reached, per step
    terminated  [N]              optional, default false: the episode reached a terminal state
    truncated   [N]              optional, default "not terminated": a time limit ended the episode
    seed        [N]              optional; episode seed, -1 where unknown
    task        scalar string    optional, e.g. metaworld/drawer-close
    provenance  scalar string    optional; a JSON object

With the additional key `lengths [N]` (steps of each episode), episodes may differ in length and the first five are
concatenated instead of stacked: `obs` and `image` have `[sum(T_i + 1), ...]` rows, the others `[sum(T_i), ...]`.
`save_npz` writes this form.

Other arrays in the file are not read, and named in the provenance.
"""

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cdred.data.formats.cameras import IMAGE, ImageRequest
from cdred.data.formats.common import (
    OnProgress,
    as_bool,
    as_float32,
    check_all_or_none,
    check_components,
    check_step_counts,
    empty_actions,
    format_keys,
    sanitize_text,
    with_progress,
)
from cdred.data.formats.npz_archive import read_archive
from cdred.data.formats.obs_keys import select_obs_keys
from cdred.errors import UserError
from cdred.files import new_file
from cdred.types import DemoDataset, Trajectory

STEP_KEYS = ("action", "reward", "success")
FLOAT_KEYS = ("obs", "action", "reward")
EPISODE_KEYS = ("terminated", "truncated", "seed")
# Arrays with one row per observation.
OBS_KEYS = ("obs", IMAGE)
OTHER_KEYS = (IMAGE, "success", "lengths", *EPISODE_KEYS, "task", "provenance")
# What other libraries call their actions.
ACTION_NAMES = ("actions", "acts", "act")


def is_npz(path: Path) -> bool:
    """Return True if `path` is a zip archive, or a file named `*.npz`."""
    return path.is_file() and (path.suffix == ".npz" or zipfile.is_zipfile(path))


def read_npz(
    path: Path,
    obs_keys: Sequence[str] | None = None,
    on_progress: OnProgress | None = None,
    images: ImageRequest | None = None,
) -> DemoDataset:
    """Read the trajectories in `path`, without validating them.

    Args:
        path: the file.
        obs_keys: None or `obs`, the only observation array of this format.
        on_progress: called after each episode.
        images: None leaves the images out; they are never resized.

    Raises:
        UserError: not an npz file, another camera than `image`, pickled content, a missing key, or arrays of
            inconsistent shapes.
    """
    location = str(path)
    _check_camera(images, location)
    arrays, unread = read_archive(path, FLOAT_KEYS, OTHER_KEYS if images else [k for k in OTHER_KEYS if k != IMAGE])
    others = [name for name in unread if name != IMAGE]
    _check_names(arrays, others, location)
    select_obs_keys({"obs": arrays["obs"]}, obs_keys, location)
    episodes = _split_by_length(arrays, location) if "lengths" in arrays else _unstack(arrays, location)
    _check_episode_values(arrays, len(episodes), location)
    enumerated = with_progress(list(enumerate(episodes)), on_progress)
    trajectories = tuple(_to_trajectory(arrays, index, episode, location) for index, episode in enumerated)
    provenance = _parse_provenance(arrays, location) | ({"arrays_left_out": others} if others else {})
    return DemoDataset(_get_text(arrays, "task"), trajectories, provenance)


def _check_camera(images: ImageRequest | None, location: str) -> None:
    if images and images.camera not in (None, IMAGE):
        raise UserError(
            f"{location}: no camera '{sanitize_text(images.camera)}' in it: a file .npz has one camera, '{IMAGE}'."
        )


def _check_names(arrays: Mapping[str, np.ndarray], others: Sequence[str], location: str) -> None:
    """Check that the actions are not stored under another name, with which the episodes would have none."""
    misnamed = [key for key in ACTION_NAMES if key in others]
    if misnamed and "action" not in arrays:
        raise UserError(
            f"{location}: no 'action' in it, but '{misnamed[0]}': it is in another library's layout (available: "
            f"{format_keys((*arrays, *others))}); save obs [N, T+1, ...] and action [N, T, A], or both concatenated "
            "with 'lengths' [N]."
        )


def _unstack(arrays: dict[str, np.ndarray], location: str) -> list[dict[str, np.ndarray]]:
    shapes = {key: arrays[key].shape for key in (*OBS_KEYS, *STEP_KEYS) if key in arrays}
    misshapen = [key for key, shape in shapes.items() if len(shape) < (3 if key in ("obs", "action") else 2)]
    if misshapen or len({shape[0] for shape in shapes.values()}) != 1:
        hint = _describe_layout(shapes["obs"], shapes.get("action"))
        raise UserError(
            f"{location}: {shapes}: expected [N, T, ...] with one N for all, or concatenated with 'lengths'.{hint}"
        )
    episodes = [{key: arrays[key][index] for key in shapes} for index in range(len(arrays["obs"]))]
    check_step_counts(
        (len(episode["obs"]) - 1 for episode in episodes),
        location,
        "if obs holds pairs of successive observations, join the transitions of each episode",
    )
    return episodes


def _describe_layout(obs: tuple[int, ...], action: tuple[int, ...] | None) -> str:
    """Say what arrays of other shapes than [N, T, ...] look like and how to convert them; empty if unknown."""
    rows = (obs[0] if obs else 0) - (action[0] if action else 0)
    if len(obs) <= 2 and (action is None or len(action) <= 2):
        if action and rows == 1:
            return "\nThis looks like one episode: add the axis of episodes, obs[None] and action[None]."
        return (
            "\nThis looks like episodes one after the other without where they end: add the number of steps of each as "
            "'lengths' [N], with one observation more than actions in each.\n"
            "If it is stacked with one number per time step, add the axis of components, obs[..., None]."
        )
    if action is not None and len(action) == 2:
        return (
            "\n'action' lacks the axis of components: for a single continuous one, store action[..., None]; discrete "
            "actions are not supported."
        )
    if len(obs) == 2:
        return "\n'obs' lacks the axis of components: for a single one, store obs[..., None]."
    if action is not None and rows == 1 and obs[1:2] == action[1:2]:
        return "\nThis looks like time before episodes: store np.swapaxes(obs, 0, 1), and likewise the others."
    return ""


def _split_by_length(arrays: dict[str, np.ndarray], location: str) -> list[dict[str, np.ndarray]]:
    lengths = arrays["lengths"]
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or (lengths < 1).any():
        raise UserError(f"{location}: 'lengths' must be a vector of positive integers, got {lengths.dtype}: {lengths}.")
    for key in ("obs", "action"):
        if key in arrays:
            check_components(arrays[key].shape, "[rows, ...]", key, location)
    pieces = {}
    for key in (*OBS_KEYS, *STEP_KEYS):
        if key in arrays:
            ends = np.cumsum(lengths + (key in OBS_KEYS))
            rows = arrays[key].shape[0] if arrays[key].ndim else 0
            if rows != (ends[-1] if len(ends) else 0):
                raise UserError(f"{location}: '{key}' has {rows} rows, but 'lengths' requires {ends[-1:]}.")
            pieces[key] = np.split(arrays[key], ends[:-1])
    return [{key: pieces[key][index] for key in pieces} for index in range(len(lengths))]


def _to_trajectory(
    arrays: dict[str, np.ndarray], index: int, episode: dict[str, np.ndarray], location: str
) -> Trajectory:
    location = f"{location}, episode {index}"
    steps = len(episode["obs"]) - 1
    action = as_float32(episode["action"], "action", location) if "action" in episode else empty_actions(steps)
    terminated = bool(_get_episode_value(arrays, "terminated", index, False))
    seed = int(_get_episode_value(arrays, "seed", index, -1))
    return Trajectory(
        obs=as_float32(episode["obs"], "obs", location),
        action=action,
        reward=as_float32(episode["reward"], "reward", location) if "reward" in episode else None,
        terminated=terminated,
        truncated=bool(_get_episode_value(arrays, "truncated", index, not terminated)),
        success=as_bool(episode["success"], "success", location) if "success" in episode else None,
        seed=seed if seed >= 0 else None,
        image=episode.get("image"),
    )


def _check_episode_values(arrays: dict[str, np.ndarray], episodes: int, location: str) -> None:
    for key in EPISODE_KEYS:
        values = arrays.get(key)
        if values is not None and (values.shape != (episodes,) or values.dtype.kind not in "biuf"):
            raise UserError(
                f"{location}: '{key}' has shape {values.shape} ({values.dtype}), expected ({episodes},), one number "
                "per episode."
            )


def _get_episode_value(arrays: dict[str, np.ndarray], key: str, index: int, default: int) -> int:
    return int(arrays[key][index]) if key in arrays else default


def _get_text(arrays: dict[str, np.ndarray], key: str) -> str:
    return str(arrays[key][()]) if key in arrays else ""


def _parse_provenance(arrays: dict[str, np.ndarray], location: str) -> dict[str, object]:
    try:
        provenance = json.loads(_get_text(arrays, "provenance") or "{}")
        return provenance if isinstance(provenance, dict) else {"note": provenance}
    except json.JSONDecodeError as error:
        raise UserError(f"{location}: 'provenance' is not JSON ({error}).") from error


def save_npz(dataset: DemoDataset, path: str | Path, on_progress: OnProgress | None = None) -> None:
    """Write `dataset` to the new file `path` atomically.

    Raises:
        UserError: `path` exists, or reward or success is recorded for some episodes only.
    """
    path = Path(path)
    arrays = _to_arrays(dataset, path)
    with new_file(path) as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]
    if on_progress:
        on_progress(len(dataset), len(dataset))


def _to_arrays(dataset: DemoDataset, path: Path) -> dict[str, np.ndarray]:
    check_all_or_none(dataset, "reward", path)
    check_all_or_none(dataset, "success", path)
    check_all_or_none(dataset, "image", path)
    image = [trajectory.image for trajectory in dataset if trajectory.image is not None]
    reward = [trajectory.reward for trajectory in dataset if trajectory.reward is not None]
    success = [trajectory.success for trajectory in dataset if trajectory.success is not None]
    return {
        "obs": np.concatenate([trajectory.obs for trajectory in dataset]),
        **({"image": np.concatenate(image)} if image else {}),
        **({"action": np.concatenate([trajectory.action for trajectory in dataset])} if dataset.has_actions else {}),
        **({"reward": np.concatenate(reward)} if reward else {}),
        **({"success": np.concatenate(success)} if success else {}),
        "lengths": np.array([len(trajectory) for trajectory in dataset]),
        "terminated": np.array([trajectory.terminated for trajectory in dataset]),
        "truncated": np.array([trajectory.truncated for trajectory in dataset]),
        "seed": np.array([-1 if trajectory.seed is None else trajectory.seed for trajectory in dataset]),
        "task": np.array(dataset.task),
        "provenance": np.array(json.dumps(dataset.provenance)),
    }
