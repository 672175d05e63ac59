"""Memory of a run, computed from shapes without allocating it."""

from typing import NamedTuple

import equinox as eqx
import jax

from cdred.config import RunConfig
from cdred.data.replay_buffer import replay_bytes
from cdred.data.replay_images import image_bytes
from cdred.errors import UserError
from cdred.files import format_mib
from cdred.host_memory import HostMemory
from cdred.train.keys import INIT, seed_keys
from cdred.train.setup import buffer_capacity, make_compiled_fns
from cdred.types import EnvSpec

OPTIMIZER_STATE = "opt_state"


class RunMemory(NamedTuple):
    """Bytes of the arrays that a run keeps, for all seeds, on its devices but for images with --replay-images host.

    Gradients, activations and the segments of an update are not included: they depend on how XLA compiles it.

    Attributes:
        networks: parameters, and copies of them (target critics, EMAs, the pretrained policy).
        optimizers: optimiser states.
        agent_buffer: replay buffers of the agents without their images; no larger than the run can fill.
        agent_images: camera images in these buffers; 0 for a task without.
        expert_buffer: replay buffer of the demonstrations; None if their number is not known from the settings.
    """

    networks: int
    optimizers: int
    agent_buffer: int
    agent_images: int
    expert_buffer: int | None


def run_memory(config: RunConfig, spec: EnvSpec) -> RunMemory:
    """Compute the memory of a run with these settings on a task."""
    fns = make_compiled_fns(config, spec)
    learner = eqx.filter_eval_shape(fns.init_fn, seed_keys(config.seeds, INIT))
    leaves, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(learner, _is_shape))
    sizes = [(OPTIMIZER_STATE in jax.tree_util.keystr(path), leaf.size * leaf.dtype.itemsize) for path, leaf in leaves]
    capacity = buffer_capacity(config, spec, fns.algorithm.uses_env)
    buffer, images = agent_buffer_bytes(config, spec, capacity)
    return RunMemory(
        networks=sum(size for optimizer, size in sizes if not optimizer),
        optimizers=sum(size for optimizer, size in sizes if optimizer),
        agent_buffer=buffer,
        agent_images=images,
        expert_buffer=_expert_buffer(config, spec) if fns.algorithm.uses_demos else 0,
    )


def _is_shape(leaf: object) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct)


def agent_buffer_bytes(config: RunConfig, spec: EnvSpec, capacity: int) -> tuple[int, int]:
    """Compute the bytes of the agents' buffers of `capacity` rows per environment: without images, and of these."""
    seeds, images = len(config.seeds), image_bytes(spec, config.envs, capacity)
    return seeds * (replay_bytes(spec, config.envs, capacity) - images), seeds * images


def _expert_buffer(config: RunConfig, spec: EnvSpec) -> int | None:
    """Compute the bytes of `from_trajectories` for episodes of full length."""
    if not config.demos.isdecimal():
        return None
    return replay_bytes(spec, 1, int(config.demos) * (spec.episode_length + 1) + 1)


def check_host_images(size: int, memory: HostMemory) -> str:
    """Describe images of `size` bytes in host memory, for a message.

    Raises:
        UserError: this machine has less memory.
    """
    if size > memory.total:
        raise UserError(
            f"the images of the agent buffer have {format_mib(size)}, but this machine has {format_mib(memory.total)} "
            "of memory: give a smaller --buffer-size or --image-size, fewer --steps or fewer --seeds."
        )
    text = f"{format_mib(size)} of images in host memory"
    if memory.available is None:
        return f"{text}, of {format_mib(memory.total)}"
    text += f", of which {format_mib(memory.available)} are available"
    return text if size <= memory.available else f"{text}: too little, unless other processes end before it is full"
