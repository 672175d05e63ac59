"""Read mutated datasets and checkpoints, in a separate process because a mutant may crash it.

    python fuzz.py SCRATCH FIRST COUNT SOURCE ...

Each `SOURCE` is an intact folder, named after its kind. Prints one line per mutant: kind and seed before it is read,
then `read`, `rejected` or a description of the failure. A mutant depends on its kind and seed only.
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

EXTRA_MEMORY_BYTES = 2**30
TIMEOUT_SECONDS = 30
EXTREMES = [bytes(8), b"\xff" * 8, b"\xff" * 7 + b"\x7f", b"\x01" + bytes(7), bytes(4) + b"\x01" + bytes(3)]


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Return `data` with one to four random changes, as damage or an attacker may cause."""
    for _ in range(rng.integers(1, 5)):
        position = int(rng.integers(0, max(len(data), 1)))
        size = int(rng.integers(1, 65))
        kind = rng.integers(0, 8)
        if kind == 0:
            data = data[:position]
        elif kind == 1:
            data = data[:position] + data[position + size :]
        elif kind == 2:
            data = data[:position] + rng.bytes(size) + data[position:]
        elif kind == 3:
            data = data[: position + size] + data[position:]
        elif kind == 4:
            extreme = EXTREMES[rng.integers(len(EXTREMES))][: (1, 2, 4, 8)[rng.integers(4)]]
            data = data[:position] + extreme + data[position + len(extreme) :]
        elif kind == 5:
            data = data[:position] + rng.bytes(size) + data[position + size :]
        elif data:
            changed = bytearray(data)
            changed[position] ^= 1 << int(rng.integers(8))
            data = bytes(changed)
    return data


def write_mutant(source: Path, scratch: Path, seed: int) -> Path:
    """Copy the folder `source` to `scratch` and mutate one of its files."""
    rng = np.random.default_rng([zlib.crc32(source.name.encode()), seed])
    shutil.rmtree(scratch, ignore_errors=True)
    folder = Path(shutil.copytree(source, scratch))
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    target = files[rng.integers(len(files))]
    target.write_bytes(mutate(target.read_bytes(), rng))
    return folder


def make_reader(source: Path):
    """Return the function that reads folders of the kind of `source`."""
    if source.name.startswith("checkpoint"):
        from cdred.checkpoint import checkpoint

        entries = json.loads((source / checkpoint.INDEX).read_text())["arrays"]
        template = {name: np.zeros(entry["shape"], entry["dtype"]) for name, entry in entries.items()}
        return lambda folder: checkpoint.load(folder, template)
    is_folder = (source / "meta").exists() or (source / "data").exists()
    name = next(file.name for file in sorted(source.iterdir()) if file.suffix != ".json") if not is_folder else ""
    # LeRobot stores actions in the robot's own units.
    foreign = source.name.startswith("lerobot") and source.name != "lerobot-ours"
    bounds = {"action_low": -10, "action_high": 10} if foreign else {}
    images = {"image_size": 8} if source.name.endswith("-images") else {}
    return lambda folder: load_demos(folder / name, allow_variable_horizon=True, **bounds, **images)


def read_outcome(read, folder: Path) -> str:
    """Read one mutant and describe the outcome."""
    try:
        read(folder)
    except UserError as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, MemoryError):
                return f"OUT OF MEMORY {error}"
            cause = cause.__cause__
        lines = str(error).splitlines()
        return "rejected" if 0 < len(lines) <= 3 and all(lines) else f"MALFORMED MESSAGE {error!r}"
    except Exception as error:
        return f"RAISED {error!r}"
    return "read"


def main() -> None:
    scratch, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    readers = {source: make_reader(source) for source in map(Path, sys.argv[4:])}
    for source, read in readers.items():
        # This also imports all that reading needs, before the memory is measured.
        read(source)
    with open("/proc/self/statm") as file:
        used_bytes = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used_bytes + EXTRA_MEMORY_BYTES, used_bytes + EXTRA_MEMORY_BYTES))
    for source, read in readers.items():
        for seed in range(first, first + count):
            print(source.name, seed, end=" ", flush=True)
            folder = write_mutant(source, scratch / source.name, seed)
            # By default the signal ends the process, also inside a library.
            signal.alarm(TIMEOUT_SECONDS)
            result = read_outcome(read, folder)
            signal.alarm(0)
            print(result.replace("\n", " / "), flush=True)


if __name__ == "__main__":
    main()
