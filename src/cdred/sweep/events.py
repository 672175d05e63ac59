"""Record of what happened to a run of a sweep: `sweep.jsonl` in its folder, a line per event.

It is a file because it is all that a run on another machine and the process that started the sweep have in common.
"""

import json
import os
import platform
import time
from pathlib import Path
from typing import Any, Literal

FILE = "sweep.jsonl"

Kind = Literal["started", "finished", "stopped", "failed"]


def record(folder: Path, kind: Kind, **content: Any) -> None:
    """Append an event with the time, this machine's name and this process."""
    event = {"event": kind, "time": round(time.time(), 3), "host": platform.node(), "process": os.getpid()}
    with (folder / FILE).open("a") as file:
        file.write(json.dumps(event | content) + "\n")


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Return the events of a run in their order, without a line that is only partly written."""
    try:
        lines = (folder / FILE).read_text().split("\n")[:-1]
    except FileNotFoundError:
        return []
    return [event for line in lines if (event := _parse(line)) is not None]


def _parse(line: str) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None
