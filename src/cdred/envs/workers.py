"""Who steps a grid's environments: the calling thread, a pool of threads, or processes. The results are the same."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Protocol, get_args

import numpy as np
from jaxtyping import UInt8

from cdred.envs.base import Env
from cdred.envs.registry import host, make
from cdred.envs.remote.client import RemoteEnv, Worker
from cdred.envs.remote.host import our_host
from cdred.types import EnvSpec

WorkersName = Literal["sync", "thread", "process"]


class Crew(Protocol):
    """N environments of one task, numbered from 0."""

    @property
    def spec(self) -> EnvSpec:
        """Of each of them."""
        ...

    def call(self, method: str, arguments: dict[int, Any]) -> dict[int, Any]:
        """`reset` with seeds or `step` with actions, of those environments that have an argument.

        All of them finish before the first exception, if any, is raised, with a note that says whose it was.
        """
        ...

    def render(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """The current frame of one."""
        ...

    def close(self) -> None:
        """Free what they hold."""
        ...


def crew(task: str, labels: Sequence[str], workers: WorkersName = "sync", render_size: int | None = None) -> Crew:
    """As many environments of `task` as there are labels.

    Args:
        task: as in `registry.make`.
        labels: what to call each of them when it fails.
        workers: `sync` steps them one after another; `thread` and `process` side by side, as many as there are cores.
            A suite that has an interpreter of its own lives in one process, with `process` in several.
        render_size: as in `registry.make`.
    """
    if workers not in get_args(WorkersName):
        raise ValueError(f"workers must be one of {get_args(WorkersName)}, got {workers!r}")
    if host(task) is not None or workers == "process":
        return Processes(task, labels, min(len(labels), usable_cores()) if workers == "process" else 1, render_size)
    return (Threads if workers == "thread" else Here)(task, labels, render_size)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Here:
    """In the calling thread, one after another."""

    def __init__(self, task: str, labels: Sequence[str], render_size: int | None = None):
        self._labels = labels
        self._envs: list[Env] = [make(task, render_size=render_size) for _ in labels]
        self.spec = self._envs[0].spec

    def call(self, method: str, arguments: dict[int, Any]) -> dict[int, Any]:
        return gathered({i: self._later(i, method, argument) for i, argument in arguments.items()}, self._labels)

    def _later(self, index: int, method: str, argument: Any) -> Callable[[], Any]:
        return lambda: getattr(self._envs[index], method)(argument)

    def render(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        return self._envs[index].render()

    def close(self) -> None:
        for env in self._envs:
            env.close()


class Threads(Here):
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


class Processes:
    """In other processes, dealt out in turn; each of them steps its own one after another."""

    def __init__(self, task: str, labels: Sequence[str], num_workers: int, render_size: int | None = None):
        abroad, self._labels = host(task), labels
        where, name = (our_host(), task) if abroad is None else (abroad, task.partition("/")[2])
        self._workers = [Worker(where) for _ in range(num_workers)]
        try:
            envs = [RemoteEnv(self._workers[i % num_workers], i, task, name, render_size) for i, _ in enumerate(labels)]
            self._envs = gathered({i: env.settled for i, env in enumerate(envs)}, labels)
        except BaseException:
            self.close()
            raise
        self.spec = self._envs[0].spec

    def call(self, method: str, arguments: dict[int, Any]) -> dict[int, Any]:
        for i, argument in arguments.items():
            self._envs[i].begin(method, argument)
        return gathered({i: self._envs[i].finish for i in arguments}, self._labels)

    def render(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        return self._envs[index].render()

    def close(self) -> None:
        for worker in self._workers:
            worker.close()


def gathered(calls: dict[int, Callable[[], Any]], labels: Sequence[str]) -> dict[int, Any]:
    """The results of all calls; then, if some failed, the first failure, with the label of where it happened."""
    results, failures = {}, []
    for index, call in calls.items():
        try:
            results[index] = call()
        except Exception as error:
            error.add_note(f"It happened in {labels[index]}.")
            failures.append(error)
    if failures:
        raise failures[0]
    return results
