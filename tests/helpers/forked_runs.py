"""Runs of the real command as processes of their own, to be killed and starved, which start without importing anew.

A server that has imported everything, and has no thread yet, forks a process for each run.
"""

import json
import subprocess
import sys
from pathlib import Path

SERVER = """
import json, os, resource, sys
import cdred.api, cdred.cli.evaluate, cdred.cli.train
from cdred.cli.main import main
for line in sys.stdin:
    words, log, largest_file = json.loads(line)
    child = os.fork()
    if child == 0:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1); os.dup2(output, 2)
        if largest_file:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
        code = main(words)
        sys.stdout.flush(); sys.stderr.flush()
        os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Forks:
    """The server. `env` should name a compilation cache: each run compiles."""

    def __init__(self, env: dict[str, str]):
        command = [sys.executable, "-c", SERVER]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def start(self, words: list[str], log: Path, largest_file: int = 0) -> int:
        """Begin `cdred WORDS`; its process. What it prints goes to `log`; no file of it grows beyond `largest_file`."""
        print(json.dumps([words, str(log), largest_file]), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def wait(self) -> int:
        """The exit code of the run begun last, negative for the signal that ended it."""
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End the server."""
        self._process.stdin.close()
        self._process.wait()
