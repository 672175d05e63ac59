"""Interface of what executes the runs of a sweep."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from cdred.sweep.plan import SweepRun


class Backend(Protocol):
    """Executes runs. A run's folder tells how it ended."""

    def start(self, runs: Sequence[SweepRun]) -> None:
        """Start or queue runs."""
        ...

    def ended(self) -> Iterable[tuple[SweepRun, str]]:
        """Return the runs that ended since the last call, without waiting, and what is known of a failure."""
        ...

    def stop(self) -> str:
        """Stop the runs after they saved their states, or leave them to a queue; return what happens to them."""
        ...

    def close(self) -> None:
        """Release what the backend holds."""
        ...
