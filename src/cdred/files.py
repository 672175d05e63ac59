"""Files and folders that appear whole or not at all, and clear words where they cannot be written.

Before work whose result has to go somewhere, the `refuse_...` ask whether it can. `new_folder` and `new_file` make what
was not there. `replace` renews a small text and, like `write` and `flush`, brings it down to the disk itself: what a
run goes on from has to outlive a power cut. What the disk refuses meanwhile, `disk_errors` and `write_error` tell.
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

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def check_new_path(path: Path) -> None:
    """Check that something new can be written to `path`.

    Raises:
        UserError: there is something already, and it is not an empty folder; or as `check_writable_parent`.
    """
    check_writable_parent(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} exists already: remove it, or save elsewhere.")


def check_writable_parent(path: Path) -> None:
    """Check that `path` can be written to once the folders above it are made.

    Raises:
        UserError: what is there of them is not a folder, or may not be written to.
    """
    above = _nearest(path.absolute().parent)
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise UserError(f"{path} cannot be written: {above} is not a folder that you may write to. Name another place.")


def check_output_file(path: Path | None) -> None:
    """As `check_writable_parent`, for a file that may be there and is written anew; None asks for nothing.

    Raises:
        UserError: it cannot, or there is a folder.
    """
    if path is None:
        return
    check_writable_parent(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder, expected the name of a file.")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `path` when the body has finished.

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
    """A file to write into, which becomes `path` when the body has finished.

    Raises:
        UserError: there is something at `path`.
    """
    if path.exists():
        raise UserError(f"{path} exists already: remove it, or save elsewhere.")
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


def replace(path: Path, text: str) -> None:
    """Make `text` the content of `path` in one stroke: whoever looks, or dies, meanwhile leaves the old or the new."""
    draft = path.with_name(f".{path.name}.unfinished")
    try:
        write(draft, text.encode())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    flush(path.parent)


def write(path: Path, data: bytes) -> None:
    """Write a file that nobody looks at yet, down to the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def flush(path: Path) -> None:
    """Bring a file's content, or a folder's names, to the disk itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn a disk that is full, or has become read-only, into words.

    Raises:
        UserError: writing under `folder` failed for such a reason.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM | {errno.EROFS}:
            raise
        raise write_error(folder, error) from error


def write_error(folder: Path, error: OSError, needed: int | None = None) -> UserError:
    """The error to raise when something of `needed` bytes could not be written under `folder`."""
    what = f"{folder}: cannot be written to ({error.strerror or error})."
    if error.errno not in NO_ROOM:
        return UserError(f"{what}\nMake it writable and give the same command, or give another --out.")
    need = "" if needed is None else f"It takes {format_mib(needed)}, and "
    free = f"{format_mib(shutil.disk_usage(_nearest(folder.absolute())).free)} are free there. "
    return UserError(f"{what}\n{need}{free}Free some space and give the same command: it goes on from the last save.")


def format_mib(size: float) -> str:
    """A number of bytes in words."""
    return f"{size / 2**20:,.1f} MiB"


def _nearest(path: Path) -> Path:
    """The absolute `path`, or what there is of it."""
    return next(one for one in (path, *path.parents) if one.exists())
