"""Description of an exported policy, which every format has inside its file."""

from importlib.metadata import version
from typing import Any

import numpy as np

from cdred.config import RunConfig
from cdred.export.numpy_policy import FORMAT, VERSION
from cdred.train.agent import ActsBy
from cdred.types import EnvSpec

OBS = "obs"


def describe_policy(config: RunConfig, spec: EnvSpec, seed: int, steps: int, run_acts_by: ActsBy) -> dict[str, Any]:
    """Return the metadata of an exported policy.

    Args:
        config: settings of the run.
        spec: the task.
        seed: seed of the run.
        steps: environment steps of the checkpoint.
        run_acts_by: what acts in the run; the planner is not exported, but the policy in its place.

    Returns:
        Values that JSON has. `inputs` are names and shapes of the parts of an observation in their order, a single one
        named `obs` if it is one array; `control_timestep` is in seconds, and None if unknown.
    """
    low, high = spec.action_bounds
    return {
        "format": FORMAT,
        "version": VERSION,
        "cdred_version": version("cdred"),
        "task": spec.task,
        "algo": config.algo,
        "seed": seed,
        "steps": steps,
        "policy": "pretrained policy" if run_acts_by == "pretrained policy" else "policy",
        "run_acts_by": run_acts_by,
        "inputs": obs_inputs(spec),
        "action_low": low.tolist(),
        "action_high": high.tolist(),
        "action_repeat": spec.action_repeat,
        "control_timestep": spec.control_timestep,
        "trained_precision": config.precision.model,
    }


def obs_inputs(spec: EnvSpec) -> list[dict[str, Any]]:
    """Return names and shapes of the inputs of a policy: the parts of an observation, or all of it."""
    if spec.obs_parts:
        assert sum(width for _, width in spec.obs_parts) == np.prod(spec.obs_shape), "the parts make up the observation"
        return [{"name": name, "shape": [width]} for name, width in spec.obs_parts]
    return [{"name": OBS, "shape": list(spec.obs_shape)}]
