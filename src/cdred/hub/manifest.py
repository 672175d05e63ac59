"""Manifest of a pushed run: size and SHA-256 of every file, against which all that is pulled is verified."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from cdred.errors import UserError

MANIFEST, FORMAT = "manifest.json", 1
# Files of a repository that are not of the run: people edit the first, and the hub writes the second.
NOT_OF_THE_RUN = frozenset({"README.md", ".gitattributes", MANIFEST})
MAX_BYTES = 16 * 2**20
CHUNK = 2**20


class Entry(NamedTuple):
    """Size in bytes and SHA-256, in hexadecimal digits, of a file."""

    bytes: int
    sha256: str


def list_files(folder: Path, links_to: Path | None = None) -> dict[str, int]:
    """Return the size in bytes of every file in a folder, by its path below the folder, with `/`.

    Args:
        folder: the folder; links to folders are not entered.
        links_to: a folder into which links to files may point, as those of the hub's cache do.

    Raises:
        UserError: there is another link, or something that is no file.
    """
    sizes = {}
    for parent, folders, files in os.walk(folder):
        for entry in sorted(Path(parent, name) for name in (*folders, *files)):
            target = entry.resolve() if entry.is_symlink() else entry
            if target != entry and (links_to is None or not target.is_relative_to(links_to.resolve())):
                raise UserError(f"{entry} is a link, which is not followed: replace it by a copy.")
            if target.is_file():
                sizes[entry.relative_to(folder).as_posix()] = target.stat().st_size
            elif target != entry or not target.is_dir():
                raise UserError(f"{entry} is neither a file nor a folder: remove it.")
    return sizes


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(path: Path, links_to: Path | None = None) -> str:
    """Return the SHA-256 of a file, or of the names and hashes of all files in a folder."""
    if not path.is_dir():
        return hash_file(path)
    digest = hashlib.sha256()
    for name in sorted(list_files(path, links_to)):
        digest.update(f"{name}\0{hash_file(path / name)}\n".encode())
    return digest.hexdigest()


def write_manifest(folder: Path, version: str) -> dict[str, Entry]:
    """Write the manifest of the files in a folder, and return it.

    Args:
        folder: the files.
        version: of cdred, for readers.
    """
    sizes = {name: size for name, size in list_files(folder).items() if name not in NOT_OF_THE_RUN}
    entries = {name: Entry(size, hash_file(folder / name)) for name, size in sorted(sizes.items())}
    content = {"format": FORMAT, "cdred": version, "files": {name: entry._asdict() for name, entry in entries.items()}}
    (folder / MANIFEST).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return entries


def read_manifest(path: Path, source: str) -> dict[str, Entry]:
    """Read and check a manifest, which may come from anybody.

    Args:
        path: its file.
        source: where it is from, for messages.

    Raises:
        UserError: it is damaged, of another format, or names a file outside the run's folder.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES:,} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
        version, files = content["format"], content["files"]
        entries = {name: _entry(value) for name, value in files.items()} if version == FORMAT else {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{source}: {MANIFEST} cannot be read ({error}).\nPush the run again.") from error
    if version != FORMAT:
        raise UserError(f"{source}: {MANIFEST} has format {version!r}, this cdred reads {FORMAT}: use a newer cdred.")
    for name in entries:
        _check_name(name, source)
    if "config.yaml" not in entries:
        raise UserError(f"{source}: {MANIFEST} names no config.yaml, so that it is not that of a run.")
    return entries


def _entry(value: Mapping[str, Any]) -> Entry:
    entry = Entry(value["bytes"], value["sha256"])
    if type(entry.bytes) is not int or entry.bytes < 0 or not re.fullmatch("[0-9a-f]{64}", entry.sha256):
        raise ValueError("bytes and sha256 should be a number and 64 hexadecimal digits")
    return entry


def _check_name(name: str, source: str) -> None:
    path = PurePosixPath(name)
    safe = name.isprintable() and "\\" not in name and not path.is_absolute() and ".." not in path.parts
    if not safe or path.as_posix() != name or name in NOT_OF_THE_RUN | {"."}:
        raise UserError(f"{source}: {MANIFEST} names {name!r}, which is not a path below the run's folder: refused.")


def compare_names(found: Mapping[str, int | None], manifest: Mapping[str, Entry]) -> str | None:
    """Return the first difference in names and sizes between files and a manifest; None if there is none."""
    for name, size in found.items():
        if name not in manifest:
            return f"{name} is not in {MANIFEST}"
        if size not in (None, manifest[name].bytes):
            return f"{name} has {size:,} bytes, in {MANIFEST} {manifest[name].bytes:,}"
    missing = next((name for name in manifest if name not in found), None)
    return missing and f"{missing} is missing"


def copy_verified(source: Path, target: Path, entry: Entry) -> None:
    """Copy a file and verify what was copied.

    Raises:
        UserError: it is not the file of the manifest.
    """
    digest, size = hashlib.sha256(), 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as reader, target.open("xb") as writer:
        while size <= entry.bytes and (chunk := reader.read(CHUNK)):
            digest.update(chunk)
            size += writer.write(chunk)
    if (size, digest.hexdigest()) != entry:
        raise UserError(
            f"{source} is not the file that was pushed: its SHA-256 is not that of {MANIFEST}.\n"
            "Push or download it again."
        )
