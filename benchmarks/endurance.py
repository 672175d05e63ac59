"""Measure whether a long run needs more and more memory, device arrays, open files or space for its metrics.

    python benchmarks/endurance.py --json results/benchmarks/endurance.json --plot endurance.png

Tiny networks take many steps of `probe/point` in many environments at once, with few updates, and log, evaluate and
save on the way as every run does. The replay buffer is small, so that it is overwritten many times.
"""

import argparse
import gc
import os
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import jax
import numpy as np
from json_output import write_json

from cdred import api
from cdred.config import RunConfig, preset
from cdred.loggers.metrics import JsonlLogger, MultiLogger
from cdred.provenance import provenance
from cdred.train.loop import train_loop
from cdred.train.setup import build_run

# Fraction of the run after which everything has been compiled, evaluated and saved once, and the buffer is full.
WARM_UP = 0.2


@dataclass(frozen=True)
class Sample:
    """Resources of the process after `steps`, `seconds` after the run's start."""

    steps: int
    seconds: float
    rss_mib: float
    device_arrays: int
    device_mib: float
    open_files: int
    metrics_kib: float


class Sampler:
    """Logger that measures its own process at every training log line."""

    def __init__(self, metrics: Path):
        self.samples: list[Sample] = []
        self._metrics, self._start = metrics, time.perf_counter()

    def log(self, step, metrics, kind) -> None:
        del metrics
        if kind != "train":
            return
        gc.collect()
        arrays = jax.live_arrays()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.samples.append(
            Sample(
                steps=int(step),
                seconds=round(time.perf_counter() - self._start, 1),
                rss_mib=round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 2),
                device_arrays=len(arrays),
                device_mib=round(sum(array.nbytes for array in arrays) / 2**20, 3),
                open_files=len(os.listdir("/proc/self/fd")),
                metrics_kib=round(self._metrics.stat().st_size / 2**10, 1),
            )
        )

    def close(self) -> None:
        pass


def run_config(steps: int, out: Path) -> RunConfig:
    """Return settings with few updates for many steps, 100 log lines, 20 checkpoints and 10 evaluations."""
    return replace(
        preset("debug"),
        task="probe/point",
        demos="3",
        planner="policy",
        envs=50,
        random_episodes=1,
        steps=steps,
        steps_per_update=500,
        updates_per_call=2,
        buffer_size=max(100, steps // 500),
        log_every=steps // 100,
        checkpoint_every=steps // 20,
        eval_every=steps // 10,
        eval_episodes=50,
        final_eval_episodes=50,
        video=False,
        out=str(out),
    )


def sample_run(steps: int, folder: Path) -> list[Sample]:
    """Train once and return the samples."""
    config = run_config(steps, folder)
    lines, sampler = JsonlLogger(folder / "metrics.jsonl"), Sampler(folder / "metrics.jsonl")
    demos = api.resolve_demos(config, api.get_env_spec(config.task), print)
    train_loop(build_run(config, demos, folder, MultiLogger([lines, sampler]), print))
    lines.close()
    return sampler.samples


def growth(samples: list[Sample]) -> dict[str, float]:
    """Return each resource's growth per 10^6 steps after the warm-up, by least squares."""
    late = [sample for sample in samples if sample.steps >= WARM_UP * samples[-1].steps]
    millions = [sample.steps / 1e6 for sample in late]
    names = [name for name in asdict(late[0]) if name not in ("steps", "seconds")]
    values = {name: [getattr(sample, name) for sample in late] for name in names}
    return {name: round(float(np.polyfit(millions, values[name], 1)[0]), 3) for name in names}


def plot(samples: list[Sample], path: Path) -> None:
    """Draw one panel per resource over the steps."""
    from matplotlib.figure import Figure

    titles = {
        "rss_mib": "memory of the process, MiB",
        "device_mib": "arrays on the device, MiB",
        "open_files": "open files",
        "metrics_kib": "metrics.jsonl, KiB",
    }
    figure = Figure(figsize=(14, 3.4), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(titles)), titles.items(), strict=True):
        values = [getattr(sample, name) for sample in samples]
        axes.plot([sample.steps for sample in samples], values)
        axes.set(title=title, xlabel="steps", ylim=(0, 1.1 * max(values)))
    figure.savefig(path, dpi=100)


def main() -> None:
    """Run, print every tenth sample and the growth, and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, help="write the samples here")
    parser.add_argument("--plot", type=Path, help="draw them here")
    options = parser.parse_args()
    api.use_compilation_cache()
    with tempfile.TemporaryDirectory() as folder:
        samples = sample_run(options.steps, Path(folder))
    slopes = growth(samples)
    for sample in samples[:: max(1, len(samples) // 10)]:
        print(asdict(sample))
    print(f"growth per 10^6 steps: {slopes}")
    write_json(options.json, provenance() | {"growth_per_million": slopes, "samples": [asdict(one) for one in samples]})
    if options.plot:
        plot(samples, options.plot)


if __name__ == "__main__":
    main()
