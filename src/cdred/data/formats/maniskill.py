"""Demonstrations that ManiSkill 3 recorded: `<name>.h5`, and `<name>.json` beside it.

    traj_<i>/obs         [T+1, D], or a group of such arrays (`agent/qpos`, `extra/...`), as the observation mode has it
    traj_<i>/actions     [T, A]   in the control mode's own units
    traj_<i>/terminated, truncated  [T]
    traj_<i>/success     [T]      where the task defines it
    traj_<i>/rewards     [T]      where they were recorded; zeros elsewhere
    traj_<i>/env_states  groups of [T+1, ...]: the simulator's states of actors and articulations

    env_info: env_id, max_episode_steps, env_kwargs; episodes: episode_id, episode_seed, control_mode, ...

(https://maniskill.readthedocs.io, "Demonstrations", and `RecordEpisode` of mani_skill 3.)

A recording goes on past a step that met the task's goal, and `terminated` is set there each time it is met, so only
the last step's flags count. The demonstrations that ManiSkill publishes hold no observations; it replays them into
any observation mode, and `obs_keys` may name `env_states/...` instead.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cdred.data.formats.common import OnProgress, empty_actions, one_line, tracked
from cdred.data.formats.hdf5 import holds, leaves, numbered, opened, read, read_array
from cdred.data.formats.obs_keys import account, joined, selected
from cdred.errors import UserError
from cdred.types import DemoDataset, Trajectory

REPLAY = "replay it with `python -m mani_skill.trajectory.replay_trajectory --traj-path FILE -o state --save-traj`"


def is_maniskill(path: Path) -> bool:
    """Whether `path` is an HDF5 file of groups `traj_<i>`."""
    return holds(path, lambda file: bool(numbered(file, "traj_")))


def read_maniskill(
    path: Path, obs_keys: Sequence[str] | None = None, on_progress: OnProgress | None = None
) -> DemoDataset:
    """The trajectories in `path`, not yet validated; what the JSON says goes into the provenance.

    Args:
        path: the HDF5 file.
        obs_keys: arrays in `obs` to join, in that order (`agent/qpos`), or in `env_states` (`env_states/actors/cube`);
            None for all vectors in `obs`, sorted by name, no pictures.
        on_progress: told after each episode.

    Raises:
        UserError: damaged files, a missing key, no observations or no such one.
    """
    about = _about(path.with_suffix(".json"))
    seeds = {f"traj_{one.get('episode_id')}": one.get("episode_seed") for one in about.get("episodes", [])}
    with opened(path) as file:
        groups = numbered(file, "traj_")
        offered = _offered(_parts(groups[0][1]), obs_keys, str(path))
        choice = account(offered, selected(offered, obs_keys, str(path)))
        trajectories = tuple(
            _trajectory(group, obs_keys, seeds.get(name), f"{path}, {name}")
            for name, group in tracked(groups, on_progress)
        )
    return DemoDataset("", trajectories, {"format": "ManiSkill HDF5"} | _summary(about) | choice)


def _about(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        return {"env_info": about.get("env_info") or {}, "episodes": list(about["episodes"])} | about
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not JSON as ManiSkill writes it ({error!r}).") from error


def _summary(about: dict[str, Any]) -> dict[str, object]:
    facts = {"env_id": (about.get("env_info") or {}).get("env_id"), "source_type": about.get("source_type")}
    modes = sorted({str(one["control_mode"]) for one in about.get("episodes", []) if "control_mode" in one})
    facts["control_mode"] = ", ".join(modes)
    return {key: value for key, value in facts.items() if value}


def _parts(group: Any) -> dict[str, h5py.Dataset]:
    obs = leaves(group["obs"], "obs") if "obs" in group else {}
    states = leaves(group["env_states"], "") if "env_states" in group else {}
    held = {key: part for key, part in obs.items() if part.size}
    return held | {f"env_states/{key}": part for key, part in states.items()}


def _offered(parts: dict[str, h5py.Dataset], obs_keys: Sequence[str] | None, where: str) -> dict[str, h5py.Dataset]:
    """The arrays to choose from: the simulator's states only where they are asked for."""
    if obs_keys is not None:
        return parts
    obs = {key: part for key, part in parts.items() if not key.startswith("env_states/")}
    if not obs:
        states = one_line(", ".join(parts) or "none")
        raise UserError(
            f"{where}: no observations in it: {REPLAY}, or name states with --obs-keys (there are: {states})."
        )
    return obs


def _trajectory(group: Any, obs_keys: Sequence[str] | None, seed: object, where: str) -> Trajectory:
    parts = _offered(_parts(group), obs_keys, where)
    keys = selected(parts, obs_keys, where)
    obs = joined(parts, keys, lambda key: read(parts[key], key, where), where)
    steps = len(obs) - 1
    return Trajectory(
        obs=obs,
        action=read_array(group, "actions", where) if "actions" in group else empty_actions(steps),
        reward=read_array(group, "rewards", where) if "rewards" in group else np.zeros(steps, np.float32),
        terminated=_at_the_end(group, "terminated", where),
        truncated=_at_the_end(group, "truncated", where),
        success=read_array(group, "success", where) != 0 if "success" in group else None,
        seed=seed if isinstance(seed, int) else None,
    )


def _at_the_end(group: Any, key: str, where: str) -> bool:
    return bool(read_array(group, key, where)[-1:].any())
