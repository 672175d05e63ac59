"""Settings and demonstrations of a run, from what a user gives."""

import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cdred.config import RunConfig, needs_actions, override, preset, validate, without_actions
from cdred.data.demonstrations import load_demos, read_demos
from cdred.data.formats.cameras import ImageRequest
from cdred.data.formats.common import sanitize_text
from cdred.data.quality import format_selection
from cdred.data.rescale import RESCALED_KEY
from cdred.demos.scripted import get_demos
from cdred.envs.callables import EnvFactory, EnvName, name_env
from cdred.envs.imports import resolve_import
from cdred.errors import UserError
from cdred.hub.address import is_remote
from cdred.hub.demos import ORIGIN_KEY, fetch_demos
from cdred.keywords import TrainKeywords
from cdred.run_folder import DEMOS_FILE, run_folder
from cdred.task_name import has_images
from cdred.types import DemoDataset, EnvSpec, LogFn, Trajectory

# Seconds between progress messages while demonstrations are collected.
PROGRESS_SECONDS = 10.0


def resolve_settings(
    config: RunConfig | None, changes: TrainKeywords, env: EnvFactory | None = None
) -> tuple[RunConfig, DemoDataset | None]:
    """Return the checked settings of a run, and the demonstrations if an object was given that the method uses.

    Raises:
        UserError: a setting is unknown or refused, or no task is given.
    """
    if config and changes.get("preset", config.preset) != config.preset:
        raise UserError("preset cannot be changed in a given config: use cdred.preset(name) as the config.")
    config = override(config or preset(changes.get("preset", "cpu")), changes)
    named = None if env is None else name_env(env)
    if named:
        config = _with_env_task(config, named)
    demos = None if isinstance(config.demos, str) else _as_dataset(config.demos, config.task)
    if demos is None:
        config = validate(config)
    else:
        # The name of their file depends on the other settings.
        config = validate(replace(config, demos=""))
        config = replace(config, demos=str(run_folder(config) / DEMOS_FILE))
    if not config.task:
        raise UserError("no task is given: set task, for example to metaworld/window-open.")
    imports = (*config.imports, *(named.imports if named else ()))
    config = replace(config, imports=tuple(dict.fromkeys(map(resolve_import, imports))))
    return config, None if config.algo == "tdmpc2" else demos


def _with_env_task(config: RunConfig, named: EnvName) -> RunConfig:
    if config.task not in ("", named.task):
        raise UserError(f"task and env are both given: env is the task {named.task}, omit task={config.task!r}.")
    if config.vectorization == "process" and not named.importable:
        raise UserError(
            f"{named.task} cannot be imported by the processes of vectorization='process': define the function at the "
            "top level of a module or script, or use sync or thread."
        )
    return replace(config, task=named.task)


def _as_dataset(demos: Any, task: str) -> DemoDataset | None:
    """Return demonstrations that were given as an object, in single precision; None if it is none."""
    if not isinstance(demos, (DemoDataset, list, tuple)):
        return None
    wrong = next((item for item in demos if not isinstance(item, Trajectory)), None)
    if wrong is not None:
        raise UserError(f"demos should be a number, a path or trajectories, got an item of {type(wrong).__name__}.")
    dataset = demos if isinstance(demos, DemoDataset) else DemoDataset(task, tuple(demos))
    return replace(dataset, trajectories=tuple(map(_as_float32, dataset)))


def _as_float32(trajectory: Trajectory) -> Trajectory:
    arrays = {key: getattr(trajectory, key) for key in ("obs", "action", "reward")}
    return replace(
        trajectory, **{key: np.asarray(array, np.float32) for key, array in arrays.items() if array is not None}
    )


class DemoSource(NamedTuple):
    """Demonstrations on this machine.

    Attributes:
        path: their file or folder, which may not exist.
        origin: where they were downloaded from, as from `fetch_demos`; None for a path of the user's.
    """

    path: Path
    origin: dict[str, Any] | None = None


def resolve_demos(config: RunConfig, spec: EnvSpec, log: LogFn, source: DemoSource | None = None) -> DemoDataset | None:
    """Return the demonstrations that `config.demos` names; None for a method that uses none.

    Args:
        config: settings.
        spec: the task.
        log: called with messages.
        source: result of `locate_demos`, so that nothing is downloaded again.
    """
    if config.algo == "tdmpc2":
        return None
    source = source or locate_demos(config, log)
    if source:
        demos = load_run_demos(config, spec, source)
        if not demos.task:
            log(f"demonstrations: {config.demos} does not state its task; its shapes fit {spec.task}")
        if rescaled := demos.provenance.get(RESCALED_KEY):
            log(f"demonstrations: actions rescaled to [-1, 1], {sanitize_text(str(rescaled))}")
        return demos
    num = int(config.demos)
    demos = get_demos(config.task, num, on_episode=_log_collection(config.task, num, log))
    facts = [demos.provenance.get("expert", "unknown expert"), format_selection(demos)]
    log(f"demonstrations: {len(demos)} of {config.task}, {', '.join(str(fact) for fact in facts if fact)}")
    return demos


def locate_demos(config: RunConfig, log: LogFn) -> DemoSource | None:
    """Return where the demonstrations are that `config.demos` names, a path or an address, which is downloaded.

    None for a number, or a method that uses no demonstrations.

    Raises:
        UserError: as `fetch_demos`.
    """
    if is_remote(config.demos) and config.algo != "tdmpc2":
        return DemoSource(*fetch_demos(config.demos, log))
    path = demos_path(config)
    return None if path is None else DemoSource(path)


def demos_path(config: RunConfig) -> Path | None:
    """Return the path in `config.demos`; None for a number, an address, or a method that uses no demonstrations."""
    if config.algo == "tdmpc2" or is_remote(config.demos) or re.fullmatch(r"[+-]?\d+", config.demos):
        return None
    return Path(config.demos).expanduser()


def load_run_demos(config: RunConfig, spec: EnvSpec, source: DemoSource) -> DemoDataset:
    """Read the demonstrations of a run, with their origin in the provenance."""
    demos = load_demos(
        source.path,
        spec,
        allow_variable_horizon=config.allow_variable_horizon,
        require_actions=needs_actions(config),
    )
    return replace(demos, provenance={**demos.provenance, ORIGIN_KEY: source.origin}) if source.origin else demos


def adapt_to_demos(config: RunConfig, given: DemoDataset | None, source: DemoSource | None) -> RunConfig:
    """Return the settings without pretraining and BC terms if the demonstrations have no actions and need none.

    Args:
        config: settings.
        given: demonstrations that were given as an object.
        source: result of `locate_demos`, where they are otherwise.
    """
    read = source is not None and given is None and not needs_actions(config) and source.path.exists()
    # Without images a file may have no observations, which is not what matters here.
    images = ImageRequest(config.image_size) if has_images(config.task) else None
    demos = read_demos(source.path, images=images) if source is not None and read else given
    return config if demos is None or demos.has_actions else without_actions(config)


def _log_collection(task: str, num: int, log: LogFn) -> Callable[[int, int], None]:
    """Return a callback that logs the progress of a collection; a motion planner takes a second or more per episode."""
    logged_at = time.monotonic()

    def on_episode(kept: int, attempts: int) -> None:
        nonlocal logged_at
        if time.monotonic() - logged_at >= PROGRESS_SECONDS:
            logged_at = time.monotonic()
            log(f"collecting demonstrations of {task}: {kept} of {num}, from {attempts} attempts")

    return on_episode
