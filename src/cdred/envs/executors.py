"""Who steps a grid's environments: the calling thread, a pool of threads, or processes. The results are the same."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, get_args

import numpy as np
from jaxtyping import UInt8

from cdred.envs.base import Env
from cdred.envs.registry import host, make
from cdred.envs.remote.client import STEP_SECONDS, RemoteEnv, Worker
from cdred.envs.remote.interpreter import current_interpreter
from cdred.types import EnvSpec, VectorizationMode


class EnvExecutor(Protocol):
    """N environments of one task, numbered from 0."""

    @property
    def spec(self) -> EnvSpec:
        """Of each of them."""
        ...

    def call(self, method: str, arguments: dict[int, Any]) -> tuple[dict[int, Any], dict[int, Exception]]:
        """`reset` with seeds or `step` with actions, of those environments that have an argument.

        What they answered, and what was raised by those that did not, with a note that says whose it was.
        """
        ...

    def renew(self, indices: Iterable[int]) -> set[int]:
        """Make these anew, and with them all that share a process with one of them; who was made anew.

        Raises:
            Exception: one of them could not be made.
        """
        ...

    def render(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """The current frame of one."""
        ...

    def close(self) -> None:
        """Free what they hold."""
        ...


def make_executor(
    task: str,
    labels: Sequence[str],
    vectorization: VectorizationMode = "sync",
    render_size: int | None = None,
    env_step_timeout: float = STEP_SECONDS,
) -> EnvExecutor:
    """As many environments of `task` as there are labels.

    Args:
        task: as in `registry.make`.
        labels: what to call each of them when it fails.
        vectorization: `sync` steps them one after another; `thread` and `process` side by side, as many as there are cores.
            A suite that has an interpreter of its own lives in one process, with `process` in several.
        render_size: as in `registry.make`.
        env_step_timeout: seconds that a step in another process may take, as in `Worker`. In this process nothing can
            be interrupted.
    """
    if vectorization not in get_args(VectorizationMode):
        raise ValueError(f"vectorization must be one of {get_args(VectorizationMode)}, got {vectorization!r}")
    if host(task) is not None or vectorization == "process":
        num_workers = min(len(labels), usable_cores()) if vectorization == "process" else 1
        return ProcessExecutor(task, labels, num_workers, render_size, env_step_timeout)
    return (ThreadExecutor if vectorization == "thread" else SyncExecutor)(task, labels, render_size)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class SyncExecutor:
    """In the calling thread, one after another."""

    def __init__(self, task: str, labels: Sequence[str], render_size: int | None = None):
        self._labels = labels
        self._make = partial(make, task, render_size=render_size)
        self._envs: list[Env] = [self._make() for _ in labels]
        self.spec = self._envs[0].spec

    def call(self, method: str, arguments: dict[int, Any]) -> tuple[dict[int, Any], dict[int, Exception]]:
        return gathered({i: self._later(i, method, argument) for i, argument in arguments.items()}, self._labels)

    def _later(self, index: int, method: str, argument: Any) -> Callable[[], Any]:
        return lambda: getattr(self._envs[index], method)(argument)

    def renew(self, indices: Iterable[int]) -> set[int]:
        for index in indices:
            # A broken simulator may not even close.
            with suppress(Exception):
                self._envs[index].close()
            self._envs[index] = self._make()
        return set(indices)

    def render(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        return self._envs[index].render()

    def close(self) -> None:
        for env in self._envs:
            env.close()


class ThreadExecutor(SyncExecutor):
    """Steps in a pool of threads: simulators that let go of Python's lock run side by side."""

    def __init__(self, task: str, labels: Sequence[str], render_size: int | None = None):
        super().__init__(task, labels, render_size)
        self._pool = ThreadPoolExecutor(min(len(labels), usable_cores()), task)

    def _later(self, index: int, method: str, argument: Any) -> Callable[[], Any]:
        # Meta-World seeds NumPy's global generator in a reset, so resets must not run side by side.
        if method != "step":
            return super()._later(index, method, argument)
        return self._pool.submit(self._envs[index].step, argument).result

    def close(self) -> None:
        self._pool.shutdown()
        super().close()


class ProcessExecutor:
    """In other processes, dealt out in turn; each of them steps its own one after another."""

    def __init__(
        self,
        task: str,
        labels: Sequence[str],
        num_workers: int,
        render_size: int | None = None,
        env_step_timeout: float = STEP_SECONDS,
    ):
        abroad, self._labels = host(task), labels
        where, name = (current_interpreter(), task) if abroad is None else (abroad, task.partition("/")[2])
        self._open = partial(Worker, where, env_step_timeout)
        self._order = partial(RemoteEnv, task=task, name=name, render_size=render_size)
        self._workers = [self._open() for _ in range(num_workers)]
        self._envs: dict[int, RemoteEnv] = {}
        try:
            self._make(range(len(labels)))
        except BaseException:
            self.close()
            raise
        self.spec = self._envs[0].spec

    def _make(self, indices: Iterable[int]) -> None:
        ordered = {i: self._order(self._workers[i % len(self._workers)], i) for i in indices}
        made, failures = gathered({i: env.settled for i, env in ordered.items()}, self._labels)
        for failure in failures.values():
            raise failure
        self._envs |= made

    def call(self, method: str, arguments: dict[int, Any]) -> tuple[dict[int, Any], dict[int, Exception]]:
        for i, argument in arguments.items():
            self._envs[i].begin(method, argument)
        return gathered({i: self._envs[i].finish for i in arguments}, self._labels)

    def renew(self, indices: Iterable[int]) -> set[int]:
        places = {i % len(self._workers) for i in indices}
        for place in places:
            # It may hang, and what raised in it may have left it in any state.
            self._workers[place].kill()
            self._workers[place].close()
            self._workers[place] = self._open()
        lost = {i for i in range(len(self._labels)) if i % len(self._workers) in places}
        self._make(sorted(lost))
        return lost

    def render(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        return self._envs[index].render()

    def close(self) -> None:
        for worker in self._workers:
            worker.close()


def gathered(calls: dict[int, Callable[[], Any]], labels: Sequence[str]) -> tuple[dict[int, Any], dict[int, Exception]]:
    """The results of all calls, and the failures of those that have none, with the label of where they happened."""
    results, failures = {}, {}
    for index, call in calls.items():
        try:
            results[index] = call()
        except SystemExit as error:
            # A simulator has no say in when this process ends.
            failures[index] = RuntimeError(f"the simulator called sys.exit({error.code})")
        except Exception as error:
            failures[index] = error
    for index, failure in failures.items():
        failure.add_note(f"It happened in {labels[index]}.")
    return results, failures
