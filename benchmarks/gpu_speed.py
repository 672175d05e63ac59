"""Stage `a` of `benchmarks/gpu.sh`: agreement of CPU and GPU, then times of updates and plans.

    python benchmarks/gpu_speed.py --out OUT --limit-s 470 [--preset paper] [--authors CODE] [--repeats 10]

`OUT/a.json` has every measurement as soon as it is made; the most important ones come first. `OUT/tests.txt` has the
output of the numerical tests. The authors' code is timed if a checkout of it is given.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from agreement import PRECISIONS, UPDATES, compute, differences
from gpu_stage import Publish, Stage

from cdred.bench.benchmarks import Bench, Measurement, matmul_gflops
from cdred.compilation_cache import use_compilation_cache
from cdred.config import PrecisionConfig, RunConfig, preset
from cdred.provenance import provenance
from cdred.types import Precision

TOLERANCE = 1e-4
# Seconds for a measurement whose like has not been made.
FIRST_ESTIMATE_S = 60.0
TESTS = ("tests/nn", "tests/planning", "tests/models", "tests/algos/test_cdred.py", "tests/algos/test_losses.py")
# Seconds kept for ending cleanly.
RESERVE_S = 10.0


class Size(NamedTuple):
    """What is timed: an update or a plan, of so many seeds, environments per seed, in a precision."""

    what: str
    seeds: int = 1
    envs: int = 1
    precision: Precision = "float32"

    @property
    def name(self) -> str:
        return f"{self.what}, {self.seeds} seeds, {self.envs} envs, {self.precision}"


# The most important first.
FIRST = (Size("update"), Size("plan"), Size("update", precision="tf32"), Size("plan", precision="tf32"))
OTHERS = (
    Size("update", seeds=8),
    Size("plan", envs=16),
    Size("update", precision="bfloat16"),
    Size("plan", precision="bfloat16"),
    Size("update", seeds=8, precision="tf32"),
    Size("plan", envs=64),
    Size("update", seeds=16),
    Size("update", seeds=4),
    Size("update", seeds=2),
)


def main() -> None:
    """Make all measurements that the time allows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit-s", type=float, required=True, help="seconds until the program ends")
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--authors", type=Path, help="checkout of the authors' repository")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--rehearse", action="store_true", help="small networks and one repeat")
    options = parser.parse_args()
    if options.rehearse:
        options.preset, options.repeats = "debug", 1
    stage = Stage("a", options.out / "a.json", options.limit_s, {"preset": options.preset})
    use_compilation_cache()
    stage.about(provenance())
    config = preset(options.preset)
    peaks = stage.measure("peak GFLOP/s", lambda _: {p: matmul_gflops(p) for p in PRECISIONS}) or {}
    stage.measure("agreement of one update", partial(agreement, options.preset, 1, PRECISIONS[:1]), 30)
    speeds = partial(measure_speeds, stage, config, peaks, options.repeats)
    speeds(FIRST[:2])
    if options.authors is None:
        stage.skip("authors", "no checkout of the authors' repository: give --authors, or AUTHORS to gpu.sh")
    else:
        stage.measure("authors", partial(authors, options.authors, stage), 30)
    speeds(FIRST[2:])
    speeds(OTHERS)
    for what in ("update", "plan"):
        name = f"parts of one {what}"
        stage.measure(name, partial(parts, config, what, peaks.get("float32")), estimate(stage, Size(what)))
    agree = partial(agreement, options.preset, UPDATES, PRECISIONS)
    stage.measure(f"agreement of {UPDATES} updates", agree, 4 * (stage.duration("agreement of one update") or 30))
    stage.measure("tests", partial(tests, options.out / "tests.txt", stage), 3 * RESERVE_S)
    stage.end()


def agreement(name: str, updates: int, precisions: tuple[Precision, ...], publish: Publish) -> dict[str, Any]:
    """Compare this device with the CPU, and report if rewards, losses and gradients agree to `TOLERANCE`."""
    rows, device = [], jax.default_backend()
    reference = compute("cpu", name, "float32", updates)
    for precision in precisions:
        row = differences(reference, compute(device, name, precision, updates))
        errors = [row[key] for key in ("reward", "first_update", "gradient")]
        agrees = all(isinstance(error, float) and error <= TOLERANCE for error in errors)
        rows.append({"device": device, "precision": precision} | row | {"agrees": agrees})
        publish({"against": "cpu, float32", "tolerance": TOLERANCE, "rows": rows})
    return {"against": "cpu, float32", "tolerance": TOLERANCE, "rows": rows}


def measure_speeds(
    stage: Stage, config: RunConfig, peaks: dict[str, float], repeats: int, sizes: tuple[Size, ...]
) -> None:
    """Time updates and plans of these sizes, each compiled for the first time in this stage."""
    for size in sizes:
        function = partial(speed, config, size, repeats, peaks.get(size.precision))
        stage.measure(size.name, function, estimate(stage, size))


def estimate(stage: Stage, size: Size) -> float:
    """Estimate the seconds of a measurement by the first one of its kind; the rest is kept for ending."""
    first = stage.duration(Size(size.what).name)
    if first is None:
        return FIRST_ESTIMATE_S
    return 1.5 * first + RESERVE_S


def speed(config: RunConfig, size: Size, repeats: int, peak: float | None, _: Publish) -> dict[str, Any]:
    """Time one update or plan, and report the memory that the device has taken at most since the start."""
    measured = measure(config, size, repeats, peak, with_scopes=False)
    result = {name: known(value) for name, value in measured._asdict().items() if name != "scopes"}
    return result | {"device_peak_mb": device_peak_mb()}


def measure(config: RunConfig, size: Size, repeats: int, peak: float | None, *, with_scopes: bool) -> Measurement:
    """Make a `Measurement`."""
    changes: dict[str, Any] = {"seeds": tuple(range(size.seeds)), "envs": size.envs}
    changes |= {"updates_per_call": max(4, size.envs), "precision": PrecisionConfig(size.precision, size.precision)}
    bench = Bench(replace(config, **changes))
    function: Callable[..., Measurement] = bench.update if size.what == "update" else bench.plan
    return function(repeats, math.nan if peak is None else peak, with_scopes)


def parts(config: RunConfig, what: str, peak: float | None, _: Publish) -> dict[str, list[float]]:
    """Return forward and backward milliseconds of every part of one update or plan."""
    measured = measure(config, Size(what), 1, peak, with_scopes=True)
    return {time.scope: [time.forward_ms, time.backward_ms] for time in measured.scopes}


def known(value: float | None) -> float | None:
    """Return a number, or None if it is not known."""
    return None if value is None or not math.isfinite(value) else value


def device_peak_mb() -> float | None:
    """Return the most memory that the device has had in use, in 1e6 bytes; None if it does not count."""
    peak = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return None if peak is None else peak / 1e6


def authors(code: Path, stage: Stage, _: Publish) -> dict[str, Any]:
    """Time the authors' code in a process of its own.

    Raises:
        ChildProcessError: it does not run; the end of its output is in the message.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "authors.json"
        command = [sys.executable, str(Path(__file__).with_name("authors_speed.py")), str(code), "--json", str(output)]
        limit = max(1.0, stage.seconds_left() - RESERVE_S)
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
        if done.returncode:
            raise ChildProcessError(f"exit code {done.returncode}: {done.stderr[-1500:]}")
        return json.loads(output.read_text())


def tests(output: Path, stage: Stage, _: Publish) -> dict[str, Any]:
    """Run the numerical tests on this device for as long as there is time, and return the last line of pytest."""
    command = [sys.executable, "-m", "pytest", "-m", "not slow", "-p", "no:cacheprovider", *TESTS]
    with output.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=os.environ)
        try:
            code = process.wait(stage.seconds_left() - RESERVE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            code = None
    lines = [line for line in output.read_text().splitlines() if line.strip()]
    return {"exit_code": code, "last_line": lines[-1] if lines else None}


if __name__ == "__main__":
    main()
