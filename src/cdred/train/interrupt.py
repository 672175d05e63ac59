"""Being told to stop, and being the only one: what a run owes to the machine it shares."""

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


class Stop:
    """Whether Ctrl-C or SIGTERM has come since `listening` began; asked by the loop between two `learn` calls."""

    def __init__(self):
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    @contextmanager
    def listening(self) -> Iterator["Stop"]:
        """Take signals down instead of dying of them; the second one does as always. Only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._take) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take(self, number: int, _frame: object) -> None:
        self.signal = signal.Signals(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Make a run's folder and hold it against other processes. The lock goes with the process, however it dies.

    Raises:
        UserError: another process is training there, or nothing can be written there.
    """
    with _lock_in(folder) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            who = lock.read().strip() or "another process"
            raise UserError(f"{folder} is being trained in by {who}.\nWait for it, or give another --out.") from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()}")
        lock.flush()
        yield


def _lock_in(folder: Path) -> TextIO:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A lock that is there already may be opened where no file can be made.
        with tempfile.TemporaryFile(dir=folder):
            return (folder / LOCK).open("a+")
    except OSError as error:
        raise write_error(folder, error) from error
