"""Executors of vectorized environments: the calling thread, a thread pool, or processes. All give the same results."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, get_args

import numpy as np
from jaxtyping import UInt8

from cdred.envs.base import Env
from cdred.envs.registry import make, remote_interpreter
from cdred.envs.remote.client import STEP_TIMEOUT, EnvServer, RemoteEnv
from cdred.envs.remote.interpreter import current_interpreter
from cdred.types import EnvSpec, VectorizationMode


class EnvExecutor(Protocol):
    """N environments of one task, numbered from 0."""

    @property
    def spec(self) -> EnvSpec:
        """Spec of each environment."""
        ...

    def call(self, method: str, arguments: dict[int, Any]) -> tuple[dict[int, Any], dict[int, Exception]]:
        """Call a method of several environments.

        Args:
            method: `reset` or `step`.
            arguments: seed or action per environment.

        Returns:
            Results, and the exceptions of those that raised, with the environment's label as a note.
        """
        ...

    def recreate(self, indices: Iterable[int]) -> set[int]:
        """Recreate these environments and all that share a process with one of them; return who was recreated.

        Raises:
            Exception: one of them cannot be made.
        """
        ...

    def render(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """Return the current frame of one environment."""
        ...

    def close(self) -> None:
        """Free all resources."""
        ...


def make_executor(
    task: str,
    labels: Sequence[str],
    vectorization: VectorizationMode = "sync",
    render_size: int | None = None,
    env_step_timeout: float = STEP_TIMEOUT,
) -> EnvExecutor:
    """Make one environment of `task` per label.

    Args:
        task: as in `registry.make`.
        labels: names of the environments in messages.
        vectorization: `sync` steps the environments one after another, `thread` and `process` concurrently, on as
            many threads or processes as there are cores. A suite with its own interpreter runs in one process, with
            `process` in several.
        render_size: as in `registry.make`.
        env_step_timeout: seconds that a step in another process may take, as in `EnvServer`. A step in this process
            cannot be interrupted.
    """
    if vectorization not in get_args(VectorizationMode):
        raise ValueError(f"vectorization must be one of {get_args(VectorizationMode)}, got {vectorization!r}")
    if remote_interpreter(task) is not None or vectorization == "process":
        num_processes = min(len(labels), usable_cores()) if vectorization == "process" else 1
        return ProcessExecutor(task, labels, num_processes, render_size, env_step_timeout)
    return (ThreadExecutor if vectorization == "thread" else SyncExecutor)(task, labels, render_size)


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class SyncExecutor:
    """Steps environments in the calling thread, one after another."""

    def __init__(self, task: str, labels: Sequence[str], render_size: int | None = None):
        self._labels = labels
        self._make = partial(make, task, render_size=render_size)
        self._envs: list[Env] = [self._make() for _ in labels]
        self.spec = self._envs[0].spec

    def call(self, method: str, arguments: dict[int, Any]) -> tuple[dict[int, Any], dict[int, Exception]]:
        return gather({i: self._submit(i, method, argument) for i, argument in arguments.items()}, self._labels)

    def _submit(self, index: int, method: str, argument: Any) -> Callable[[], Any]:
        return lambda: getattr(self._envs[index], method)(argument)

    def recreate(self, indices: Iterable[int]) -> set[int]:
        for index in indices:
            # A failed simulator may also fail to close.
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
    """Steps environments in a thread pool: simulators that release Python's lock run concurrently."""

    def __init__(self, task: str, labels: Sequence[str], render_size: int | None = None):
        super().__init__(task, labels, render_size)
        self._pool = ThreadPoolExecutor(min(len(labels), usable_cores()), task)

    def _submit(self, index: int, method: str, argument: Any) -> Callable[[], Any]:
        # Meta-World seeds NumPy's global generator in a reset, so resets must not run concurrently.
        if method != "step":
            return super()._submit(index, method, argument)
        return self._pool.submit(self._envs[index].step, argument).result

    def close(self) -> None:
        self._pool.shutdown()
        super().close()


class ProcessExecutor:
    """Steps environments in other processes, assigned round-robin; each process steps its own one after another."""

    def __init__(
        self,
        task: str,
        labels: Sequence[str],
        num_processes: int,
        render_size: int | None = None,
        env_step_timeout: float = STEP_TIMEOUT,
    ):
        remote, self._labels = remote_interpreter(task), labels
        interpreter, name = (current_interpreter(), task) if remote is None else (remote, task.partition("/")[2])
        self._start_server = partial(EnvServer, interpreter, env_step_timeout)
        self._request_env = partial(RemoteEnv, task=task, name=name, render_size=render_size)
        self._servers = [self._start_server() for _ in range(num_processes)]
        self._envs: dict[int, RemoteEnv] = {}
        try:
            self._make(range(len(labels)))
        except BaseException:
            self.close()
            raise
        self.spec = self._envs[0].spec

    def _make(self, indices: Iterable[int]) -> None:
        requested = {i: self._request_env(self._servers[i % len(self._servers)], i) for i in indices}
        ready, failures = gather({i: env.wait_ready for i, env in requested.items()}, self._labels)
        for failure in failures.values():
            raise failure
        self._envs |= ready

    def call(self, method: str, arguments: dict[int, Any]) -> tuple[dict[int, Any], dict[int, Exception]]:
        for i, argument in arguments.items():
            self._envs[i].send(method, argument)
        return gather({i: self._envs[i].wait for i in arguments}, self._labels)

    def recreate(self, indices: Iterable[int]) -> set[int]:
        positions = {i % len(self._servers) for i in indices}
        for position in positions:
            # Not reused: it may hang, and an exception may have left it in any state.
            self._servers[position].kill()
            self._servers[position].close()
            self._servers[position] = self._start_server()
        lost = {i for i in range(len(self._labels)) if i % len(self._servers) in positions}
        self._make(sorted(lost))
        return lost

    def render(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        return self._envs[index].render()

    def close(self) -> None:
        for server in self._servers:
            server.close()


def gather(calls: dict[int, Callable[[], Any]], labels: Sequence[str]) -> tuple[dict[int, Any], dict[int, Exception]]:
    """Call each function; return the results, and the exceptions of those that raised with their label as a note."""
    results, failures = {}, {}
    for index, call in calls.items():
        try:
            results[index] = call()
        except SystemExit as error:
            # A simulator must not end this process.
            failures[index] = RuntimeError(f"the simulator called sys.exit({error.code})")
        except Exception as error:
            failures[index] = error
    for index, failure in failures.items():
        failure.add_note(f"Raised in {labels[index]}.")
    return results, failures
