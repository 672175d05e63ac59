"""Atomic creation of files and folders, and clear messages where they cannot be written.

`check_new_path`, `check_writable_parent` and `check_output_file` test a destination before the work that produces the
file. `new_folder` and `new_file` create what did not exist. `atomic_write_text` replaces a small text file. It, and
`write_synced` and `fsync`, flush to the disk, because the files that a run resumes from must survive a power failure.
`disk_errors` and `write_error` report a disk that is full or read-only.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cdred.errors import UserError

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def check_new_path(path: Path) -> None:
    """Check that something new can be written to `path`.

    Raises:
        UserError: `path` exists and is not an empty folder; or as `check_writable_parent`.
    """
    check_writable_parent(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} exists already: remove it, or choose another path.")


def check_writable_parent(path: Path) -> None:
    """Check that `path` can be written to once its parent folders are made.

    Raises:
        UserError: its nearest existing parent is not a folder, or is not writable.
    """
    parent = _nearest_existing(path.absolute().parent)
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(f"{path} cannot be written: {parent} is not a writable folder. Choose another path.")


def check_output_file(path: Path | None) -> None:
    """Check as `check_writable_parent` for a file that may exist and is overwritten; nothing is checked for None.

    Raises:
        UserError: the parent is not writable, or `path` is a folder.
    """
    if path is None:
        return
    check_writable_parent(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder, expected a file name.")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a folder to write into, which is renamed to `path` when the body has finished.

    Raises:
        UserError: `path` exists and is not an empty folder.
    """
    check_new_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        temporary.chmod(0o755)
        yield temporary
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write into, which is renamed to `path` when the body has finished.

    Raises:
        UserError: `path` exists.
    """
    if path.exists():
        raise UserError(f"{path} exists already: remove it, or choose another path.")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write_text(path: Path, text: str) -> None:
    """Replace the content of `path` by `text`; readers, also after a crash, see the old or the new content."""
    draft = path.with_name(f".{path.name}.unfinished")
    try:
        write_synced(draft, text.encode())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    fsync(path.parent)


def write_synced(path: Path, data: bytes) -> None:
    """Write a file that has no readers yet and flush it to the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def fsync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn errors of a full or read-only disk into `UserError`.

    Raises:
        UserError: writing under `folder` failed for such a reason.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL | {errno.EROFS}:
            raise
        raise write_error(folder, error) from error


def write_error(folder: Path, error: OSError, needed: int | None = None) -> UserError:
    """Return the error to raise when something of `needed` bytes could not be written under `folder`."""
    message = f"{folder}: cannot be written to ({error.strerror or error})."
    if error.errno not in DISK_FULL:
        return UserError(f"{message}\nMake it writable and run the same command, or choose another --out.")
    needed_text = "" if needed is None else f"It takes {format_mib(needed)}, and "
    free = f"{format_mib(shutil.disk_usage(_nearest_existing(folder.absolute())).free)} are free. "
    return UserError(f"{message}\n{needed_text}{free}Free some space and run the same command again.")


def format_mib(size: float) -> str:
    """Format a number of bytes in MiB."""
    return f"{size / 2**20:,.1f} MiB"


def _nearest_existing(path: Path) -> Path:
    """Return the absolute `path`, or its nearest parent that exists."""
    return next(candidate for candidate in (path, *path.parents) if candidate.exists())
