"""Runs as an array of SLURM jobs, which save and requeue themselves on SIGTERM and at their time limit."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cdred.config_file import plain_settings
from cdred.data.formats.common import import_optional
from cdred.errors import UserError
from cdred.files import atomic_write_text
from cdred.sweep.local import end_of_process
from cdred.sweep.plan import SweepRun
from cdred.sweep.slurm_task import SlurmTask

# Seconds before the time limit at which SLURM sends SIGTERM.
SIGNAL_SECONDS = 120
# submitit gives a job up after this many time limits; a run makes progress in each.
MAX_TIMEOUTS = 10_000
JOBS_FILE = "jobs.json"


@dataclass(frozen=True)
class SlurmOptions:
    """Options of the SLURM jobs, one job per run. --cpus-per-run and --gpus-per-run count as well."""

    partition: str = ""
    """Partition; SLURM's default if empty."""
    account: str = ""
    """Account; SLURM's default if empty."""
    qos: str = ""
    """Quality of service; SLURM's default if empty."""
    minutes: int = 240
    """Time limit of a job. At the limit a run saves its state, and its job is requeued."""
    memory_gb: int = 8
    """Memory of a job in GB."""
    parallel: int = 256
    """Maximum number of jobs at a time."""
    cluster: Literal["slurm", "local"] = "slurm"
    """Executor of submitit: SLURM, or processes of this machine, to try the options."""


class SlurmBackend:
    """Jobs of SLURM. They go on when this process ends, and the next call finds those that are still queued.

    Args:
        options: of the jobs.
        folder: folder of scripts, logs and job numbers, which all machines share.
        cpus: CPU cores of a run.
        gpus: GPUs of a run, a whole number.

    Raises:
        UserError: submitit or SLURM is not installed, or the number of GPUs is a fraction.
    """

    def __init__(self, options: SlurmOptions, folder: Path, cpus: int, gpus: float):
        if gpus != int(gpus):
            raise UserError(f"--gpus-per-run {gpus:g}: SLURM gives whole GPUs only; --on ray shares them.")
        # submitit reads it when it is imported, here and in the jobs: the signal that its jobs answer by requeueing.
        os.environ.setdefault("SUBMITIT_PREEMPT_SIGNAL", "TERM")
        self._submitit: Any = import_optional("submitit", "--on slurm", "slurm")
        self._folder = folder
        try:
            executor = self._submitit.AutoExecutor(
                folder / "%j", options.cluster, slurm_max_num_timeout=MAX_TIMEOUTS, local_max_num_timeout=MAX_TIMEOUTS
            )
        except RuntimeError as error:
            raise UserError(f"--on slurm: {error} Run it where `sbatch` and `srun` work.") from error
        named = {"partition": options.partition, "account": options.account, "qos": options.qos}
        executor.update_parameters(
            name="cdred-sweep",
            nodes=1,
            tasks_per_node=1,
            cpus_per_task=cpus,
            gpus_per_node=int(gpus),
            mem_gb=options.memory_gb,
            timeout_min=options.minutes,
            stderr_to_stdout=True,
            slurm_array_parallelism=options.parallel,
            slurm_signal_delay_s=SIGNAL_SECONDS,
            **{f"slurm_{key}": value for key, value in named.items() if value},
        )
        self._executor, self._queued_on_slurm = executor, options.cluster == "slurm"
        self._jobs: list[tuple[SweepRun, Any]] = []

    def start(self, runs: Sequence[SweepRun]) -> None:
        """Submit the runs as a job array, without those that an earlier call has submitted and that have not ended."""
        earlier = {run: job for run in runs if (job := self._earlier_job(run))}
        new = [run for run in runs if run not in earlier]
        submitted = self._executor.submit_array([SlurmTask(plain_settings(run.config), str(run.folder)) for run in new])
        self._jobs = [*earlier.items(), *zip(new, submitted, strict=True)]
        numbers = self._numbers() | {str(run.folder): job.job_id for run, job in self._jobs}
        atomic_write_text(self._folder / JOBS_FILE, json.dumps(numbers, indent=1) + "\n")

    def _earlier_job(self, run: SweepRun) -> Any:
        """Return the job of a run that is queued or running; None if there is none."""
        number = self._numbers().get(str(run.folder))
        if number is None or not self._queued_on_slurm:
            return None
        job = self._submitit.SlurmJob(self._folder / number, number)
        return None if job.done(force_check=True) else job

    def _numbers(self) -> dict[str, str]:
        """Return the job numbers of all submissions by run folder."""
        path = self._folder / JOBS_FILE
        return json.loads(path.read_text()) if path.exists() else {}

    def ended(self) -> Iterator[tuple[SweepRun, str]]:
        """Return the runs of the jobs that ended since the last call, and what is known of a failure."""
        for run, job in [pair for pair in self._jobs if pair[1].done()]:
            self._jobs.remove((run, job))
            yield run, self._end(job)

    def _end(self, job: Any) -> str:
        where = f"job {job.job_id}, log {job.paths.stdout}"
        error = job.exception()
        return f"{where}: {end_of_process(job.result())}" if error is None else f"{where}: {_last_line(error)}"

    def stop(self) -> str:
        """Leave the jobs in SLURM's queue."""
        numbers = sorted({job.job_id.partition("_")[0] for _, job in self._jobs})
        return f"the jobs go on: {' '.join(numbers)}"

    def close(self) -> None:
        """Do nothing: the jobs belong to SLURM."""


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip("- ")]
    return lines[-1] if lines else type(error).__name__
