"""Seeds spread over the local devices: each device runs its share of them, and nothing is exchanged."""

from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

Tree = TypeVar("Tree", bound=PyTree)

# How an argument lies on the devices: cut along its leading axis of seeds, along its second one, or whole on each.
SEEDS, STEPS_SEEDS, WHOLE = PartitionSpec("seed"), PartitionSpec(None, "seed"), PartitionSpec()


def seed_mesh(num_seeds: int) -> Mesh | None:
    """As many local devices as share the seeds out evenly; None where that is one."""
    devices = jax.local_devices()
    shares = max(n for n in range(1, len(devices) + 1) if num_seeds % n == 0)
    return Mesh(np.array(devices[:shares]), ("seed",)) if shares > 1 else None


def shard_map_seeds(function: Callable, mesh: Mesh | None, arguments: tuple, results: PyTree = SEEDS) -> Callable:
    """`function` on each device's share of the seeds; `function` itself without a mesh.

    Args:
        function: of arrays with an axis of seeds, which it treats one by one.
        mesh: from `seed_mesh`.
        arguments, results: how each lies on the devices.
    """
    if mesh is None:
        return function
    return jax.shard_map(function, mesh=mesh, in_specs=arguments, out_specs=results, check_vma=False)


def spread(tree: Tree, mesh: Mesh | None) -> Tree:
    """`tree`, whose arrays lead with an axis of seeds, laid where `shard_map_seeds` expects it."""
    return tree if mesh is None else jax.device_put(tree, NamedSharding(mesh, SEEDS))
