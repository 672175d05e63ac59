"""What foreign files may ask for: memory in proportion to their size, and nothing outside of their folder."""

import os
from pathlib import Path, PurePath

from cdred.errors import UserError

# Numbers that do compress are pictures of a scene that hardly changes, some fifty times, and flags and zeros, a
# thousand times, of which no file has many.
RATIO = 256
ALWAYS = 64 * 2**20


def check_expanded_size(declared: int, stored: int, where: str) -> None:
    """Check that `declared` bytes of content can be meant by `stored` bytes on the disk, and fit into the memory.

    To be called before anything is allocated.

    Raises:
        UserError: they cannot.
    """
    most = max(RATIO * stored, ALWAYS)
    if declared > most:
        raise UserError(
            f"{where}: it says to hold {declared:,} bytes of content, but has {stored:,} on the disk; more than "
            f"{RATIO} times as many is taken for a bomb.\nIf it is meant, store it with less compression."
        )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if declared > memory:
        raise UserError(f"{where}: it holds {declared:,} bytes, but this machine has {memory:,} of memory: split it.")


def check_symlinks(folder: Path) -> None:
    """Check that no symbolic link in `folder` leads out of it.

    The cache of the Hugging Face hub is made of links, from `snapshots/<commit>` to `blobs` beside `snapshots`; those
    are as good as files.

    Raises:
        UserError: one does.
    """
    inside = [folder.resolve()]
    if folder.resolve().parent.name == "snapshots":
        inside.append(folder.resolve().parents[1] / "blobs")
    for place, folders, files in os.walk(folder):
        for entry in (Path(place, name) for name in (*folders, *files)):
            if entry.is_symlink() and not any(entry.resolve().is_relative_to(one) for one in inside):
                raise UserError(
                    f"{entry} is a link to {entry.resolve()}, outside of the dataset's folder, and is not followed: "
                    "put a copy in its place."
                )


def check_relative_path(named: object, where: str) -> None:
    """Check that a file name in a dataset's metadata stays in the dataset's folder.

    Raises:
        UserError: it is absolute or climbs out.
    """
    path = PurePath(str(named))
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"{where} names {path}, outside of the dataset's folder: expected a path below it.")
