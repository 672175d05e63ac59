"""A checkpoint is a folder that explains itself: `state.safetensors` and the replay's rows for the arrays,
`checkpoint.json` for the rest.

Nothing is pickled. A folder under its final name is complete: it is written under a temporary name, flushed to the
disk, and only then renamed, so a run killed at any moment leaves the previous checkpoint as the latest one. Rows of the
replay that have not changed since the previous checkpoint are files shared with it (hard links): each folder is whole
by itself all the same, and may be copied or removed alone.
"""

import json
import math
import os
import shutil
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jaxtyping import PyTree
from safetensors import SafetensorError, safe_open

from cdred.checkpoint import replay_shards
from cdred.data.replay_buffer import ReplayBuffer
from cdred.errors import UserError
from cdred.files import flush, write, write_error

FORMAT = 2
ARRAYS, INDEX = "state.safetensors", "checkpoint.json"
UNFINISHED, BEST = ".unfinished-", "best-"


class Size(NamedTuple):
    """Bytes of a checkpoint: of all its files, and of those that it does not share with an older one."""

    total: int
    written: int


def save(root: Path, step: int, state: PyTree, meta: dict[str, Any], keep: int = 2, since: Path | None = None) -> Path:
    """Write every array of `state` to `root/<step>/` and drop all but the newest `keep` checkpoints.

    Args:
        root: the run's `checkpoints` folder; made if absent.
        step: steps per seed so far; names the folder.
        state: any pytree. Array leaves (JAX, NumPy, typed PRNG keys) are stored under their path in the tree; all
            other leaves, Python numbers included, are static: `load` takes them from its `like`.
        meta: JSON-serialisable notes, handed back by `load`.
        keep: how many checkpoints stay, this one included.
        since: a checkpoint from which `state` has come, by nothing but the steps between. Rows of a `ReplayBuffer` that
            these have not touched are taken from its files.

    Returns:
        The checkpoint's folder.

    Raises:
        UserError: the disk is full or cannot be written to; the checkpoints before are as they were.
    """
    final = _write_folder(root, f"{step:09d}", step, state, meta, since)
    for old in _steps(root, other_than=final)[: max(0, len(_steps(root)) - keep)]:
        _discard(old)
    return final


def save_best(root: Path, step: int, state: PyTree, meta: dict[str, Any], score: list[float]) -> Path | None:
    """Keep `state` in `root/best-<step>/` in place of the best so far, if `score` is greater than that one's.

    Scores are compared as lists are; one that is not finite is never the best.

    Returns:
        The folder, None if the best so far stays.

    Raises:
        UserError: as `save`.
    """
    held, better = best(root), None
    if all(map(math.isfinite, score)) and (held is None or score > _score(held)):
        better = _write_folder(root, f"{BEST}{step:09d}", step, state, meta | {"score": score}, None)
    # Also where nothing was written: a kill may have left the one before.
    forget_best(root, other_than=better or held)
    return better


def latest(root: Path) -> Path | None:
    """The newest complete checkpoint under `root`, or None."""
    steps = _steps(root)
    return steps[-1] if steps else None


def best(root: Path) -> Path | None:
    """What `save_best` has kept under `root`, or None."""
    # Between two renames there are two: the greater score is the newer.
    return max(root.glob(f"{BEST}*"), key=_score, default=None)


def forget_best(root: Path, other_than: Path | None = None) -> None:
    """Remove what `save_best` has kept, for a run that begins anew."""
    for old in root.glob(f"{BEST}*"):
        if old != other_than:
            _discard(old)


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
        UserError: a file is damaged, or the folder holds other names, shapes or dtypes than `like`.
    """
    index = _read_index(folder)
    entries, wanted = index["arrays"], _named_arrays(like, prefix)
    _check(folder, entries, wanted, prefix)
    try:
        stored = _read_arrays(folder, index, wanted.keys())
        restored = [_restore(stored.pop(name), entries[name], x) for name, x in wanted.items()]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{folder / ARRAYS} is damaged ({error}).\n{_mend_damage(folder)}") from error
    arrays, static = eqx.partition(like, _is_array)
    return eqx.combine(jax.tree.unflatten(jax.tree.structure(arrays), restored), static), index["meta"]


def load_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Every stored array by its path in the state, for whoever wants to look into it; of PRNG keys, the words.

    Raises:
        UserError: a file is damaged.
    """
    index = _read_index(folder)
    return _read_arrays(folder, index, index["arrays"].keys())


def size(folder: Path) -> Size:
    """How large a checkpoint is, by its own account."""
    index = _read_index(folder)
    files = index["files"].values()
    written = sum(file["bytes"] for file in files if file["step"] == index["step"])
    return Size(sum(file["bytes"] for file in files), written)


def _write_folder(root: Path, name: str, step: int, state: PyTree, meta: dict[str, Any], since: Path | None) -> Path:
    named, earlier = _named_arrays(state), _earlier(since)
    cuts = [replay_shards.ReplayShards(path, replay) for path, replay in _replays(state).items()]
    touched = {cut.path: _touched(cut, earlier, step) for cut in cuts}
    apart = {f"{cut.path}/{field}" for cut in cuts for field in replay_shards.FIELDS}
    data = safetensors.numpy.save(_on_host({other: x for other, x in named.items() if other not in apart}))
    needed = len(data) + sum(len(touched[cut.path]) * cut.size * cut.row_bytes for cut in cuts)
    index = {"format": FORMAT, "step": step, "meta": meta, "replays": {cut.path: cut.about() for cut in cuts}}
    final, draft = root / name, root / f"{UNFINISHED}{name}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        for leftover in root.glob(f"{UNFINISHED}*"):
            shutil.rmtree(leftover)
        draft.mkdir()
        files = {ARRAYS: _put(draft / ARRAYS, data, step)}
        for cut in cuts:
            files |= _put_rows(draft, cut, touched[cut.path], step, since, earlier)
        index |= {"files": files, "arrays": {other: _describe(x) for other, x in named.items()}}
        write(draft / INDEX, (json.dumps(index | {"crc32": _crc_of(index)}, indent=1) + "\n").encode())
        _publish(draft, final)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise write_error(root, error, needed) from error
    return final


def _replays(state: PyTree) -> dict[str, ReplayBuffer]:
    nodes, _ = jax.tree_util.tree_flatten_with_path(state, is_leaf=lambda node: isinstance(node, ReplayBuffer))
    return {_path(path): node for path, node in nodes if isinstance(node, ReplayBuffer)}


def _earlier(since: Path | None) -> dict[str, Any] | None:
    """The index of the checkpoint before; without it, or if it was removed meanwhile, everything is written."""
    try:
        return _read_index(since) if since else None
    except UserError:
        return None


def _touched(cut: replay_shards.ReplayShards, earlier: dict[str, Any] | None, step: int) -> set[str]:
    about = earlier["replays"].get(cut.path) if earlier else None
    if earlier is None or about is None or about["rows_per_file"] != cut.size:
        return cut.occupied()
    return cut.touched(about, -(-(step - earlier["step"]) // cut.replay.head.shape[-1]))


def _put_rows(
    draft: Path,
    cut: replay_shards.ReplayShards,
    touched: set[str],
    step: int,
    since: Path | None,
    earlier: dict[str, Any] | None,
) -> dict[str, dict[str, Any]]:
    """Write or share a replay's files; those that are in neither hold rows that were never written to."""
    files = {}
    for name in cut.parts:
        entry = earlier["files"].get(name) if earlier else None
        if name in touched or (entry and since and not _share(since / name, draft / name, entry["bytes"])):
            entry = _put(draft / name, safetensors.numpy.save(cut.fetch(name)), step)
        if entry:
            files[name] = entry
    return files


def _share(source: Path, target: Path, size: int) -> bool:
    """Give a file of an older checkpoint a second name; False if it is no longer what it was."""
    try:
        if source.stat().st_size != size:
            return False
    except FileNotFoundError:
        return False
    try:
        os.link(source, target)
    except OSError:  # not every file system has links
        shutil.copyfile(source, target)
        flush(target)
    return True


def _put(path: Path, data: bytes, step: int) -> dict[str, Any]:
    """Write a file; its entry in the index: `step` tells a later save's reader which save has written it."""
    write(path, data)
    return {"bytes": len(data), "crc32": zlib.crc32(data), "step": step}


def _on_host(named: dict[str, Any]) -> dict[str, np.ndarray]:
    host = jax.device_get({name: jax.random.key_data(x) if _is_key(x) else x for name, x in named.items()})
    # safetensors copies raw memory, so a transposed view would be stored scrambled.
    return {name: np.asarray(x, order="C") for name, x in host.items()}


def _read_arrays(folder: Path, index: dict[str, Any], names: Iterable[str]) -> dict[str, np.ndarray]:
    """The arrays of these names, from as few files as hold them."""
    names, found = set(names), {}
    for path, cut in index["replays"].items():
        entries = {f"{path}/{field}": index["arrays"][f"{path}/{field}"] for field in replay_shards.FIELDS}
        if names & entries.keys():
            firsts = {name: replay_shards.first_row(path, name) for name in index["files"]}
            parts = ((first, _get(folder, name, index)) for name, first in firsts.items() if first is not None)
            found |= replay_shards.join(entries, cut["axis"], parts)
    if names - found.keys():
        found |= _get(folder, ARRAYS, index)
    return {name: found[name] for name in names}


def _get(folder: Path, name: str, index: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays in a file that is, to the last bit, the one that was written."""
    try:
        data = (folder / name).read_bytes()
        if zlib.crc32(data) != index["files"][name]["crc32"]:
            raise ValueError(f"{len(data):,} bytes with another checksum than when they were written")
        # Not safetensors.numpy.load: it does not know bfloat16.
        with safe_open(folder / name, framework="np") as stored:
            return {array: stored.get_tensor(array) for array in stored.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder / name} is damaged ({error}).\n{_mend_damage(folder)}") from error


def _is_array(leaf: object) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct))


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _named_arrays(tree: PyTree, prefix: str = "") -> dict[str, Any]:
    """Array leaves by readable path, e.g. `learner/model/encoder/0/weight`, in the tree's own order."""
    paths, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(tree, _is_array))
    parts = [(_path(path), leaf) for path, leaf in paths]
    named = {"/".join(filter(None, (prefix, name))): leaf for name, leaf in parts}
    assert len(named) == len(parts), "two leaves of the state share a path: a dict key contains '/'"
    return named


def _path(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _describe(leaf: Any) -> dict[str, Any]:
    """Shape and dtype as the program sees them: a key is a key here, though its words are stored as uint32."""
    entry = {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}
    if _is_key(leaf) and isinstance(leaf, jax.Array):
        entry["impl"] = str(jax.random.key_impl(leaf))
    return entry


def _restore(stored: np.ndarray, entry: dict[str, Any], like: Any) -> Any:
    if _is_key(like):
        restored = jax.random.wrap_key_data(jnp.array(stored), impl=entry["impl"])
    elif isinstance(like, np.generic):
        restored = stored[()]
    else:
        restored = stored if isinstance(like, np.ndarray) else jnp.array(stored)
    if (restored.shape, str(restored.dtype)) != (like.shape, str(like.dtype)):
        raise ValueError(f"{stored.dtype} of shape {stored.shape} where {INDEX} says {_say(entry)}")
    return restored


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
        if found == FORMAT:
            _check_index(index)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{folder / INDEX} cannot be read ({error!r}).\n{_mend_damage(folder)}") from error
    if found != FORMAT:
        raise UserError(f"{folder / INDEX}: format {found}, this cdred reads {FORMAT}.\nUse the cdred that wrote it.")
    if index.pop("crc32", None) != _crc_of(index):
        raise UserError(f"{folder / INDEX} is damaged (another checksum than it says).\n{_mend_damage(folder)}")
    return index


def _crc_of(index: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(index).encode())


def _check_index(index: dict[str, Any]) -> None:
    """Raises AttributeError, KeyError or TypeError where it is not as `save` writes it."""
    for entry in index["arrays"].values():
        _say(entry)
    for mapping in (index["meta"], index["replays"], *index["files"].values()):
        mapping.items()


def _mend_damage(folder: Path) -> str:
    return f"Remove the folder {folder.name} to go on from the checkpoint before it, or start anew in another folder."


def _score(folder: Path) -> list[float]:
    return _read_index(folder)["meta"]["score"]


def _steps(root: Path, other_than: Path | None = None) -> list[Path]:
    folders = (path for path in root.glob("[0-9]*") if path.name.isdecimal() and path != other_than)
    return sorted(folders, key=lambda path: int(path.name))


def _publish(draft: Path, final: Path) -> None:
    flush(draft)
    if final.exists():  # a folder that is not empty cannot be replaced in one stroke
        _discard(final)
    draft.rename(final)
    flush(final.parent)


def _discard(folder: Path) -> None:
    """Take the name away first: a removal that is cut short must not leave half a checkpoint under a good name."""
    try:
        doomed = folder.rename(folder.with_name(f"{UNFINISHED}removed-{folder.name}"))
        shutil.rmtree(doomed)
    except OSError as error:
        raise write_error(folder.parent, error) from error
