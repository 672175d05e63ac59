"""Run folder: its name, the check against other settings, and loading its agents.

A run folder holds `config.yaml`, `metrics.jsonl`, `checkpoints/` and, once the run has finished, `result.json`,
`report.png` and `videos/`. `demonstrations.json` tells which demonstrations the run was begun with; those that were
given as an object are saved as `demonstrations.npz`.
"""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import equinox as eqx
import numpy as np

from cdred.checkpoint import checkpoint
from cdred.config import PlannerName, RunConfig, total_steps
from cdred.config_file import first_difference, read_config, read_text, to_yaml
from cdred.constraints import check_choice
from cdred.data.demonstrations import save_demos
from cdred.envs.callables import SUITE, EnvFactory
from cdred.envs.imports import import_modules
from cdred.envs.make import make_vector_env
from cdred.errors import UserError
from cdred.files import atomic_write_text
from cdred.report.results import read_result
from cdred.train.keys import INIT, seed_keys
from cdred.train.setup import make_compiled_fns
from cdred.types import DemoDataset

# Settings that may differ when a run is resumed: folders and files may be moved, a run that a slow simulator stopped
# must be resumable with a longer timeout, and the others do not change what is learned in a step: `replay_images` but
# for rounding.
FREE_SETTINGS = (
    "out",
    "imports",
    "env_step_timeout",
    "replay_images",
    "steps",
    "log_every",
    "eval_every",
    "eval_episodes",
    "final_eval_episodes",
    "video",
    "trackers",
)
DEMOS_FILE, DEMOS_RECORD = "demonstrations.npz", "demonstrations.json"


def run_folder(config: RunConfig) -> Path:
    """Return the folder of a run: `config.out`, or a name derived from task, method and preset."""
    if config.out:
        return Path(config.out)
    # Task names may have characters, such as a colon, that not every file system and tool accepts.
    return Path("runs") / re.sub(r"[^\w.+-]", "-", f"{config.task}-{config.algo}-{config.preset}")


def finished_result(folder: Path, config: RunConfig) -> dict[str, Any] | None:
    """Return the result of the run in a folder; None if there is no run, or these settings ask for more than it has.

    Raises:
        UserError: the folder holds a run with other settings than `FREE_SETTINGS`, without `config.yaml`, or that has
            more steps already.
    """
    if not has_checkpoint(folder):
        return None
    config_path = folder / "config.yaml"
    if not config_path.exists():
        raise UserError(
            f"{folder} holds a run without its settings, config.yaml: restore the file, or give another --out."
        )
    begun = read_config(config_path)
    saved = replace(begun, **{key: getattr(config, key) for key in FREE_SETTINGS})
    if config.demos == str(folder / DEMOS_FILE) and Path(saved.demos).name == DEMOS_FILE:
        saved = replace(saved, demos=config.demos)
    difference = first_difference(saved, config)
    if difference:
        raise UserError(
            f"{folder} holds a run with another setting: {difference}.\n"
            "Give the same settings to resume it, or another --out."
        )
    result = read_result(folder) if (folder / "result.json").exists() else None
    if result and _is_complete(result, config) and (begun.video or not config.video):
        return result
    _check_can_continue(folder, begun, config)
    return None


def _is_complete(result: dict[str, Any], config: RunConfig) -> bool:
    episodes = (result.get("eval") or {}).get("episodes")
    return (result.get("steps"), episodes) == (total_steps(config), config.final_eval_episodes)


def _check_can_continue(folder: Path, begun: RunConfig, config: RunConfig) -> None:
    last = checkpoint.latest(folder / "checkpoints")
    if last is None:
        raise UserError(f"{folder} holds the result of a run without its checkpoints: give another --out.")
    checkpoint.check_resumable(last)
    step, total = int(last.name), total_steps(config)
    if total < step or step == total < total_steps(begun):
        raise UserError(
            f"{folder} holds a run that has {step:,} steps already, of {begun.steps:,}; it cannot end with "
            f"--steps {config.steps:,}.\nGive more steps to continue it, or another --out."
        )


def has_checkpoint(folder: Path) -> bool:
    """Check if a folder holds a run with a checkpoint or a result. Before the first one, its settings may change."""
    return checkpoint.latest(folder / "checkpoints") is not None or (folder / "result.json").exists()


def write_config(folder: Path, config: RunConfig) -> None:
    """Write `config.yaml`, unless it has these settings.

    Raises:
        UserError: the folder holds a run with other settings.
    """
    finished_result(folder, config)
    path, text = folder / "config.yaml", to_yaml(config)
    if not path.exists() or read_text(path) != text:
        atomic_write_text(path, text)


def record_demos(folder: Path, demos: DemoDataset, *, save: bool) -> None:
    """Record which demonstrations a run begins with, unless the folder holds a checkpoint of a run with the same.

    Args:
        folder: the run folder.
        demos: the demonstrations.
        save: save them as well, because they were given as an object.

    Raises:
        UserError: as `check_same_demos`, or the demonstrations cannot be saved.
    """
    check_same_demos(folder, demos)
    if has_checkpoint(folder):
        return
    if save:
        (folder / DEMOS_FILE).unlink(missing_ok=True)
        save_demos(demos, folder / DEMOS_FILE)
    atomic_write_text(folder / DEMOS_RECORD, json.dumps(_describe(demos), indent=1) + "\n")


def check_same_demos(folder: Path, demos: DemoDataset) -> None:
    """Check that the run in a folder, if it has a checkpoint, was begun with these demonstrations.

    Raises:
        UserError: it was begun with others, or the record of them is missing.
    """
    if not has_checkpoint(folder):
        return
    record = folder / DEMOS_RECORD
    try:
        begun_with = json.loads(record.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{record} cannot be read ({error}): restore it, or give another --out.") from error
    given = _describe(demos)
    if begun_with != given:
        raise UserError(
            f"{folder} holds a run with other demonstrations: {begun_with}, now {given}.\n"
            "Give the same ones, or another --out."
        )


def _describe(demos: DemoDataset) -> dict[str, Any]:
    """Return the numbers of episodes and steps, and a hash of all that is learned from or compared with."""
    digest = hashlib.sha256()
    for trajectory in demos:
        for array in (trajectory.obs, trajectory.action, trajectory.reward, trajectory.image):
            if array is not None:
                digest.update(f"{array.dtype.str}{array.shape}".encode())
                digest.update(array.tobytes())
        digest.update(bytes((trajectory.terminated, trajectory.truncated)))
    return {"episodes": len(demos), "steps": sum(map(len, demos)), "sha256": digest.hexdigest()}


def _refuse_code_of_the_run(folder: Path, imports: tuple[str, ...]) -> None:
    """Refuse to import files that lie in the run folder, which is data and may come from somebody else."""
    inside = [name for name in imports if Path(name).resolve().is_relative_to(folder.resolve())]
    if inside:
        raise UserError(
            f"{folder / 'config.yaml'} imports {inside[0]}, a file of the run folder, whose code is not executed: move "
            "it out of the folder and correct `imports`, if you trust it."
        )


def _with_given_env(folder: Path, config: RunConfig) -> RunConfig:
    """Return the settings with environments in this process: others would import the function that the run names."""
    if not config.task.startswith(f"{SUITE}/"):
        raise UserError(f"{folder} is a run of {config.task}, which env cannot replace: omit env.")
    return config if config.vectorization == "thread" else replace(config, vectorization="sync")


class LoadedRun(NamedTuple):
    """A run loaded from a checkpoint.

    Attributes:
        config: its settings.
        learner: the learner states, with a leading seed axis.
        eval_envs: snapshot of the evaluation environments.
        steps: steps per seed at the checkpoint.
    """

    config: RunConfig
    learner: Any
    eval_envs: dict[str, Any]
    steps: int


def load_run(folder: Path, planner: PlannerName | None, best: bool = False, env: EnvFactory | None = None) -> LoadedRun:
    """Load a run from its last checkpoint.

    Args:
        folder: the run folder.
        planner: replaces the planner of the settings, and the candidate that was chosen to act at the end of training;
            None keeps both.
        best: load the checkpoint of the best evaluation instead.
        env: what makes the environments (`cdred.envs.callables.given_env`); None for the function or task that the run
            names.

    Raises:
        UserError: no such planner; `env` is given for a run that was trained without; or the folder is not that of a
            run with such a checkpoint, or it is damaged.
    """
    if planner is not None:
        check_choice("--planner", planner, get_args(PlannerName))
    config_path, checkpoints = folder / "config.yaml", folder / "checkpoints"
    source = checkpoint.best(checkpoints) if best else checkpoint.latest(checkpoints)
    if not config_path.exists() or source is None:
        wanted = "the best checkpoint of an evaluation" if best else "a checkpoint"
        raise UserError(f"{folder} is not a run with {wanted}: expected config.yaml and checkpoints/ in it.")
    config = read_config(config_path)
    config = replace(config, planner=planner or config.planner)
    _refuse_code_of_the_run(folder, config.imports)
    if env is None:
        import_modules(config.imports)
    else:
        config = _with_given_env(folder, config)
    with make_vector_env(config.task, config.seeds, config.envs, "eval", vectorization=config.vectorization) as envs:
        fns, snapshot = make_compiled_fns(config, envs.spec), envs.snapshot()
    template = eqx.filter_eval_shape(fns.init_fn, seed_keys(config.seeds, INIT))
    learner, _ = checkpoint.load(source, template, "learner")
    if planner is not None and fns.algorithm.pretraining is not None:
        learner = fns.set_acting(learner, np.zeros(len(config.seeds), np.int32))
    eval_envs, _ = checkpoint.load(source, snapshot, "eval_envs")
    return LoadedRun(config, learner, eval_envs, int(source.name.removeprefix(checkpoint.BEST)))
