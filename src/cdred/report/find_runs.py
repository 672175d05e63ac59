"""Search for run folders."""

import os
from collections.abc import Iterable
from pathlib import Path


def find_runs(paths: Iterable[Path]) -> list[Path]:
    """Return the run folders among `paths` and in them, at any depth, each once.

    Those of a folder are sorted; links to folders and hidden folders are not entered. A path without a run in it is
    returned as it is, so that whoever reads it says what is missing.
    """
    return list({run.resolve(): run for path in paths for run in _find(path)}.values())


def _find(path: Path) -> list[Path]:
    found = []
    for folder, subfolders, files in os.walk(path):
        if "metrics.jsonl" in files:
            found.append(Path(folder))
            subfolders.clear()
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
    return found or [path]
