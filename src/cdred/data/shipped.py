"""Demonstrations that come with the package: one small `.npz` a task, each with its provenance inside."""

from pathlib import Path

FOLDER = Path(__file__).parent / "demonstrations"


def shipped_sets() -> dict[str, Path]:
    """From a task's name, `<suite>/<name>`, to the file with its demonstrations, which `load_demos` takes."""
    files = sorted(FOLDER.glob("*/*.npz"))
    return {file.relative_to(FOLDER).with_suffix("").as_posix(): file for file in files}


def shipped(task: str) -> Path | None:
    """The file with the task's demonstrations; None if none come with the package."""
    return shipped_sets().get(task)
