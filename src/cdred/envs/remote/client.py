"""The near end of the door: environments of another process, used like our own."""

import builtins
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from typing import Any, Self

import numpy as np
from jaxtyping import Float32, UInt8

from cdred.envs.base import Step, checked
from cdred.envs.remote import server
from cdred.envs.remote.interpreter import Interpreter, environment
from cdred.errors import UserError
from cdred.types import EnvSpec

# Time for a worker to finish its step and free what it holds before it is killed.
GRACE_SECONDS = 10.0
# Time for one step, and how much longer everything else may take: compiling a model, building a scene.
STEP_SECONDS, PATIENCE = 60.0, 10
LOG_LINES = 12


class Worker:
    """A process that serves environments. It ends when it is closed, and when this process ends, however it does.

    Requests may be sent ahead; answers come in their order. POSIX only.

    Args:
        host: the interpreter and its suite.
        env_step_timeout: seconds that a step may take; everything else may take `PATIENCE` times as long.
    """

    def __init__(self, host: Interpreter, env_step_timeout: float = STEP_SECONDS):
        self.host, self._step_timeout = host, env_step_timeout
        self._connection, theirs = Pipe()
        # What a suite prints is kept for the day it dies, and off the terminal, which is somebody else's.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                [host.python, server.__file__, str(theirs.fileno()), host.suite],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[theirs.fileno()],
                env=environment(host),
            )
        finally:
            theirs.close()

    def send(self, head: dict[str, Any], arrays: Sequence[np.ndarray] = ()) -> None:
        """Ask for something. That the process has died is said by `receive`."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send_bytes(server.pack(head, arrays))

    def receive(self, *, step: bool = False) -> tuple[dict[str, Any], list[np.ndarray]]:
        """The next answer, which is that to a step or to something else.

        Raises:
            RuntimeError: the process has died.
            TimeoutError: it did not answer in time, and was ended.
            Exception: what the environment raised, as far as its type is known here.
        """
        seconds = self._step_timeout * (1 if step else PATIENCE)
        try:
            message = self._connection.recv_bytes() if self._connection.poll(seconds) else None
        except (EOFError, OSError) as error:
            raise self._death() from error
        if message is None:
            self.kill()
            what = "a step" if step else "an answer"
            raise TimeoutError(f"{what} took more than {seconds:g} s (--env-step-timeout), its process was ended")
        head, arrays = server.unpack(message)
        if "error" in head:
            raise _rebuilt(**head)
        return head, arrays

    def _death(self) -> RuntimeError:
        try:
            code = self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        how = f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        self._log.seek(0)
        said = self._log.read().decode(errors="replace").splitlines()[-LOG_LINES:]
        ended = f"the simulator's process {self._process.pid} {how}"
        return RuntimeError("\n".join([f"{ended}; it last said:", *said]) if said else ended)

    def kill(self) -> None:
        """End the process at once, whatever it is doing."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End the process; safe to call twice."""
        self._connection.close()
        try:
            self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._log.close()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid


def _rebuilt(error: str, message: str, traceback: str) -> Exception:
    """The same exception, here; RuntimeError where its type is neither built in nor ours."""
    known = _exceptions().get(error)
    rebuilt = known(message) if known else RuntimeError(f"{error}: {message}")
    rebuilt.add_note(f"In the simulator's process:\n{traceback.rstrip()}")
    return rebuilt


def _exceptions() -> Mapping[str, Callable[[str], Exception]]:
    kinds = (kind for kind in vars(builtins).values() if isinstance(kind, type) and issubclass(kind, Exception))
    # A KeyError would quote its message once more, and a few types cannot be made of a message.
    plain = {kind.__name__: kind for kind in kinds if not issubclass(kind, (KeyError, UnicodeError, ExceptionGroup))}
    return plain | {"UserError": UserError}


class RemoteEnv:
    """An `Env` that lives in a `Worker`, which may serve others as well.

    It is there for use, and has a `spec` and the `versions` of its packages, when it has `settled`. `begin` and
    `finish` are the two halves of a call: between them the process works and this one need not wait.

    Args:
        worker: where.
        index: its number among the worker's environments.
        task: how we call it.
        name: how the suite calls it.
        render_size: as in `registry.make`.
        owner: end the worker with `close`.
    """

    def __init__(
        self, worker: Worker, index: int, task: str, name: str, render_size: int | None, *, owner: bool = False
    ):
        self._worker, self._index, self._owner = worker, index, owner
        self._task, self._name = task, name
        self._open: deque[str] = deque()
        worker.send({"do": "make", "env": index, "name": name, "render_size": render_size})

    @classmethod
    def alone(
        cls, host: Interpreter, task: str, name: str, render_size: int | None, env_step_timeout: float = STEP_SECONDS
    ) -> Self:
        """The environment `name` of a suite, in a process of its own that ends with `close`."""
        worker = Worker(host, env_step_timeout)
        try:
            return cls(worker, 0, task, name, render_size, owner=True).settled()
        except BaseException:
            worker.close()
            raise

    def settled(self) -> Self:
        """This, after waiting until the simulator is made; raises what its making raised."""
        try:
            head, _ = self._worker.receive()
        except ImportError as error:
            where, mend = self._worker.host.python, self._worker.host.mend
            raise UserError(f"{self._task} needs a package that {where} cannot import ({error}): {mend}") from error
        spec, self.versions = head["spec"], head["versions"]
        self.spec = EnvSpec(**(spec | {"task": self._task, "obs_shape": tuple(spec["obs_shape"])}))
        return self

    def begin(self, method: str, argument: Any = None) -> None:
        """Ask for `reset` (with a seed), `step` (with an action) or `render`."""
        arrays = [argument] if isinstance(argument, np.ndarray) else []
        number = None if arrays or argument is None else int(argument)
        self._open.append(method)
        self._worker.send({"do": method, "env": self._index, "argument": number}, arrays)

    def finish(self) -> Any:
        """What the oldest open `begin` asked for; raises what the environment raised."""
        head, (array,) = self._worker.receive(step=self._open.popleft() == "step")
        return checked(self.spec, Step(array, *head["step"])) if "step" in head else array

    def reset(self, seed: int) -> Float32[np.ndarray, "*obs"]:
        self.begin("reset", seed)
        return self.finish()

    def step(self, action: Float32[np.ndarray, " A"]) -> Step:
        self.begin("step", np.asarray(action, np.float32))
        return self.finish()

    def render(self) -> UInt8[np.ndarray, "H W 3"]:
        self.begin("render")
        return self.finish()

    def plan(self, seed: int) -> Float32[np.ndarray, "T A"]:
        """The suite's own plan for the episode of `seed`: its actions; none where it found no way.

        Raises:
            UserError: the suite has no planner for this task.
        """
        self._worker.send({"do": "plan", "name": self._name, "seed": seed})
        return self._worker.receive()[1][0]

    def close(self) -> None:
        if self._owner:
            self._worker.close()
