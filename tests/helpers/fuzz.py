"""Reads mutants of datasets and checkpoints, in a process of its own that may die of them.

    python fuzz.py SCRATCH FIRST COUNT SOURCE ...

A `SOURCE` is an intact folder, named after its kind. Prints a line for each mutant: kind and seed when it is begun,
then `read`, `refused` or what went wrong. A mutant depends on its kind and seed alone.
"""

import json
import resource
import shutil
import signal
import sys
import zlib
from pathlib import Path

import numpy as np

from cdred.data.demonstrations import load_demos
from cdred.errors import UserError

SPARE_BYTES = 2**30
SECONDS = 30
EXTREMES = [bytes(8), b"\xff" * 8, b"\xff" * 7 + b"\x7f", b"\x01" + bytes(7), bytes(4) + b"\x01" + bytes(3)]


def mutated(data: bytes, draw: np.random.Generator) -> bytes:
    """`data` with one to four changes, each of a kind that damage or malice makes."""
    for _ in range(draw.integers(1, 5)):
        at = int(draw.integers(0, max(len(data), 1)))
        size = int(draw.integers(1, 65))
        kind = draw.integers(0, 8)
        if kind == 0:
            data = data[:at]
        elif kind == 1:
            data = data[:at] + data[at + size :]
        elif kind == 2:
            data = data[:at] + draw.bytes(size) + data[at:]
        elif kind == 3:
            data = data[: at + size] + data[at:]
        elif kind == 4:
            extreme = EXTREMES[draw.integers(len(EXTREMES))][: (1, 2, 4, 8)[draw.integers(4)]]
            data = data[:at] + extreme + data[at + len(extreme) :]
        elif kind == 5:
            data = data[:at] + draw.bytes(size) + data[at + size :]
        elif data:
            changed = bytearray(data)
            changed[at] ^= 1 << int(draw.integers(8))
            data = bytes(changed)
    return data


def mutant(source: Path, scratch: Path, seed: int) -> Path:
    """A copy of `source` with one of its files mutated."""
    draw = np.random.default_rng([zlib.crc32(source.name.encode()), seed])
    shutil.rmtree(scratch, ignore_errors=True)
    folder = Path(shutil.copytree(source, scratch))
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    victim = files[draw.integers(len(files))]
    victim.write_bytes(mutated(victim.read_bytes(), draw))
    return folder


def reader(source: Path):
    """What reads a folder of the kind of `source`."""
    if source.name.startswith("checkpoint"):
        from cdred.checkpoint import checkpoint

        entries = json.loads((source / checkpoint.INDEX).read_text())["arrays"]
        like = {name: np.zeros(entry["shape"], entry["dtype"]) for name, entry in entries.items()}
        return lambda folder: checkpoint.load(folder, like)
    whole = (source / "meta").exists() or (source / "data").exists()
    name = next(file.name for file in sorted(source.iterdir()) if file.suffix != ".json") if not whole else ""
    # Actions in what LeRobot wrote are the robot's own.
    theirs = source.name == "lerobot-v3.0"
    return lambda folder: load_demos(folder / name, allow_variable_horizon=True, rescale_actions=theirs)


def outcome(read, folder: Path) -> str:
    """How the reading of one mutant ended."""
    try:
        read(folder)
    except UserError as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, MemoryError):
                return f"GREEDY {error}"
            cause = cause.__cause__
        lines = str(error).splitlines()
        return "refused" if 0 < len(lines) <= 3 and all(lines) else f"WORDY {error!r}"
    except Exception as error:
        return f"RAISED {error!r}"
    return "read"


def main() -> None:
    scratch, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    readers = {source: reader(source) for source in map(Path, sys.argv[4:])}
    for source, read in readers.items():
        # Also imports what reading imports, before the memory is counted.
        read(source)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + SPARE_BYTES, used + SPARE_BYTES))
    for source, read in readers.items():
        for seed in range(first, first + count):
            print(source.name, seed, end=" ", flush=True)
            folder = mutant(source, scratch / source.name, seed)
            # Its default is to end the process, also inside of a library.
            signal.alarm(SECONDS)
            told = outcome(read, folder)
            signal.alarm(0)
            print(told.replace("\n", " / "), flush=True)


if __name__ == "__main__":
    main()
