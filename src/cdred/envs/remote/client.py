"""Client side of environments in another process."""

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

from cdred.envs.base import Obs, Step, validate_step
from cdred.envs.remote import server
from cdred.envs.remote.interpreter import Interpreter, subprocess_env
from cdred.errors import UserError
from cdred.types import EnvSpec, ImageObs

# Default timeout of a step in seconds. Other calls, which may compile a model or build a scene, take longer.
STEP_TIMEOUT = 60.0
SLOW_CALL_FACTOR = 10
# Seconds that a process has to exit on its own before it is killed.
EXIT_TIMEOUT = 10.0
# Last lines of a dead process's output to report.
OUTPUT_LINES = 12


class EnvServer:
    """Process that serves environments. It ends when it is closed or when this process ends, for whatever reason.

    Requests may be sent ahead; replies come in the order of the requests. POSIX only.

    Args:
        interpreter: the interpreter and its suite.
        env_step_timeout: seconds that a step may take; other calls may take `SLOW_CALL_FACTOR` times as long.
    """

    def __init__(self, interpreter: Interpreter, env_step_timeout: float = STEP_TIMEOUT):
        self.interpreter, self._step_timeout = interpreter, env_step_timeout
        self._connection, remote_end = Pipe()
        # The suite's output is kept for error messages, and off the terminal, which the dashboard writes to.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                [interpreter.python, server.__file__, str(remote_end.fileno()), interpreter.suite],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                pass_fds=[remote_end.fileno()],
                env=subprocess_env(interpreter),
            )
        finally:
            remote_end.close()

    def send(self, header: dict[str, Any], arrays: Sequence[np.ndarray] = ()) -> None:
        """Send a request. If the process has died, the error is raised by `receive`."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send_bytes(server.pack(header, arrays))

    def receive(self, *, step: bool = False) -> tuple[dict[str, Any], list[np.ndarray]]:
        """Wait for the next reply.

        Args:
            step: the request was a step, which selects the timeout.

        Raises:
            RuntimeError: the process has died.
            TimeoutError: it did not reply in time, and was killed.
            Exception: raised by the environment, of the same type if it is built in or a UserError.
        """
        seconds = self._step_timeout * (1 if step else SLOW_CALL_FACTOR)
        try:
            message = self._connection.recv_bytes() if self._connection.poll(seconds) else None
        except (EOFError, OSError) as error:
            raise self._exit_error() from error
        if message is None:
            self.kill()
            call = "a step" if step else "a call"
            raise TimeoutError(f"{call} took more than {seconds:g} s (--env-step-timeout), its process was killed")
        header, arrays = server.unpack(message)
        if "error" in header:
            raise _to_exception(**header)
        return header, arrays

    def _exit_error(self) -> RuntimeError:
        try:
            code = self._process.wait(EXIT_TIMEOUT)
        except subprocess.TimeoutExpired:
            code = None
        reason = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        self._output.seek(0)
        output = self._output.read().decode(errors="replace").splitlines()[-OUTPUT_LINES:]
        ended = f"the simulator's process {self._process.pid} {reason}"
        return RuntimeError("\n".join([f"{ended}; its last output:", *output]) if output else ended)

    def kill(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End the process; safe to call twice."""
        self._connection.close()
        try:
            self._process.wait(EXIT_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
        self._output.close()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid


def _to_exception(error: str, message: str, traceback: str) -> Exception:
    """Rebuild a remote exception; RuntimeError if its type is neither built in nor UserError."""
    make = _exception_types().get(error)
    exception = make(message) if make else RuntimeError(f"{error}: {message}")
    exception.add_note(f"In the simulator's process:\n{traceback.rstrip()}")
    return exception


def _exception_types() -> Mapping[str, Callable[[str], Exception]]:
    types = (kind for kind in vars(builtins).values() if isinstance(kind, type) and issubclass(kind, Exception))
    # A KeyError would quote its message again, and a few types cannot be made from a message.
    rebuildable = {
        kind.__name__: kind for kind in types if not issubclass(kind, (KeyError, UnicodeError, ExceptionGroup))
    }
    return rebuildable | {"UserError": UserError}


class RemoteEnv:
    """An `Env` in an `EnvServer`, which may serve others as well.

    It is usable, and has a `spec` and the `versions` of its packages, after `wait_ready`. `send` and `wait` are the
    two halves of a call: the process works in between, and this one need not wait.

    Args:
        server: process of the environment.
        index: number of the environment within its process.
        task: full name of the task.
        name: name of the task within its suite.
        render_size: as in `registry.make`.
        owner: end the process with `close`.
    """

    def __init__(
        self, server: EnvServer, index: int, task: str, name: str, render_size: int | None, *, owner: bool = False
    ):
        self._server, self._index, self._owner = server, index, owner
        self._task, self._name = task, name
        self._pending: deque[str] = deque()
        request = {"env": index, "name": name, "render_size": render_size, "imports": server.interpreter.imports}
        server.send({"method": "make", **request})

    @classmethod
    def spawn(
        cls,
        interpreter: Interpreter,
        task: str,
        name: str,
        render_size: int | None,
        env_step_timeout: float = STEP_TIMEOUT,
    ) -> Self:
        """Make an environment in a process of its own that ends with `close`."""
        server = EnvServer(interpreter, env_step_timeout)
        try:
            return cls(server, 0, task, name, render_size, owner=True).wait_ready()
        except BaseException:
            server.close()
            raise

    def wait_ready(self) -> Self:
        """Wait until the simulator is made and return this environment; raises the exceptions of its construction."""
        try:
            header, _ = self._server.receive()
        except ImportError as error:
            python, hint = self._server.interpreter.python, self._server.interpreter.install_hint
            raise UserError(f"{self._task} needs a package that {python} cannot import ({error}): {hint}") from error
        spec, self.versions = header["spec"], header["versions"]
        # JSON has lists where a spec has tuples.
        obs_parts = tuple((name, width) for name, width in spec.get("obs_parts", ()))
        fields = {"task": self._task, "obs_shape": tuple(spec["obs_shape"]), "obs_parts": obs_parts}
        self.spec = EnvSpec(**(spec | fields))
        return self

    def send(self, method: str, argument: Any = None) -> None:
        """Request `reset` (with a seed), `step` (with an action) or `render`."""
        arrays = [argument] if isinstance(argument, np.ndarray) else []
        number = None if arrays or argument is None else int(argument)
        self._pending.append(method)
        self._server.send({"method": method, "env": self._index, "argument": number}, arrays)

    def wait(self) -> Any:
        """Return the result of the oldest pending `send`; raises the environment's exceptions."""
        header, arrays = self._server.receive(step=self._pending.popleft() == "step")
        result = ImageObs(*arrays) if len(arrays) > 1 else arrays[0]
        return validate_step(self.spec, Step(result, *header["step"])) if "step" in header else result

    def reset(self, seed: int) -> Obs:
        self.send("reset", seed)
        return self.wait()

    def step(self, action: Float32[np.ndarray, " A"]) -> Step:
        self.send("step", np.asarray(action, np.float32))
        return self.wait()

    def render(self) -> UInt8[np.ndarray, "H W 3"]:
        self.send("render")
        return self.wait()

    def plan(self, seed: int) -> Float32[np.ndarray, "T A"]:
        """Return the actions of the suite's planner for the episode of `seed`; none if it found no plan.

        Raises:
            UserError: the suite has no planner for this task.
        """
        self._server.send({"method": "plan", "name": self._name, "seed": seed})
        return self._server.receive()[1][0]

    def close(self) -> None:
        if self._owner:
            self._server.close()
