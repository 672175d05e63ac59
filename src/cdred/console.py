"""Output on the terminal: names and messages cannot control it, and a training goes on without it."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.progress import Progress
from rich.segment import Segment

from cdred.text import printable


class SafeConsole(Console):
    """Console that takes text literally: no markup, no emoji codes, and control characters are escaped.

    Args:
        options: as of `rich.console.Console`.
    """

    def __init__(self, **options: Any):
        super().__init__(markup=False, emoji=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of a renderable; those that are control codes of rich itself are unchanged."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


class OptionalOutput:
    """Text stream that discards all text after a failed write, with a notice on standard error.

    Writing fails when the reader has closed its pipe (`| head`), the terminal is gone, or the disk of a log is full.

    Args:
        stream: the output.
        notice: message on standard error after a failure.
    """

    def __init__(self, stream: TextIO, notice: str):
        self._stream, self._notice = stream, notice

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> None:
        """Write text, if the output still exists."""
        try:
            self._stream.write(text)
        except OSError as error:
            self._discard(error)

    def flush(self) -> None:
        """Flush what was written, if the output still exists."""
        try:
            self._stream.flush()
        except OSError as error:
            self._discard(error)

    def _discard(self, error: OSError) -> None:
        # Also what the stream has buffered, which would fail again when it is closed.
        discard_output(self._stream)
        with suppress(OSError):
            print(f"cdred: standard output cannot be written ({error.strerror}); {self._notice}", file=sys.stderr)


def discard_output(stream: TextIO) -> None:
    """Send what is written to a stream from now on, and what it has buffered, nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def print_text(text: str) -> None:
    """Print a message in which control characters are escaped, at once: it may be read while the program goes on."""
    print(printable(text), flush=True)


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on standard error that disappears when the body has finished."""
    console = SafeConsole(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(escape(description), total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)
