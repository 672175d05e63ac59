"""Whether a long run takes more and more: its memory, the device's, open files, and the metrics file.

    python benchmarks/endurance.py --json results/reliability/endurance.json --picture results/reliability/endurance.png

Tiny networks live through many steps of `probe/point` in many environments at once, with few updates, and log,
evaluate and save on the way as every run does. The replay is small, so that it is full and written over many times.
"""

import argparse
import gc
import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import jax
import numpy as np

from cdred import api
from cdred.config import RunConfig, preset
from cdred.loggers.metrics import JsonlLogger, MultiLogger
from cdred.provenance import origin
from cdred.train.loop import train_loop
from cdred.train.setup import build_run

# Share of the run at whose end everything has been compiled, evaluated and saved once, and the replay is full.
WARM_UP = 0.2


@dataclass(frozen=True)
class Sample:
    """What the process held after `steps`, `seconds` after its first sample."""

    steps: int
    seconds: float
    rss_mib: float
    device_arrays: int
    device_mib: float
    open_files: int
    metrics_kib: float


class Sampler:
    """A tracker that looks at its own process whenever a log line is due."""

    def __init__(self, metrics: Path):
        self.samples: list[Sample] = []
        self._metrics, self._began = metrics, time.perf_counter()

    def log(self, step, metrics, kind) -> None:
        del metrics
        if kind != "train":
            return
        gc.collect()
        live = jax.live_arrays()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.samples.append(
            Sample(
                steps=int(step),
                seconds=round(time.perf_counter() - self._began, 1),
                rss_mib=round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 2),
                device_arrays=len(live),
                device_mib=round(sum(one.nbytes for one in live) / 2**20, 3),
                open_files=len(os.listdir("/proc/self/fd")),
                metrics_kib=round(self._metrics.stat().st_size / 2**10, 1),
            )
        )

    def close(self) -> None:
        pass


def settings(steps: int, out: Path) -> RunConfig:
    """Few updates for many steps, a hundred log lines, twenty saves, ten evaluations."""
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


def lived(steps: int, folder: Path) -> list[Sample]:
    """The samples of one run."""
    config = settings(steps, folder)
    lines, sampler = JsonlLogger(folder / "metrics.jsonl"), Sampler(folder / "metrics.jsonl")
    demos = api.demonstrations(config, api.get_env_spec(config.task), print)
    train_loop(build_run(config, demos, folder, MultiLogger([lines, sampler]), print))
    lines.close()
    return sampler.samples


def growth(samples: list[Sample]) -> dict[str, float]:
    """What each figure gains per 10^6 steps after the warm-up, by the least-squares line."""
    late = [one for one in samples if one.steps >= WARM_UP * samples[-1].steps]
    millions = [one.steps / 1e6 for one in late]
    names = [name for name in asdict(late[0]) if name not in ("steps", "seconds")]
    return {name: round(float(np.polyfit(millions, [getattr(one, name) for one in late], 1)[0]), 3) for name in names}


def picture(samples: list[Sample], path: Path) -> None:
    """One panel for each figure over the steps."""
    from matplotlib.figure import Figure

    titles = {
        "rss_mib": "memory of the process, MiB",
        "device_mib": "arrays on the device, MiB",
        "open_files": "open files",
        "metrics_kib": "metrics.jsonl, KiB",
    }
    figure = Figure(figsize=(14, 3.4), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(titles)), titles.items(), strict=True):
        values = [getattr(one, name) for one in samples]
        axes.plot([one.steps for one in samples], values)
        axes.set(title=title, xlabel="steps", ylim=(0, 1.1 * max(values)))
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--picture", type=Path, help="draw them here")
    options = parser.parse_args()
    api.use_compilation_cache()
    with tempfile.TemporaryDirectory() as folder:
        samples = lived(options.steps, Path(folder))
    gained = growth(samples)
    for one in samples[:: max(1, len(samples) // 10)]:
        print(asdict(one))
    print(f"gained per 10^6 steps: {gained}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        result = origin() | {"gained_per_million": gained, "samples": [asdict(one) for one in samples]}
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.picture:
        picture(samples, options.picture)


if __name__ == "__main__":
    main()
