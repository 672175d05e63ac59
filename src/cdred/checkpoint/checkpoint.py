"""Checkpoints: folders with `state.safetensors` and replay shards for the arrays, and `checkpoint.json` for the rest.

Nothing is pickled. A folder under its final name is complete: it is written under a temporary name, flushed to disk and
only then renamed, so a run killed at any moment leaves the previous checkpoint as the latest one. Replay shards that
have not changed since the previous checkpoint are hard links to its files, so every folder can be copied or removed on
its own.
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
import numpy as np
import safetensors.numpy
from jaxtyping import PyTree
from safetensors import SafetensorError, safe_open

from cdred.checkpoint import replay_shards
from cdred.checkpoint.arrays import describe, format_entry, is_array, named_arrays, path_name, restore, to_host
from cdred.checkpoint.replay_shards import ReplayShards
from cdred.data.replay_buffer import ReplayBuffer
from cdred.errors import UserError
from cdred.files import fsync, write_error, write_synced

FORMAT = 5
ARRAYS, INDEX = "state.safetensors", "checkpoint.json"
UNFINISHED, BEST = ".unfinished-", "best-"


class CheckpointSize(NamedTuple):
    """Bytes of all files of a checkpoint, and of those that it does not share with an older one."""

    total: int
    written: int


def save(root: Path, step: int, state: PyTree, meta: dict[str, Any], keep: int = 2, base: Path | None = None) -> Path:
    """Write every array of `state` to `root/<step>/` and delete all but the newest `keep` checkpoints.

    Args:
        root: the `checkpoints` folder of the run; created if absent.
        step: env steps per seed so far; names the folder.
        state: any pytree. Array leaves (JAX, NumPy, typed PRNG keys) are stored under their path in the tree; all other
            leaves, Python numbers included, are static: `load` takes them from its `like`.
        meta: JSON-serialisable metadata, returned by `load`.
        keep: number of checkpoints to keep, this one included.
        base: a checkpoint of the same run at an earlier step. Shards of a `ReplayBuffer` that have not changed since
            are shared with it.

    Returns:
        The folder of the checkpoint.

    Raises:
        UserError: the disk is full or not writable; the earlier checkpoints are unaffected.
    """
    final = _write_folder(root, f"{step:09d}", step, state, meta, base)
    for old in _steps(root, other_than=final)[: max(0, len(_steps(root)) - keep)]:
        _delete(old)
    return final


def save_best(root: Path, step: int, state: PyTree, meta: dict[str, Any], score: list[float]) -> Path | None:
    """Save `state` to `root/best-<step>/` in place of the best checkpoint so far, if `score` is greater.

    Scores are compared lexicographically; a score that is not finite is never the best.

    Returns:
        The folder; None if the best checkpoint so far stays.

    Raises:
        UserError: as `save`.
    """
    previous, saved = best(root), None
    if all(map(math.isfinite, score)) and (previous is None or score > _score(previous)):
        saved = _write_folder(root, f"{BEST}{step:09d}", step, state, meta | {"score": score}, None)
    # Also if nothing was written: a killed run may have left two of them.
    remove_best(root, other_than=saved or previous)
    return saved


def latest(root: Path) -> Path | None:
    """Find the newest complete checkpoint under `root`."""
    steps = _steps(root)
    return steps[-1] if steps else None


def complete(root: Path) -> list[Path]:
    """Find all complete checkpoints under `root`, the oldest first, that of the best evaluation last."""
    kept = best(root)
    return _steps(root) + ([kept] if kept else [])


def best(root: Path) -> Path | None:
    """Find the checkpoint that `save_best` keeps under `root`."""
    # A run killed during `save_best` leaves two of them: the one with the greater score is the newer.
    return max(root.glob(f"{BEST}*"), key=_score, default=None)


def remove_best(root: Path, other_than: Path | None = None) -> None:
    """Delete the checkpoints of `save_best`."""
    for old in root.glob(f"{BEST}*"):
        if old != other_than:
            _delete(old)


def load(folder: Path, like: PyTree, prefix: str = "") -> tuple[PyTree, dict[str, Any]]:
    """Load a state, bitwise identical to the saved one.

    Args:
        folder: result of `save`.
        like: pytree with the structure, shapes and dtypes of the state. Its array leaves may be arrays or
            `jax.ShapeDtypeStruct`s, which need not be allocated. Its static leaves are returned unchanged.
        prefix: path of a subtree (`"learner"`): `like` is then that subtree, and only it is read from disk.

    Returns:
        The state and the `meta` given to `save`.

    Raises:
        UserError: a file is damaged, or the checkpoint has other names, shapes or dtypes than `like`.
    """
    index = _read_index(folder)
    entries, wanted = index["arrays"], named_arrays(like, prefix)
    _check_structure(folder, entries, wanted, prefix)
    try:
        stored = _read_arrays(folder, index, wanted.keys())
        restored = [restore(stored.pop(name), entries[name], x) for name, x in wanted.items()]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{folder / ARRAYS} is damaged ({error}).\n{_recovery_hint(folder)}") from error
    arrays, static = eqx.partition(like, is_array)
    return eqx.combine(jax.tree.unflatten(jax.tree.structure(arrays), restored), static), index["meta"]


def load_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Load every array by its path in the state, PRNG keys as their data; for inspection.

    Raises:
        UserError: a file is damaged.
    """
    index = _read_index(folder)
    return _read_arrays(folder, index, index["arrays"].keys())


def read_meta(folder: Path) -> dict[str, Any]:
    """Return the `meta` given to `save`.

    Raises:
        UserError: the index is damaged.
    """
    return _read_index(folder)["meta"]


def read_shape(folder: Path, name: str) -> tuple[int, ...] | None:
    """Return the shape of an array by its path in the state; None if the checkpoint has no such array.

    Raises:
        UserError: the index is damaged.
    """
    entry = _read_index(folder)["arrays"].get(name)
    return tuple(entry["shape"]) if entry else None


def size(folder: Path) -> CheckpointSize:
    """Return the size of a checkpoint according to its index."""
    index = _read_index(folder)
    files = index["files"].values()
    written = sum(file["bytes"] for file in files if file["step"] == index["step"])
    return CheckpointSize(sum(file["bytes"] for file in files), written)


def files(folder: Path) -> dict[str, dict[str, int]]:
    """Return `bytes` and `crc32` of the files of a checkpoint, by name: `ARRAYS`, and those of the replay buffer."""
    return _read_index(folder)["files"]


def check_resumable(folder: Path) -> None:
    """Check that the files of the replay buffer exist, which resuming reads and evaluating does not.

    Raises:
        UserError: one is missing, as in a run that was pushed without them; or the index is damaged.
    """
    missing = next((name for name in files(folder) if not (folder / name).exists()), None)
    if missing:
        raise UserError(
            f"{folder} has no {missing}, a part of the replay buffer, so that the run cannot be resumed, only "
            "evaluated.\nPull one that was pushed with `cdred push --replay-buffer`, or give another --out."
        )


def _write_folder(root: Path, name: str, step: int, state: PyTree, meta: dict[str, Any], base: Path | None) -> Path:
    named, base_index = named_arrays(state), _base_index(base)
    buffers = [ReplayShards(path, replay) for path, replay in _replays(state).items()]
    dirty = {shards.path: _dirty_files(shards, base_index, step) for shards in buffers}
    sharded = {array for shards in buffers for array in named if replay_shards.has_rows(array, shards.path)}
    data = safetensors.numpy.save(to_host({array: x for array, x in named.items() if array not in sharded}))
    needed = len(data) + sum(len(dirty[shards.path]) * shards.shard_rows * shards.row_bytes for shards in buffers)
    replays = {shards.path: shards.metadata() for shards in buffers}
    index = {"format": FORMAT, "step": step, "meta": meta, "replays": replays}
    final, draft = root / name, root / f"{UNFINISHED}{name}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        for leftover in root.glob(f"{UNFINISHED}*"):
            shutil.rmtree(leftover)
        draft.mkdir()
        files = {ARRAYS: _write_file(draft / ARRAYS, data, step)}
        for shards in buffers:
            files |= _write_shards(draft, shards, dirty[shards.path], step, base, base_index)
        index |= {"files": files, "arrays": {array: describe(x) for array, x in named.items()}}
        write_synced(draft / INDEX, (json.dumps(index | {"crc32": _index_crc(index)}, indent=1) + "\n").encode())
        _commit(draft, final)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise write_error(root, error, needed) from error
    return final


def _replays(state: PyTree) -> dict[str, ReplayBuffer]:
    nodes, _ = jax.tree_util.tree_flatten_with_path(state, is_leaf=lambda node: isinstance(node, ReplayBuffer))
    return {path_name(path): node for path, node in nodes if isinstance(node, ReplayBuffer)}


def _base_index(base: Path | None) -> dict[str, Any] | None:
    """Read the index of the base checkpoint; None if it was deleted, in which case all shards are written."""
    try:
        return _read_index(base) if base else None
    except UserError:
        return None


def _dirty_files(shards: ReplayShards, base_index: dict[str, Any] | None, step: int) -> set[str]:
    metadata = base_index["replays"].get(shards.path) if base_index else None
    if base_index is None or metadata is None or metadata["rows_per_file"] != shards.shard_rows:
        return shards.nonempty()
    return shards.dirty(metadata, -(-(step - base_index["step"]) // shards.replay.insert_index.shape[-1]))


def _write_shards(
    draft: Path,
    shards: ReplayShards,
    dirty: set[str],
    step: int,
    base: Path | None,
    base_index: dict[str, Any] | None,
) -> dict[str, dict[str, Any]]:
    """Write the dirty shards and link those of the base; shards in neither are empty and have no file."""
    files = {}
    for name in shards.row_ranges:
        entry = base_index["files"].get(name) if base_index else None
        if name in dirty or (entry and base and not _link_or_copy(base / name, draft / name, entry["bytes"])):
            entry = _write_file(draft / name, safetensors.numpy.save(shards.read(name)), step)
        if entry:
            files[name] = entry
    return files


def _link_or_copy(source: Path, target: Path, size: int) -> bool:
    """Link a file of an older checkpoint; return False if it is missing or has another size."""
    try:
        if source.stat().st_size != size:
            return False
    except FileNotFoundError:
        return False
    try:
        os.link(source, target)
    except OSError:  # not every file system has links
        shutil.copyfile(source, target)
        fsync(target)
    return True


def _write_file(path: Path, data: bytes, step: int) -> dict[str, Any]:
    """Write a file and return its entry in the index; `step` is that of the save that wrote it."""
    write_synced(path, data)
    return {"bytes": len(data), "crc32": zlib.crc32(data), "step": step}


def _read_arrays(folder: Path, index: dict[str, Any], names: Iterable[str]) -> dict[str, np.ndarray]:
    """Read the arrays `names` from the files that hold them."""
    names, arrays = set(names), {}
    for path, metadata in index["replays"].items():
        entries = {array: entry for array, entry in index["arrays"].items() if replay_shards.has_rows(array, path)}
        if names & entries.keys():
            first_rows = {name: replay_shards.first_row(path, name) for name in index["files"]}
            files = ((first, name) for name, first in first_rows.items() if first is not None)
            shards = ((first, _read_file(folder, name, index)) for first, name in files)
            arrays |= replay_shards.merge(entries, metadata["axis"], shards)
    if names - arrays.keys():
        arrays |= _read_file(folder, ARRAYS, index)
    return {name: arrays[name] for name in names}


def _read_file(folder: Path, name: str, index: dict[str, Any]) -> dict[str, np.ndarray]:
    """Read the arrays of a file and check its checksum."""
    try:
        data = (folder / name).read_bytes()
        if zlib.crc32(data) != index["files"][name]["crc32"]:
            raise ValueError(f"{len(data):,} bytes with another checksum than in {INDEX}")
        # Not safetensors.numpy.load, which does not support bfloat16.
        with safe_open(folder / name, framework="np") as stored:
            return {array: stored.get_tensor(array) for array in stored.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder / name} is damaged ({error}).\n{_recovery_hint(folder)}") from error


def _check_structure(folder: Path, stored: dict[str, Any], wanted: dict[str, Any], prefix: str) -> None:
    stored = {name: x for name, x in stored.items() if not prefix or name == prefix or name.startswith(f"{prefix}/")}
    expected = {name: describe(x) for name, x in wanted.items()}
    for name in sorted(stored.keys() | expected.keys()):
        need, found = format_entry(expected.get(name)), format_entry(stored.get(name))
        if need != found:
            raise UserError(
                f"{folder}: `{name}` does not fit: expected {need}, found {found}.\n"
                "The checkpoint belongs to another configuration or version of cdred: "
                "use the settings in the run's config.yaml, or give another --out folder."
            )


def _read_index(folder: Path) -> dict[str, Any]:
    try:
        index = json.loads((folder / INDEX).read_text())
        found = index["format"]
        if found == FORMAT:
            _check_index(index)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{folder / INDEX} cannot be read ({error!r}).\n{_recovery_hint(folder)}") from error
    if found != FORMAT:
        raise UserError(f"{folder / INDEX}: format {found}, this cdred reads {FORMAT}.\nUse the cdred that wrote it.")
    if index.pop("crc32", None) != _index_crc(index):
        raise UserError(f"{folder / INDEX} is damaged (its checksum does not match).\n{_recovery_hint(folder)}")
    return index


def _index_crc(index: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(index).encode())


def _check_index(index: dict[str, Any]) -> None:
    """Raise AttributeError, KeyError or TypeError if the index has another structure than `save` writes."""
    for entry in index["arrays"].values():
        format_entry(entry)
    for mapping in (index["meta"], index["replays"], *index["files"].values()):
        mapping.items()


def _recovery_hint(folder: Path) -> str:
    return f"Remove the folder {folder.name} to resume from the previous checkpoint, or start a run in another folder."


def _score(folder: Path) -> list[float]:
    return _read_index(folder)["meta"]["score"]


def _steps(root: Path, other_than: Path | None = None) -> list[Path]:
    folders = (path for path in root.glob("[0-9]*") if path.name.isdecimal() and path != other_than)
    return sorted(folders, key=lambda path: int(path.name))


def _commit(draft: Path, final: Path) -> None:
    fsync(draft)
    if final.exists():  # a non-empty folder cannot be replaced atomically
        _delete(final)
    draft.rename(final)
    fsync(final.parent)


def _delete(folder: Path) -> None:
    """Rename a folder, then remove it: an interrupted removal must not leave an incomplete checkpoint."""
    try:
        renamed = folder.rename(folder.with_name(f"{UNFINISHED}removed-{folder.name}"))
        shutil.rmtree(renamed)
    except OSError as error:
        raise write_error(folder.parent, error) from error
