"""Runs as tasks of a Ray cluster, which restarts those of a lost machine on another one, where they resume."""

import asyncio
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cdred.config_file import plain_settings
from cdred.data.formats.common import import_optional
from cdred.errors import UserError
from cdred.sweep.local import end_of_process
from cdred.sweep.plan import SweepRun
from cdred.sweep.process import SAVE_SECONDS, gpu_memory, train_in_process

# Times that Ray restarts a run after the loss of its machine or worker process.
MAX_RETRIES = 20
ADDRESS_HINT = (
    "Give the HOST:PORT that `ray start --head` printed, or none to start a cluster on this machine. The token of a "
    "cluster that has one must be in ~/.ray/auth_token on all its machines and on this one."
)
AUTH_MODE, TOKEN_VARIABLES, TOKEN = "RAY_AUTH_MODE", ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"), ".ray/auth_token"
CONNECT_SECONDS = 10.0


class RayBackend:
    """Tasks of a Ray cluster. The run folders have to be on a file system that all its machines share.

    Args:
        address: of an existing cluster, `auto` or `HOST:PORT`; if empty, one is started on this machine, and ends with
            this process.
        cpus: CPU cores of a run.
        gpus: GPUs of a run, or a fraction of one.

    Raises:
        UserError: Ray is not installed, there is no cluster at the address, or the cluster of this machine has too few
            cores or GPUs for a run.
    """

    def __init__(self, address: str, cpus: int, gpus: float):
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if address and _has_token():
            # Ray reads this when it is imported. By itself it sends a token only to clusters that it has started.
            os.environ.setdefault(AUTH_MODE, "token")
        self._ray: Any = import_optional("ray", "--on ray", "ray")
        if address not in ("", "auto"):
            _check_address(address)
        options = {} if address else {"include_dashboard": False}
        try:
            self._ray.init(address or "local", log_to_driver=False, configure_logging=False, **options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(
                f"--ray-address {address or '(none)'}: {str(error).splitlines()[0]}\n{ADDRESS_HINT}"
            ) from error
        if not address:
            self._check_resources(cpus, gpus)
        self._env = gpu_memory(gpus)
        task = self._ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=MAX_RETRIES)
        self._task = task(train_in_process)
        self._refs: dict[Any, SweepRun] = {}

    def _check_resources(self, cpus: int, gpus: float) -> None:
        """Refuse what the cluster of this machine never has; another cluster may grow."""
        has = self._ray.cluster_resources()
        for name, option, needed in (("CPU", "--cpus-per-run", cpus), ("GPU", "--gpus-per-run", gpus)):
            if needed > has.get(name, 0):
                self.close()
                raise UserError(f"{option} {needed:g}: Ray finds {has.get(name, 0):g} of them on this machine.")

    def start(self, runs: Sequence[SweepRun]) -> None:
        """Queue the runs."""
        for run in runs:
            ref = self._task.options(name=run.name).remote(plain_settings(run.config), str(run.folder), self._env)
            self._refs[ref] = run

    def ended(self) -> Iterator[tuple[SweepRun, str]]:
        """Return the runs that ended since the last call, and Ray's error if it gave one up."""
        refs = list(self._refs)
        done, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0) if refs else ([], [])
        for ref in done:
            yield self._refs.pop(ref), self._end(ref)

    def _end(self, ref: Any) -> str:
        try:
            return end_of_process(self._ray.get(ref))
        except self._ray.exceptions.RayError as error:
            return f"Ray gave it up: {str(error).splitlines()[0]}"

    def stop(self) -> str:
        """Cancel all tasks, and wait until their runs have saved their states."""
        for ref in self._refs:
            self._ray.cancel(ref, force=False)
        self._ray.wait(list(self._refs), num_returns=len(self._refs), timeout=SAVE_SECONDS)
        return "the runs have saved their states"

    def close(self) -> None:
        """Disconnect from the cluster; one that was started here ends."""
        self._ray.shutdown()


def _check_address(address: str) -> None:
    """Check that something answers at an address, because Ray tries to connect for many minutes."""
    host, _, port = address.rpartition(":")
    try:
        asyncio.run(_connect(host, int(port)))
    except (OSError, ValueError, OverflowError, TimeoutError) as error:
        reason = "it is not HOST:PORT" if isinstance(error, ValueError) else "nothing answers there"
        raise UserError(f"--ray-address {address}: {reason}.\n{ADDRESS_HINT}") from error


def _has_token() -> bool:
    """Return True if this machine has a token of Ray."""
    return any(os.environ.get(name) for name in TOKEN_VARIABLES) or (Path.home() / TOKEN).exists()


async def _connect(host: str, port: int) -> None:
    _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), CONNECT_SECONDS)
    writer.close()
