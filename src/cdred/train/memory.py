"""Device memory of a run, computed from shapes without allocating it."""

from typing import NamedTuple

import equinox as eqx
import jax

from cdred.config import RunConfig
from cdred.data.replay_buffer import replay_bytes
from cdred.train.keys import INIT, seed_keys
from cdred.train.setup import buffer_capacity, make_compiled_fns
from cdred.types import EnvSpec

OPTIMIZER_STATE = "opt_state"


class RunMemory(NamedTuple):
    """Bytes of the arrays that a run keeps on its devices, for all seeds.

    Gradients, activations and the segments of an update are not included: they depend on how XLA compiles it.

    Attributes:
        networks: parameters, and copies of them (target critics, EMAs, the pretrained policy).
        optimizers: optimiser states.
        agent_buffer: replay buffers of the agents; no larger than the run can fill.
        expert_buffer: replay buffer of the demonstrations; None if their number is not known from the settings.
    """

    networks: int
    optimizers: int
    agent_buffer: int
    expert_buffer: int | None


def run_memory(config: RunConfig, spec: EnvSpec) -> RunMemory:
    """Compute the device memory of a run with these settings on a task."""
    fns = make_compiled_fns(config, spec)
    learner = eqx.filter_eval_shape(fns.init_fn, seed_keys(config.seeds, INIT))
    leaves, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(learner, _is_shape))
    sizes = [(OPTIMIZER_STATE in jax.tree_util.keystr(path), leaf.size * leaf.dtype.itemsize) for path, leaf in leaves]
    return RunMemory(
        networks=sum(size for optimizer, size in sizes if not optimizer),
        optimizers=sum(size for optimizer, size in sizes if optimizer),
        agent_buffer=_agent_buffer(config, spec, fns.algorithm.uses_env),
        expert_buffer=_expert_buffer(config, spec) if fns.algorithm.uses_demos else 0,
    )


def _is_shape(leaf: object) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct)


def _agent_buffer(config: RunConfig, spec: EnvSpec, uses_env: bool) -> int:
    return len(config.seeds) * replay_bytes(spec, config.envs, buffer_capacity(config, spec, uses_env))


def _expert_buffer(config: RunConfig, spec: EnvSpec) -> int | None:
    """Compute the bytes of `from_trajectories` for episodes of full length."""
    if not config.demos.isdecimal():
        return None
    return replay_bytes(spec, 1, int(config.demos) * (spec.episode_length + 1) + 1)
