"""`cdred study`."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from cdred.cli.options import parse_options
from cdred.console import print_text
from cdred.constraints import check_choice
from cdred.errors import Interrupted, UserError
from cdred.files import check_writable_parent
from cdred.studies.catalog import STUDIES
from cdred.studies.records import read_records, record_run, recorded_runs, write_records
from cdred.studies.study import (
    Measurement,
    RunsPath,
    Scale,
    Study,
    StudyResult,
    TrainingStudy,
    write_result,
)
from cdred.studies.training import training_result
from cdred.sweep.driver import Failure, execute
from cdred.sweep.local import LocalBackend
from cdred.sweep.plan import SweepRun, check_runs, format_plan, plan_runs, seeds_name
from cdred.sweep.sweep_file import Options, SweepFile
from cdred.text import plural
from cdred.train.interrupt import lock_folder

LIST = "list"
RUNS = Path("runs/studies")
# Seeds that are trained together, in one run.
GROUP = 3
# Options that not every kind of study has, and the kinds that have them.
OPTIONS_OF: dict[str, tuple[type, ...]] = {
    "scale": (TrainingStudy, Measurement),
    "seeds": (TrainingStudy, Measurement),
    "jobs": (TrainingStudy,),
    "runs": (TrainingStudy,),
    "dry_run": (TrainingStudy,),
}


@dataclass(frozen=True)
class StudyOptions:
    """Run a named experiment, and write its data, table and figure. `cdred study list` prints the names.

    The folder NAME in --out gets data.csv, table.md, figure.png, study.json and, if it trains, runs.json. Runs that
    have finished in --runs, or are in a runs.json in --out with the same settings, are not trained again, and
    interrupted ones resume: the same command again does only what is missing. reward-free-signals reads the runs.json
    of the other studies in --out.
    """

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """Name of the study, or list."""
    scale: Scale = "cpu"
    """The preset, with 10 demonstrations and 5,000 steps (cpu) or 100 and 500,000 (paper), unless the study is about
    these. With paper, results are in the folder paper/NAME in --out."""
    seeds: int = 5
    """Number of seeds of every run."""
    jobs: int = 1
    """Runs at a time."""
    runs: Path | None = None
    """Folder of the run folders; runs/studies/NAME-SCALE if None."""
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
    study = STUDIES[options.name]
    _check(options, study)
    out = options.out / ("paper" if options.scale == "paper" else "") / options.name
    check_writable_parent(out)
    command = shlex.join(["cdred", "study", *arguments])
    about = {"study": options.name, "question": study.question, "scale": options.scale, "seeds": options.seeds}
    if isinstance(study, TrainingStudy):
        return _train(study, options, out, about | {"command": command})
    if isinstance(study, Measurement):
        result = study.measure(options.scale, options.seeds, print_text)
    else:
        result = study.analyse(read_records(out))
    _write(out, result, about | {"command": command})
    return 0


def _write(out: Path, result: StudyResult, about: dict[str, Any]) -> None:
    write_result(out, result, **about)
    print_text(f"{result.table}\nresults: {out}")


def _check(options: StudyOptions, study: Study) -> None:
    """Check the ranges of numbers, and that all options count with this study."""
    for name in ("seeds", "jobs"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} must be at least 1, got {getattr(options, name)}.")
    defaults = StudyOptions(options.name)
    for name, kinds in OPTIONS_OF.items():
        if getattr(options, name) != getattr(defaults, name) and not isinstance(study, kinds):
            raise UserError(f"--{name.replace('_', '-')} has no effect on {options.name}: remove it.")


def _train(study: TrainingStudy, options: StudyOptions, out: Path, about: dict[str, Any]) -> int:
    """Train the runs of a study that are missing, and write its results, also those of a study that is interrupted."""
    # This process trains nothing, and would take memory of the GPU from the runs.
    jax.config.update("jax_platforms", "cpu")
    folder = (options.runs or RUNS / f"{options.name}-{options.scale}").expanduser().absolute()
    planned = study_runs(study, options.scale, options.seeds, folder)
    recorded = recorded_runs(planned, read_records(out), folder)
    if recorded:
        commits = ", ".join(sorted({str(record.commit) for record in recorded.values()}))
        print_text(f"already in {out.parent}: {len(recorded)} of {plural(len(planned), 'run')}, trained at {commits}")
    others = [run for run in planned if run not in recorded]
    if others and study.prepare is not None:
        study.prepare(options.scale, folder, print_text)
    runs, states = check_runs(others, print_text, collect=not options.dry_run)
    if runs:
        print_text(format_plan(runs, states))
    if options.dry_run:
        return 0
    missing = [run for run, state in zip(runs, states, strict=True) if state != "finished"]
    failures, interruption = _execute(missing, folder, options.jobs)
    by_name = {run.name: record for run, record in recorded.items()}
    by_name |= {run.name: record_run(run, folder) for run in runs}
    records = {run.name: by_name[run.name] for run in planned}
    if any(records.values()) or interruption is None:
        _write(out, training_result(study, records), about)
        write_records(out, [record for record in records.values() if record is not None])
    if interruption is not None:
        raise interruption
    for failure in failures:
        print_text(f"failed: {failure.run.name}: {failure.reason}")
    return 1 if failures else 0


def _execute(missing: Sequence[SweepRun], folder: Path, jobs: int) -> tuple[list[Failure], Interrupted | None]:
    """Train runs, first those that others begin with, and return the failures, and what stopped them before the end."""
    stages = [[run for run in missing if bool(run.config.init_from) == later] for later in (False, True)]
    failures: list[Failure] = []
    if not missing:
        return failures, None
    with lock_folder(folder):
        try:
            for stage in filter(None, stages):
                failures += execute(stage, LocalBackend(jobs), print_text)
        except Interrupted as interruption:
            return failures, interruption
    return failures, None


def study_runs(study: TrainingStudy, scale: Scale, num_seeds: int, folder: Path) -> list[SweepRun]:
    """Return the runs of a study in a folder, the seeds of `GROUP` in each."""
    seeds = tuple(tuple(range(first, min(first + GROUP, num_seeds))) for first in range(0, num_seeds, GROUP))
    sweeps = [_of_seeds(sweep, group, folder) for sweep in study.sweeps(scale) for group in seeds]
    return [run for sweep in sweeps for run in plan_runs(sweep)]


def _of_seeds(sweep: SweepFile, seeds: tuple[int, ...], folder: Path) -> SweepFile:
    """Return the runs of a group of seeds, with the paths of files and other runs of the study."""

    def resolve(options: Options) -> Options:
        def path(name: RunsPath) -> str:
            return str(folder / name.format(seeds=seeds_name(seeds)))

        return {key: path(value) if isinstance(value, RunsPath) else value for key, value in options.items()}

    settings = {name: resolve(options) for name, options in sweep.settings.items()}
    return replace(sweep, out=str(folder), seed_groups=(seeds,), settings=settings, common=resolve(sweep.common))


def format_list() -> str:
    """Return a line per study: its name, and the question that it answers."""
    width = max(map(len, STUDIES))
    return "\n".join(f"{name:<{width}}  {study.question}" for name, study in STUDIES.items())
