"""Faults in file operations: from the k-th change on, all changes in a folder fail, as after a kill or on a full disk.

Python reports file operations to audit hooks before it performs them; a hook that raises prevents the operation.
"""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CREATING = {"os.mkdir", "os.link", "os.rename"}
REMOVING = {"os.remove", "os.rmdir"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Killed(BaseException):
    """Raised instead of a kill; not an `Exception`, so that no code under test handles it."""


class DiskFaults:
    """Counter of changes in a folder. The `at`-th one and all later ones fail, except removals from a full disk."""

    active: "DiskFaults | None" = None

    def __init__(self, folder: Path, at: int | None, full: bool):
        self.folder, self.at, self.full, self.count = str(folder), at, full, 0
        self.last_opened: str | None = None

    def handle(self, event: str, args: tuple) -> None:
        if event == "open":
            path, _, flags = args
            if not flags & WRITING or not str(path).startswith(self.folder):
                return
            self.last_opened = str(path)
        elif event in CREATING | REMOVING:
            # `rmtree` passes file names relative to an open folder.
            inside = str(args[0]).startswith(self.folder) or not str(args[0]).startswith("/")
            if not inside or (self.full and event in REMOVING):
                return
            self.last_opened = None
        else:
            return
        self.count += 1
        if self.at is not None and self.count >= self.at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if self.full else Killed


def _hook(event: str, args: tuple) -> None:
    if DiskFaults.active is not None:
        DiskFaults.active.handle(event, args)


sys.addaudithook(_hook)


@contextmanager
def disk_faults(folder: Path, at: int | None = None, *, full: bool = False, torn: bool = False) -> Iterator[DiskFaults]:
    """Inject faults within the context.

    Args:
        folder: where changes are counted.
        at: the first change that fails; None to count only.
        full: fail as on a full disk instead of by a kill, which ends the context.
        torn: truncate the file that was being written when the kill came.
    """
    DiskFaults.active = faults = DiskFaults(folder, at, full)
    opened = None
    try:
        yield faults
    except Killed:
        opened = faults.last_opened
    finally:
        DiskFaults.active = None
    if torn and opened and Path(opened).exists():
        os.truncate(opened, Path(opened).stat().st_size // 2)
