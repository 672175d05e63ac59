"""Arrays of a pytree as checkpoints store them: names, shapes and dtypes, copies on the host, and the way back."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree


def is_array(leaf: object) -> bool:
    """Check if a leaf is an array, or the shape of one."""
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct))


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def named_arrays(tree: PyTree, prefix: str = "") -> dict[str, Any]:
    """Map readable paths, e.g. `learner/model/encoder/0/weight`, to array leaves, in the order of the tree."""
    paths, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(tree, is_array))
    leaves = [(path_name(path), leaf) for path, leaf in paths]
    named = {"/".join(filter(None, (prefix, name))): leaf for name, leaf in leaves}
    assert len(named) == len(leaves), "two leaves of the state share a path: a dict key contains '/'"
    return named


def path_name(path: tuple) -> str:
    """Format the path of a node in a tree."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def describe(leaf: Any) -> dict[str, Any]:
    """Return shape and dtype as in the program: keys have a key dtype, although their data are stored as uint32."""
    entry = {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}
    if _is_key(leaf) and isinstance(leaf, jax.Array):
        entry["impl"] = str(jax.random.key_impl(leaf))
    return entry


def restore(stored: np.ndarray, entry: dict[str, Any], like: Any) -> Any:
    """Return a stored array as the kind of array that `like` is.

    Raises:
        ValueError: its shape or dtype is not that of `like`.
    """
    if _is_key(like):
        restored = jax.random.wrap_key_data(jnp.array(stored), impl=entry["impl"])
    elif isinstance(like, np.generic):
        restored = stored[()]
    else:
        restored = stored if isinstance(like, np.ndarray) else jnp.array(stored)
    if (restored.shape, str(restored.dtype)) != (like.shape, str(like.dtype)):
        raise ValueError(f"{stored.dtype} of shape {stored.shape}, but checkpoint.json has {format_entry(entry)}")
    return restored


def format_entry(entry: dict[str, Any] | None) -> str:
    """Format what `describe` returns; None is nothing."""
    return f"{entry['dtype']} of shape {tuple(entry['shape'])}" if entry else "nothing"


def to_host(named: dict[str, Any]) -> dict[str, np.ndarray]:
    """Copy arrays to the host, the data of keys in their place."""
    host = jax.device_get({name: jax.random.key_data(x) if _is_key(x) else x for name, x in named.items()})
    # safetensors copies raw memory, so a transposed view would be stored scrambled.
    return {name: np.asarray(x, order="C") for name, x in host.items()}
