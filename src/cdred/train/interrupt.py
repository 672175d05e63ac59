"""Signal handling and the lock of the run folder."""

import fcntl
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from cdred.errors import UserError
from cdred.files import write_error

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LOCK = ".lock"


class SignalHandler:
    """Handler of Ctrl-C and SIGTERM, which the training loop polls between two blocks of steps.

    Attributes:
        received: the first signal since the handler was installed, or None.
    """

    def __init__(self):
        self.received: signal.Signals | None = None

    @contextmanager
    def installed(self) -> Iterator["SignalHandler"]:
        """Record the first signal; a second one has its default effect. Does nothing outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _handle(self, number: int, _frame: object) -> None:
        self.received = signal.Signals(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Create a run folder and lock it against other processes. The lock is released when the process ends.

    Raises:
        UserError: another process holds the lock, or the folder is not writable.
    """
    with _open_lock(folder) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip() or "another process"
            raise UserError(f"{folder} is in use by {owner}.\nWait until it ends, or give another --out.") from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()}")
        lock.flush()
        yield


def _open_lock(folder: Path) -> TextIO:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # An existing lock file may be writable in a folder where no file can be created.
        with tempfile.TemporaryFile(dir=folder):
            return (folder / LOCK).open("a+")
    except OSError as error:
        raise write_error(folder, error) from error
