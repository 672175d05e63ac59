"""A checkpoint is a folder that explains itself: `state.safetensors` for the arrays, `checkpoint.json` for the rest.

Nothing is pickled. A folder under its final name is complete: it is written under a temporary name, flushed to the
disk, and only then renamed, so a run killed at any moment leaves the previous checkpoint as the latest one.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from cdred.errors import UserError

FORMAT = 1
ARRAYS, INDEX = "state.safetensors", "checkpoint.json"
UNFINISHED = ".unfinished-"


def save(root: Path, step: int, state: PyTree, meta: dict[str, Any], keep: int = 2) -> Path:
    """Write every array of `state` to `root/<step>/` and drop all but the newest `keep` checkpoints.

    Args:
        root: the run's `checkpoints` folder; made if absent.
        step: decisions per seed so far; names the folder.
        state: any pytree. Array leaves (JAX, NumPy, typed PRNG keys) are stored under their path in the tree; all
            other leaves, Python numbers included, are static: `load` takes them from its `like`.
        meta: JSON-serialisable notes, handed back by `load`.
        keep: how many checkpoints stay, this one included.

    Returns:
        The checkpoint's folder.
    """
    root.mkdir(parents=True, exist_ok=True)
    for leftover in root.glob(f"{UNFINISHED}*"):
        shutil.rmtree(leftover)
    final, draft = root / f"{step:09d}", root / f"{UNFINISHED}{step:09d}"
    draft.mkdir()
    named = _named_arrays(state)
    host = jax.device_get({name: jax.random.key_data(x) if _is_key(x) else x for name, x in named.items()})
    # safetensors copies raw memory, so a transposed view would be stored scrambled.
    save_file({name: np.asarray(x, order="C") for name, x in host.items()}, draft / ARRAYS)
    index = {"format": FORMAT, "step": step, "meta": meta, "arrays": {name: _describe(x) for name, x in named.items()}}
    (draft / INDEX).write_text(json.dumps(index, indent=1) + "\n")
    _publish(draft, final)
    for old in _steps(root, other_than=final)[: max(0, len(_steps(root)) - keep)]:
        _discard(old)
    return final


def latest(root: Path) -> Path | None:
    """The newest complete checkpoint under `root`, or None."""
    steps = _steps(root)
    return steps[-1] if steps else None


def load(folder: Path, like: PyTree, prefix: str = "") -> tuple[PyTree, dict[str, Any]]:
    """Restore a state bit for bit.

    Args:
        folder: what `save` returned.
        like: the structure to fill; its array leaves may be arrays or `jax.ShapeDtypeStruct`s, which spares
            allocating a state only to replace it. Static leaves are taken from it as they are.
        prefix: path of a subtree (`"learner"`): `like` is then that subtree, and only it is read from the disk.

    Returns:
        The restored tree and the `meta` given to `save`.

    Raises:
        UserError: the folder is damaged, or holds other names, shapes or dtypes than `like`.
    """
    index = _read_index(folder)
    entries, wanted = index["arrays"], _named_arrays(like, prefix)
    _check(folder, entries, wanted, prefix)
    try:
        with safe_open(folder / ARRAYS, framework="np") as stored:
            restored = [_restore(stored.get_tensor(name), entries[name], x) for name, x in wanted.items()]
    except (SafetensorError, OSError) as error:
        raise UserError(f"{folder / ARRAYS} is damaged ({error}).\n{_mend_damage(folder)}") from error
    arrays, static = eqx.partition(like, _is_array)
    return eqx.combine(jax.tree.unflatten(jax.tree.structure(arrays), restored), static), index["meta"]


def _is_array(leaf: object) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct))


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _named_arrays(tree: PyTree, prefix: str = "") -> dict[str, Any]:
    """Array leaves by readable path, e.g. `learner/model/encoder/0/weight`, in the tree's own order."""
    paths, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(tree, _is_array))
    parts = [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in paths]
    named = {"/".join(filter(None, (prefix, name))): leaf for name, leaf in parts}
    assert len(named) == len(parts), "two leaves of the state share a path: a dict key contains '/'"
    return named


def _describe(leaf: Any) -> dict[str, Any]:
    """Shape and dtype as the program sees them: a key is a key here, though its words are stored as uint32."""
    entry = {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}
    if _is_key(leaf) and isinstance(leaf, jax.Array):
        entry["impl"] = str(jax.random.key_impl(leaf))
    return entry


def _restore(stored: np.ndarray, entry: dict[str, Any], like: Any) -> Any:
    if isinstance(like, np.ndarray):
        return stored
    if isinstance(like, np.generic):
        return stored[()]
    if _is_key(like):
        return jax.random.wrap_key_data(jnp.array(stored), impl=entry["impl"])
    return jnp.array(stored)


def _check(folder: Path, stored: dict[str, Any], wanted: dict[str, Any], prefix: str) -> None:
    stored = {name: x for name, x in stored.items() if not prefix or name == prefix or name.startswith(f"{prefix}/")}
    expected = {name: _describe(x) for name, x in wanted.items()}
    for name in sorted(stored.keys() | expected.keys()):
        need, found = _say(expected.get(name)), _say(stored.get(name))
        if need != found:
            raise UserError(
                f"{folder}: `{name}` does not fit: expected {need}, found {found}.\n"
                "The checkpoint belongs to another configuration or version of cdred: "
                "use the settings in the run's config.yaml, or give another --out folder."
            )


def _say(entry: dict[str, Any] | None) -> str:
    return f"{entry['dtype']} of shape {tuple(entry['shape'])}" if entry else "nothing"


def _read_index(folder: Path) -> dict[str, Any]:
    try:
        index = json.loads((folder / INDEX).read_text())
        found = index["format"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{folder / INDEX} cannot be read ({error!r}).\n{_mend_damage(folder)}") from error
    if found != FORMAT:
        raise UserError(f"{folder / INDEX}: format {found}, this cdred reads {FORMAT}.\nUse the cdred that wrote it.")
    return index


def _mend_damage(folder: Path) -> str:
    return f"Remove the folder {folder.name} to go on from the checkpoint before it, or start anew in another folder."


def _steps(root: Path, other_than: Path | None = None) -> list[Path]:
    folders = (path for path in root.glob("[0-9]*") if path.name.isdigit() and path != other_than)
    return sorted(folders, key=lambda path: int(path.name))


def _publish(draft: Path, final: Path) -> None:
    for path in (draft / ARRAYS, draft / INDEX, draft):
        _flush(path)
    if final.exists():  # a folder that is not empty cannot be replaced in one stroke
        _discard(final)
    draft.rename(final)
    _flush(final.parent)


def _discard(folder: Path) -> None:
    """Take the name away first: a removal that is cut short must not leave half a checkpoint under a good name."""
    doomed = folder.rename(folder.with_name(f"{UNFINISHED}removed-{folder.name}"))
    shutil.rmtree(doomed)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
