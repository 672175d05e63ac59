"""Runs of the `cdred` command in processes of their own, forked from a server that has imported everything."""

import json
import subprocess
import sys
from pathlib import Path

# The server forks before any thread exists; importing JAX for every run would take seconds.
SERVER = """
import json, os, resource, sys
import cdred.api, cdred.cli.evaluate, cdred.cli.train
from cdred.cli.main import main
for line in sys.stdin:
    args, log, max_file_bytes = json.loads(line)
    child = os.fork()
    if child == 0:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1); os.dup2(output, 2)
        if max_file_bytes:
            resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
        code = main(args)
        sys.stdout.flush(); sys.stderr.flush()
        os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class ForkServer:
    """Server that forks one process per run. `env` should set a compilation cache, because every run compiles."""

    def __init__(self, env: dict[str, str]):
        command = [sys.executable, "-c", SERVER]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def start(self, args: list[str], log: Path, max_file_bytes: int = 0) -> int:
        """Start `cdred ARGS` with output to `log` and a limit on the size of its files; return the process id."""
        print(json.dumps([args, str(log), max_file_bytes]), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def wait(self) -> int:
        """Wait for the last run and return its exit code, negative for the signal that ended it."""
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End the server."""
        self._process.stdin.close()
        self._process.wait()
