"""Seeds sharded over the local devices: each device runs its own seeds, without any communication."""

from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

Tree = TypeVar("Tree", bound=PyTree)

# Partitioning of an array: along its leading axis of seeds, along a second axis of seeds, or replicated.
SEEDS, STEPS_SEEDS, REPLICATED = PartitionSpec("seed"), PartitionSpec(None, "seed"), PartitionSpec()


def seed_mesh(num_seeds: int) -> Mesh | None:
    """Make a mesh of as many local devices as divide the seeds evenly; return None if that is a single device."""
    devices = jax.local_devices()
    size = max(n for n in range(1, len(devices) + 1) if num_seeds % n == 0)
    return Mesh(np.array(devices[:size]), ("seed",)) if size > 1 else None


def shard_map_seeds(function: Callable, mesh: Mesh | None, in_specs: tuple, out_specs: PyTree = SEEDS) -> Callable:
    """Map `function` over the shards of the seeds; return it unchanged without a mesh.

    Args:
        function: treats the seeds along its arguments' axis of seeds independently of each other.
        mesh: from `seed_mesh`.
        in_specs: partitioning of the arguments.
        out_specs: partitioning of the results.
    """
    if mesh is None:
        return function
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def to_device(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Copy arrays with a leading axis of seeds to the devices, partitioned as `shard_map_seeds` has it."""
    return jax.device_put(tree, None if mesh is None else NamedSharding(mesh, SEEDS))


def shard(tree: Tree, mesh: Mesh | None) -> Tree:
    """Shard JAX arrays with a leading axis of seeds; NumPy arrays stay in host memory."""
    return jax.tree.map(lambda x: x if isinstance(x, np.ndarray) else to_device(x, mesh), tree) if mesh else tree
