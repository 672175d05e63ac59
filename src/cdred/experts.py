"""Experts trained on the true reward, and episodes recorded of trained agents."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from cdred.api import train
from cdred.config import RunConfig, validate
from cdred.data.demonstrations import save_demos
from cdred.data.formats.registry import check_output_path
from cdred.demos.record_agent import record_agent
from cdred.demos.scripted import check_num_demos
from cdred.envs.make import make_vector_env
from cdred.run_folder import LoadedRun, load_run, run_folder
from cdred.train.setup import make_compiled_fns
from cdred.types import DemoDataset

# Environments stepped together while episodes are recorded.
RECORDING_ENVS = 10


def train_expert(
    config: RunConfig,
    out: str | Path,
    *,
    num: int = 100,
    threshold: float | None = None,
    quiet: bool = False,
    on_episode: Callable[[int, int], None] | None = None,
) -> DemoDataset:
    """Train TD-MPC2 on the environment's reward, and record episodes of its best seed as demonstrations.

    Args:
        config: settings of the training run, with `algo="tdmpc2"`; a finished run is not repeated.
        out: output of the demonstrations: a new folder (Minari) or a new `.npz` file, which images need.
        num: number of episodes to keep.
        threshold: minimum return of an episode to be kept; None keeps every episode.
        quiet: disable terminal output of the training.
        on_episode: called after each recorded episode with the numbers of kept and of attempted episodes.

    Raises:
        UserError: an argument cannot be used, or too few episodes reach the threshold.
    """
    out, config = Path(out), validate(config)
    check_output_path(out)
    check_num_demos(num)
    result = train(config, quiet=quiet)
    best = int(np.argmax(result["eval"]["return"]))
    demo_provenance = {
        "expert": f"{config.algo} on the true reward, {result['steps']} steps, best of {len(config.seeds)}",
        **{key: result[key] for key in ("preset", "commit", "versions")},
    }
    loaded = load_run(run_folder(config), None)
    demos = record_episodes(loaded, best, num, threshold, provenance=demo_provenance, on_episode=on_episode)
    save_demos(demos, out)
    return demos


def record_episodes(
    loaded: LoadedRun,
    index: int,
    num: int,
    threshold: float | None = None,
    *,
    provenance: dict[str, object] | None = None,
    on_episode: Callable[[int, int], None] | None = None,
) -> DemoDataset:
    """Record episodes of one agent of a run, finished or not.

    Args:
        loaded: the run.
        index: which of its seeds.
        num: number of episodes to keep.
        threshold: least return of an episode to be kept; None keeps all.
        provenance: stored with the episodes.
        on_episode: called after each attempt with the numbers of kept and of attempted episodes.

    Raises:
        UserError: too few episodes reach the threshold.
    """
    seed, learner = loaded.config.seeds[index], jax.tree.map(lambda x: x[index : index + 1], loaded.learner)
    minimum = -np.inf if threshold is None else threshold
    with make_vector_env(loaded.config.task, (seed,), min(num, RECORDING_ENVS), "demos") as envs:
        fns = make_compiled_fns(replace(loaded.config, seeds=(seed,)), envs.spec)
        return record_agent(fns, learner, envs, num, threshold=minimum, provenance=provenance, on_episode=on_episode)
