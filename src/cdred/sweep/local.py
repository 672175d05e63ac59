"""Runs in processes of this machine, some at a time."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from cdred.config_file import plain_settings
from cdred.sweep.plan import SweepRun
from cdred.sweep.process import RunProcess, gpu_memory


class LocalBackend:
    """Processes of this machine. They end with this process, after saving their states.

    Args:
        jobs: number of runs at a time, which share the memory of a GPU equally.
    """

    def __init__(self, jobs: int):
        self._env = gpu_memory(1 / jobs)
        self._threads = ThreadPoolExecutor(jobs)
        self._processes: list[RunProcess] = []
        self._futures: dict[Future[int | None], SweepRun] = {}

    def start(self, runs: Sequence[SweepRun]) -> None:
        """Start as many runs as there may be at a time, and the others when these have ended."""
        for run in runs:
            process = RunProcess(plain_settings(run.config), run.folder, self._env)
            self._processes.append(process)
            self._futures[self._threads.submit(process.run)] = run

    def ended(self) -> Iterator[tuple[SweepRun, str]]:
        """Return the runs that ended since the last call, and how if not by themselves."""
        for future in [future for future in self._futures if future.done()]:
            yield self._futures.pop(future), end_of_process(future.result())

    def stop(self) -> str:
        """Stop all runs, and wait until they have saved their states."""
        for process in self._processes:
            process.stop()
        self._threads.shutdown()
        return "the runs have saved their states"

    def close(self) -> None:
        """Stop runs that have not ended."""
        self.stop()


def end_of_process(code: int | None) -> str:
    """Describe the end of a run's process by a signal; empty for any other end."""
    return f"its process was killed by signal {-code}" if code is not None and code < 0 else ""
