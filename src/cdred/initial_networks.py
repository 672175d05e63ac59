"""Initialization of a run with the networks of another one, as in fine-tuning."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from cdred.algos.bc import BCPolicy, BCState
from cdred.config import MODEL_FREE, RunConfig
from cdred.envs.registry import get_env_spec
from cdred.errors import UserError
from cdred.run_folder import LoadedRun, load_run
from cdred.types import EnvSpec

# Parts of a learner's state that are taken; optimiser states and numbers of updates are new.
PARTS = ("model", "policy", "reward", "target_critics", "q_scale")

# What both tasks have the same of, by attribute of their specs.
SAME = {
    "obs_shape": "observations of shape",
    "obs_parts": "parts of an observation",
    "image_size": "images of size",
    "action_low": "lower bounds of actions",
    "action_high": "upper bounds of actions",
    "can_terminate": "episodes that can terminate:",
}


def load_networks(config: RunConfig, spec: EnvSpec) -> Callable[[PyTree], PyTree]:
    """Load the run `config.init_from`, from its last checkpoint.

    Args:
        config: settings of the run that begins with its networks.
        spec: the task of that run.

    Returns:
        Function that puts the networks in the place of a new learner's. It raises UserError if they do not fit.

    Raises:
        UserError: the folder is not that of a run, or its task, algorithm, model or seeds do not fit.
    """
    loaded = load_run(Path(config.init_from).expanduser(), None)
    _check(config, spec, loaded)
    rows = np.array([loaded.config.seeds.index(seed) for seed in config.seeds])
    source = jax.tree.map(lambda x: jnp.asarray(x)[rows], loaded.learner)

    def replace_networks(learner: PyTree) -> PyTree:
        state = source
        if isinstance(learner, BCState) and not isinstance(source, BCState):
            state = eqx.tree_at(lambda s: s.policy, learner, BCPolicy.from_world_model(source.model))
        parts = [name for name in PARTS if hasattr(learner, name)]
        taken = [_arrays_of(getattr(state, name), getattr(learner, name), config.init_from) for name in parts]
        return eqx.tree_at(lambda s: [getattr(s, name) for name in parts], learner, taken, is_leaf=lambda x: x is None)

    return replace_networks


def _check(config: RunConfig, spec: EnvSpec, loaded: LoadedRun) -> None:
    source, folder = loaded.config, config.init_from
    if source.algo != config.algo and (config.algo != "bc" or source.algo in MODEL_FREE):
        wanted = "an algorithm with a world model" if config.algo == "bc" else config.algo
        raise UserError(f"--init-from {folder} is a run of {source.algo}, expected {wanted}.")
    other = get_env_spec(source.task)
    for name, text in SAME.items():
        before, now = getattr(other, name), getattr(spec, name)
        if before != now:
            raise UserError(
                f"--init-from {folder} is a run of {source.task}, with {text} {before}; {spec.task} has {now}: give a "
                "run of a task with the same observations and actions."
            )
    for field in fields(config.model):
        before, now = getattr(source.model, field.name), getattr(config.model, field.name)
        if before != now:
            raise UserError(
                f"--init-from {folder} has --model.{field.name.replace('_', '-')} {before}, this run has {now}: give "
                "the same value."
            )
    missing = [seed for seed in config.seeds if seed not in source.seeds]
    if missing:
        raise UserError(
            f"--init-from {folder} has the seeds {list(source.seeds)}, expected {missing[0]} as well: give --seeds "
            "that it has."
        )


def _arrays_of(source: Any, new: Any, folder: str) -> Any:
    """Return `new` with the arrays of `source`, and its own static settings."""
    leaves, structure = jax.tree.flatten(new)
    taken = jax.tree.leaves(source)
    if [x.shape for x in taken] != [x.shape for x in leaves]:
        raise UserError(
            f"--init-from {folder} has networks of other shapes than this run: give the settings of its reward and "
            "critics."
        )
    return jax.tree.unflatten(structure, taken)
