"""Run folder: its name, the check against other settings, and loading its agents.

A run folder holds `config.yaml`, `metrics.jsonl`, `checkpoints/` and, once the run has finished, `result.json`,
`report.png` and `videos/`.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np

from cdred.checkpoint import checkpoint
from cdred.config import PlannerName, RunConfig
from cdred.config_file import first_difference, read_config, to_yaml
from cdred.envs.make import make_vector_env
from cdred.errors import UserError
from cdred.files import atomic_write_text
from cdred.report.results import read_result
from cdred.train.keys import INIT, seed_keys
from cdred.train.setup import make_compiled_fns


def run_folder(config: RunConfig) -> Path:
    """Return the folder of a run: `config.out`, or a name derived from task, method and preset."""
    if config.out:
        return Path(config.out)
    return Path("runs") / f"{config.task.replace('/', '-')}-{config.algo}-{config.preset}"


def finished_result(folder: Path, config: RunConfig) -> dict[str, Any] | None:
    """Return the result of the run in a folder; None if there is no run, or it has not finished.

    Raises:
        UserError: the folder holds a run with other settings, or without `config.yaml`.
    """
    if not has_checkpoint(folder):
        return None
    config_path = folder / "config.yaml"
    if not config_path.exists():
        raise UserError(
            f"{folder} holds a run without its settings, config.yaml: restore the file, or give another --out."
        )
    # A folder may be moved, and a run that a slow simulator stopped must be resumable with a longer timeout.
    saved = replace(read_config(config_path), out=config.out, env_step_timeout=config.env_step_timeout)
    difference = first_difference(saved, config)
    if difference:
        raise UserError(
            f"{folder} holds a run with another setting: {difference}.\n"
            "Give the same settings to resume it, or another --out."
        )
    return read_result(folder) if (folder / "result.json").exists() else None


def has_checkpoint(folder: Path) -> bool:
    """Check if a folder holds a run with a checkpoint or a result. Before the first one, its settings may change."""
    return checkpoint.latest(folder / "checkpoints") is not None or (folder / "result.json").exists()


def write_config(folder: Path, config: RunConfig) -> None:
    """Write `config.yaml`, unless the folder holds a checkpoint of a run with these settings.

    Raises:
        UserError: the folder holds a run with other settings.
    """
    finished_result(folder, config)
    if not has_checkpoint(folder):
        atomic_write_text(folder / "config.yaml", to_yaml(config))


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


def load_run(folder: Path, planner: PlannerName | None, best: bool = False) -> LoadedRun:
    """Load a run from its last checkpoint.

    Args:
        folder: the run folder.
        planner: replaces the planner of the settings, and the candidate that was chosen to act at the end of training;
            None keeps both.
        best: load the checkpoint of the best evaluation instead.

    Raises:
        UserError: the folder is not that of a run with such a checkpoint, or it is damaged.
    """
    config_path, checkpoints = folder / "config.yaml", folder / "checkpoints"
    source = checkpoint.best(checkpoints) if best else checkpoint.latest(checkpoints)
    if not config_path.exists() or source is None:
        wanted = "the best checkpoint of an evaluation" if best else "a checkpoint"
        raise UserError(f"{folder} is not a run with {wanted}: expected config.yaml and checkpoints/ in it.")
    config = read_config(config_path)
    config = replace(config, planner=planner or config.planner)
    with make_vector_env(config.task, config.seeds, config.envs, "eval", vectorization=config.vectorization) as envs:
        fns, snapshot = make_compiled_fns(config, envs.spec), envs.snapshot()
    template = eqx.filter_eval_shape(fns.init, seed_keys(config.seeds, INIT))
    learner, _ = checkpoint.load(source, template, "learner")
    if planner is not None and fns.algorithm.pretraining is not None:
        learner = fns.set_acting(learner, np.zeros(len(config.seeds), np.int32))
    eval_envs, _ = checkpoint.load(source, snapshot, "eval_envs")
    return LoadedRun(config, learner, eval_envs, int(source.name.removeprefix(checkpoint.BEST)))
