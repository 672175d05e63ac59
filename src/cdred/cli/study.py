"""`cdred study`."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import jax
import tyro

from cdred.cli.options import parse_options
from cdred.console import print_text
from cdred.constraints import check_choice
from cdred.errors import UserError
from cdred.files import check_writable_parent
from cdred.studies.catalog import STUDIES
from cdred.studies.study import Measurement, Scale, TrainingStudy, write_result
from cdred.studies.training import training_result
from cdred.sweep.driver import Failure, execute
from cdred.sweep.local import LocalBackend
from cdred.sweep.plan import SweepRun, check_runs, format_plan, plan_runs
from cdred.train.interrupt import lock_folder

LIST = "list"
# Seeds that are trained together, as many as a core trains about as fast as one.
GROUP = 3


@dataclass(frozen=True)
class StudyOptions:
    """Run a named experiment, and write its data, table and figure. `cdred study list` prints the names.

    The folder NAME in --out gets data.csv, table.md, figure.png and study.json. Finished runs are skipped and
    interrupted ones resume: the same command again does only what is missing.
    """

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """Name of the study, or list."""
    scale: Scale = "cpu"
    """The preset, with 10 demonstrations and 5,000 steps (cpu) or 100 and 500,000 (paper), unless the study is about
    these."""
    seeds: int = 5
    """Number of seeds of every run."""
    jobs: int = 1
    """Runs at a time."""
    runs: Path | None = None
    """Folder of the run folders; runs/studies/NAME-SCALE if None. Studies that train nothing read those in it."""
    out: Path = Path("results/studies")
    """Folder of the results."""
    dry_run: bool = False
    """Print the runs and their states, without training any."""


def main(arguments: list[str]) -> int:
    """List, or run a study.

    Returns:
        0, or 1 if a run failed.
    """
    options = parse_options(StudyOptions, arguments, "cdred study")
    if options.name == LIST:
        print_text(format_list())
        return 0
    check_choice("NAME", options.name, (*STUDIES, LIST))
    for name, number in {"seeds": options.seeds, "jobs": options.jobs}.items():
        if number < 1:
            raise UserError(f"--{name} must be at least 1, got {number}.")
    if options.scale == "paper":
        options = replace(options, out=options.out / "paper")
    study, out = STUDIES[options.name], options.out / options.name
    check_writable_parent(out)
    about = {
        "study": options.name,
        "question": study.question,
        "scale": options.scale,
        "seeds": options.seeds,
        "command": shlex.join(["cdred", "study", *arguments]),
    }
    runs_folder = (options.runs or Path("runs/studies") / f"{options.name}-{options.scale}").expanduser().absolute()
    if isinstance(study, Measurement):
        if options.dry_run:
            raise UserError(f"--dry-run is for studies with runs, which {options.name} does not make: remove it.")
        result, failures = study.measure(options.scale, options.seeds, runs_folder, print_text), []
    else:
        # This process trains nothing, and would take memory of the GPU from the runs.
        jax.config.update("jax_platforms", "cpu")
        runs = study_runs(study, options.scale, options.seeds, runs_folder)
        runs, states = check_runs(runs, print_text, collect=not options.dry_run)
        print_text(format_plan(runs, states))
        if options.dry_run:
            return 0
        with lock_folder(runs_folder):
            failures = _train([r for r, state in zip(runs, states, strict=True) if state != "finished"], options.jobs)
        result = training_result(study, runs)
    write_result(out, result, **about)
    print_text(f"{result.table}\nresults: {out}")
    for failure in failures:
        print_text(f"failed: {failure.run.name}: {failure.reason}")
    return 1 if failures else 0


def study_runs(study: TrainingStudy, scale: Scale, num_seeds: int, folder: Path) -> list[SweepRun]:
    """Return the runs of a study in a folder, the seeds of `GROUP` in each."""
    seeds = tuple(tuple(range(first, min(first + GROUP, num_seeds))) for first in range(0, num_seeds, GROUP))
    sweeps = [replace(sweep, out=str(folder), seed_groups=seeds) for sweep in study.sweeps(scale)]
    return [run for sweep in sweeps for run in plan_runs(sweep)]


def _train(runs: Sequence[SweepRun], jobs: int) -> list[Failure]:
    return execute(runs, LocalBackend(jobs), print_text) if runs else []


def format_list() -> str:
    """Return a line per study: its name, and the question that it answers."""
    width = max(map(len, STUDIES))
    return "\n".join(f"{name:<{width}}  {study.question}" for name, study in STUDIES.items())
