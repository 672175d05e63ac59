"""Measure the CPU time of imports and of commands that do not train, relative to `import jax`.

    python benchmarks/import_time.py --json results/benchmarks/import_time.json

Every repetition is an interpreter of its own, the measured ones take turns, and the fastest of each counts: a busy
machine only adds time. Files are read once before, so that they are in the operating system's cache.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from json_output import write_json

from cdred.data.demonstrations import bundled_demos
from cdred.provenance import provenance

REFERENCE = "import jax"


def measured() -> dict[str, list[str]]:
    """Return the interpreter's arguments for everything that is measured."""
    imports = (REFERENCE, "import cdred", "import cdred; cdred.train")
    file = str(next(iter(bundled_demos().values())))
    commands = {"cdred --help": ["--help"], "cdred train --help": ["train", "--help"]}
    commands["cdred demos info FILE"] = ["demos", "info", file]
    return {code: ["-c", code] for code in imports} | {
        name: ["-m", "cdred", *words] for name, words in commands.items()
    }


def cpu_seconds(arguments: list[str]) -> float:
    """Return the user and system time of an interpreter, over all its threads."""
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{arguments} exited with code {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Measure, print times and ratios, and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the times here")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    seconds: dict[str, float] = {}
    for repeat in range(options.repeats + 1):
        for name, arguments in measured().items():
            time = cpu_seconds(arguments)
            if repeat:
                seconds[name] = min(time, seconds.get(name, time))
    rows = {
        name: {"cpu_seconds": round(time, 3), "ratio": round(time / seconds[REFERENCE], 3)}
        for name, time in seconds.items()
    }
    for name, row in rows.items():
        print(f"{name:<28} {row['cpu_seconds']:.2f} s  {row['ratio']:.2f} times {REFERENCE}")
    write_json(options.json, provenance() | {"statistic": f"fastest of {options.repeats}", "times": rows})


if __name__ == "__main__":
    main()
