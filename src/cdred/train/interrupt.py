"""Signal handling and the lock of the run folder."""

import fcntl
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from cdred.errors import UserError
from cdred.files import write_error

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LOCK = ".lock"
FIRST_ANSWER = "stopping after this step; Ctrl-C again stops now, without saving."
SECOND_ANSWER = "stopped now; the same command resumes from the last checkpoint."
# Seconds for the main thread to handle the second signal, unless it is in a compilation.
STOP_SECONDS = 1.0


class SignalHandler:
    """Handler of Ctrl-C and SIGTERM, which the training loop polls between two blocks of steps.

    Python runs signal handlers between two of its instructions, and a compilation is one of them. A thread, which the
    operating system's handler wakes through a pipe, answers at once.

    Attributes:
        received: the first signal since the handler was installed, or None.
    """

    def __init__(self):
        self.received: signal.Signals | None = None
        self._stopping = threading.Event()

    @contextmanager
    def installed(self) -> Iterator["SignalHandler"]:
        """Record the first signal; a second one ends the run at once. Does nothing outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        try:
            with self._answered():
                yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _handle(self, number: int, _frame: object) -> None:
        self.received = signal.Signals(number)
        signal.signal(signal.SIGINT, self._stop_now)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _stop_now(self, _number: int, _frame: object) -> None:
        self._stopping.set()
        raise KeyboardInterrupt

    @contextmanager
    def _answered(self) -> Iterator[None]:
        """Run the thread that answers signals."""
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        previous = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        thread = threading.Thread(target=self._answer, args=(read_end,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            signal.set_wakeup_fd(previous)
            os.close(write_end)  # ends the thread
            thread.join()
            os.close(read_end)

    def _answer(self, read_end: int) -> None:
        """Answer the first signal, and end the process at the second one unless the main thread is about to."""
        answered = False
        while data := os.read(read_end, 1):
            number = data[0]
            if number not in SIGNALS:
                continue
            if not answered:
                _tell(FIRST_ANSWER)
                answered = True
            elif not self._stopping.wait(STOP_SECONDS):
                _tell(SECOND_ANSWER)
                os._exit(128 + number)


def _tell(text: str) -> None:
    with suppress(OSError, ValueError):
        # The dashboard hides the cursor.
        show_cursor = "\x1b[?25h" * sys.stderr.isatty() * (text == SECOND_ANSWER)
        print(f"{show_cursor}cdred: {text}", file=sys.stderr, flush=True)


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


def lock_owner(folder: Path) -> str | None:
    """Return which process holds the lock of a run folder; None if none does."""
    path = folder / LOCK
    if not path.exists():
        return None
    with path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return lock.read().strip() or "another process"
    return None


def _open_lock(folder: Path) -> TextIO:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # An existing lock file may be writable in a folder where no file can be created.
        with tempfile.TemporaryFile(dir=folder):
            return (folder / LOCK).open("a+")
    except OSError as error:
        raise write_error(folder, error) from error
