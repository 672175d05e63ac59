"""Limits on untrusted files: memory in proportion to the file's size, and no access outside the dataset's folder."""

import os
from pathlib import Path, PurePath

from cdred.errors import UserError
from cdred.host_memory import host_memory

# Images of a nearly static scene compress about fifty times; only zeros and flags, of which no file holds much,
# compress a thousand times.
MAX_COMPRESSION_RATIO = 256
MIN_ALLOWED_BYTES = 64 * 2**20


def check_expanded_size(declared: int, stored: int, location: str) -> None:
    """Check that `declared` bytes of content are plausible for `stored` bytes on disk and fit into memory.

    Call it before anything is allocated.

    Raises:
        UserError: they are not, or do not.
    """
    if declared > max(MAX_COMPRESSION_RATIO * stored, MIN_ALLOWED_BYTES):
        raise UserError(
            f"{location}: it declares {declared:,} bytes of content but has {stored:,} on disk; more than "
            f"{MAX_COMPRESSION_RATIO} times as many is treated as a decompression bomb.\n"
            "If the content is real, store it with less compression."
        )
    check_fits_memory(declared, location)


def check_fits_memory(needed: int, location: str) -> None:
    """Check that this machine has `needed` bytes of memory.

    Raises:
        UserError: it has less.
    """
    memory = host_memory().total
    if needed > memory:
        raise UserError(f"{location}: it holds {needed:,} bytes, but this machine has {memory:,} of memory: split it.")


def check_symlinks(folder: Path) -> None:
    """Check that no symbolic link in `folder` points outside it.

    The cache of the Hugging Face hub stores files in `snapshots/<commit>` as links into `blobs` beside `snapshots`;
    those links are accepted.

    Raises:
        UserError: a link points elsewhere.
    """
    allowed = [folder.resolve()]
    snapshots = next((parent for parent in folder.resolve().parents if parent.name == "snapshots"), None)
    if snapshots:
        allowed.append(snapshots.parent / "blobs")
    for parent, folders, files in os.walk(folder):
        for entry in (Path(parent, name) for name in (*folders, *files)):
            if entry.is_symlink() and not any(entry.resolve().is_relative_to(root) for root in allowed):
                raise UserError(
                    f"{entry} is a link to {entry.resolve()}, outside the dataset's folder, and is not followed: "
                    "replace it by a copy."
                )


def check_relative_path(name: object, location: str) -> None:
    """Check that a file name in a dataset's metadata stays in the dataset's folder.

    Raises:
        UserError: it is absolute or contains `..`.
    """
    path = PurePath(str(name))
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"{location} names {path}, outside the dataset's folder: expected a path below it.")
