"""`cdred sweep`."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import jax
import tyro

from cdred.cli.options import parse_options
from cdred.console import print_text
from cdred.errors import UserError
from cdred.sweep.backend import Backend
from cdred.sweep.collect import collect
from cdred.sweep.driver import execute
from cdred.sweep.local import LocalBackend
from cdred.sweep.plan import check_runs, format_plan, plan_runs
from cdred.sweep.ray_tasks import RayBackend
from cdred.sweep.slurm_jobs import SlurmBackend, SlurmOptions
from cdred.sweep.sweep_file import read_sweep
from cdred.train.interrupt import lock_folder

BackendName = Literal["local", "ray", "slurm"]
# Options that not every backend has, and those that have them.
OPTIONS_OF: dict[str, tuple[BackendName, ...]] = {
    "jobs": ("local",),
    "cpus_per_run": ("ray", "slurm"),
    "gpus_per_run": ("ray", "slurm"),
    "ray_address": ("ray",),
    "slurm": ("slurm",),
}


@dataclass(frozen=True)
class SweepOptions:
    """Train tasks x methods x groups of seeds x settings, each a run that `cdred train` would make.

    All runs are checked before the first one starts. Finished runs are skipped and interrupted ones resume: the same
    command again does only what is missing. A run that fails does not stop the others. At the end the results are
    exported, with a table and aggregate figures of all finished runs.
    """

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """YAML file with out, the output folder, tasks, methods and seed_groups, a list of lists of which each is trained
    in one run; settings, named options of `cdred train`, and common, options of all runs, are optional."""
    on: BackendName = "local"
    """Where the runs are trained: in processes of this machine, as tasks of a Ray cluster, or as SLURM jobs."""
    dry_run: bool = False
    """Check the runs and print them with their states, without training any."""
    results: Path | None = None
    """Folder of the exported results, the table and the figures; by default "results" in the output folder."""
    jobs: int = 1
    """With --on local: runs at a time."""
    cpus_per_run: int = 1
    """With --on ray and slurm: CPU cores of a run."""
    gpus_per_run: float = 0.0
    """With --on ray and slurm: GPUs of a run. With ray it may be a fraction: 0.5 trains two runs on a GPU."""
    ray_address: str = ""
    """With --on ray: an existing cluster, HOST:PORT or auto. If empty, one is started on this machine."""
    slurm: SlurmOptions = field(default_factory=SlurmOptions)


def main(arguments: list[str]) -> int:
    """Plan, check, train, export.

    Returns:
        0, or 1 if a run failed.
    """
    # This process trains nothing, and would take memory of the GPU from the runs.
    jax.config.update("jax_platforms", "cpu")
    options = parse_options(SweepOptions, arguments, "cdred sweep")
    _check(options)
    sweep = read_sweep(options.file)
    runs, states = check_runs(plan_runs(sweep), print_text, collect=not options.dry_run)
    print_text(format_plan(runs, states))
    if options.dry_run:
        return 0
    out = Path(sweep.out).expanduser().absolute()
    results = options.results or out / "results"
    with lock_folder(out):
        missing = [run for run, state in zip(runs, states, strict=True) if state != "finished"]
        backend = _backend(options, out) if missing else None
        try:
            failures = execute(missing, backend, print_text) if backend else []
        finally:
            # Also after Ctrl-C: of the runs that have finished.
            print_text(f"\n{collect(runs, results)}\nresults: {results}")
    for failure in failures:
        print_text(f"failed: {failure.run.name}: {failure.reason}")
    return 1 if failures else 0


def _check(options: SweepOptions) -> None:
    """Check the ranges of numbers, and that all options count with this backend."""
    numbers = {"jobs": options.jobs, "cpus-per-run": options.cpus_per_run}
    numbers |= {f"slurm.{name}": getattr(options.slurm, name) for name in ("minutes", "memory_gb", "parallel")}
    for name, number in numbers.items():
        if number < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, got {number}.")
    if not 0 <= options.gpus_per_run < math.inf:
        raise UserError(f"--gpus-per-run must be at least 0, got {options.gpus_per_run:g}.")
    defaults = SweepOptions(options.file)
    for name, backends in OPTIONS_OF.items():
        if getattr(options, name) != getattr(defaults, name) and options.on not in backends:
            option = f"--{name.replace('_', '-')}{'.*' * (name == 'slurm')}"
            raise UserError(
                f"{option} is for --on {' and '.join(backends)}, got --on {options.on}: remove one of them."
            )


def _backend(options: SweepOptions, out: Path) -> Backend:
    if options.on == "ray":
        return RayBackend(options.ray_address, options.cpus_per_run, options.gpus_per_run)
    if options.on == "slurm":
        return SlurmBackend(options.slurm, out / "slurm", options.cpus_per_run, options.gpus_per_run)
    return LocalBackend(options.jobs)
