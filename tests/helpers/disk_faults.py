"""The k-th change to the files of a folder fails: by a kill, after which nothing changes any more, or by a full disk.

Python announces what it is about to do to a file to audit hooks, whoever asks it to; one that raises prevents it.
"""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAKES = {"os.mkdir", "os.link", "os.rename"}
REMOVES = {"os.remove", "os.rmdir"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Killed(BaseException):
    """As little as `SIGKILL` is it an error that anyone handles."""


class Faults:
    """Counts changes under a folder; the `at`-th one and all later ones fail, but for removals from a full disk."""

    active: "Faults | None" = None

    def __init__(self, folder: Path, at: int | None, full: bool):
        self.folder, self.at, self.full, self.count = str(folder), at, full, 0
        self.last_opened: str | None = None

    def take(self, event: str, args: tuple) -> None:
        if event == "open":
            path, _, flags = args
            if not flags & WRITING or not str(path).startswith(self.folder):
                return
            self.last_opened = str(path)
        elif event in MAKES | REMOVES:
            # `rmtree` names a file relative to an open folder.
            inside = str(args[0]).startswith(self.folder) or not str(args[0]).startswith("/")
            if not inside or (self.full and event in REMOVES):
                return
            self.last_opened = None
        else:
            return
        self.count += 1
        if self.at is not None and self.count >= self.at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if self.full else Killed


def _hook(event: str, args: tuple) -> None:
    if Faults.active is not None:
        Faults.active.take(event, args)


sys.addaudithook(_hook)


@contextmanager
def faults(folder: Path, at: int | None = None, *, full: bool = False, torn: bool = False) -> Iterator[Faults]:
    """Within: nothing but counted without `at`. A kill ends here; `torn` leaves the file it hit half written."""
    Faults.active = found = Faults(folder, at, full)
    opened = None
    try:
        yield found
    except Killed:
        opened = found.last_opened
    finally:
        Faults.active = None
    if torn and opened and Path(opened).exists():
        os.truncate(opened, Path(opened).stat().st_size // 2)
