"""The `cdred` command: one verb per task, each a thin layer over `cdred.api`."""

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version

from cdred.errors import DivergenceError, Interrupted, UserError
from cdred.suggest import did_you_mean
from cdred.text import printable

# Verb: module whose `main(arguments)` runs it, and its line in `cdred --help`.
VERBS = {
    "train": ("cdred.cli.train", "train an agent from demonstrations; the same command again resumes"),
    "eval": ("cdred.cli.evaluate", "evaluate the agents of a run on unseen episodes"),
    "export": ("cdred.cli.export", "write the policy of a run as ONNX, StableHLO or NumPy arrays, for deployment"),
    "push": ("cdred.cli.push", "share a run: copy it to a folder or to a repository of the Hugging Face hub"),
    "pull": ("cdred.cli.pull", "copy a shared run to a new run folder, and verify it"),
    "compare": ("cdred.cli.compare", "train several methods on one task and compare them"),
    "sweep": ("cdred.cli.sweep", "train tasks x methods x seeds x settings on many processes or machines"),
    "study": ("cdred.cli.study", "run a named experiment to its data, table and figure"),
    "train-expert": ("cdred.cli.train_expert", "train TD-MPC2 on the true reward and record demonstrations with it"),
    "demos": ("cdred.cli.demos", "collect, convert, inspect, check and list demonstrations"),
    "bench": ("cdred.cli.bench", "measure the speed of updates, planning and whole training loops"),
    "tasks": ("cdred.cli.tasks", "list tasks with their sizes, their demonstrations, and if they load here"),
    "doctor": ("cdred.cli.doctor", "check the installation: packages, device, simulators, rendering, a short training"),
    "report": ("cdred.cli.report", "draw the report of a run; print a table of several runs"),
}
# Verbs that go on from where they were interrupted.
RESUMABLE = ("train", "compare", "sweep", "study", "train-expert")
USAGE = (
    "usage: cdred VERB ...\n\n{verbs}\n\n"
    "Run `cdred VERB --help` for the options of a verb, `cdred --version` for the version."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Returns:
        0 on success, 1 if demonstrations cannot be used for training (`cdred demos info`) or disagree with their replay
        (`cdred demos check`), if something of the installation does not work (`cdred doctor`), or if a run failed
        (`cdred sweep`, `cdred study`), 2 for an error that the user can fix, 3 if training diverged, 130 or 143 after
        Ctrl-C or SIGTERM.
    """
    try:
        try:
            return _run(list(sys.argv[1:] if arguments is None else arguments))
        finally:
            # A closed pipe, as in `cdred train --help | head -1`, has to raise here and not at interpreter exit.
            if sys.stdout:  # None if it was closed before the start
                sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _run(arguments: list[str]) -> int:
    if sys.platform == "win32":
        return _report(
            "Windows is not supported (file locks, signals and inherited sockets are POSIX's): use WSL 2.", 2
        )
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0 if arguments else 2
    if arguments == ["--version"]:
        print(f"cdred {version('cdred')}")
        return 0
    try:
        return _run_verb(*arguments)
    except SystemExit as exit_:
        # tyro prints its own message about wrong options.
        if exit_.code != 2:
            raise
        return 2
    except UserError as error:
        return _report(error, 2)
    except DivergenceError as error:
        return _report(error, 3)
    except Interrupted as error:
        return _report(error, error.code)
    except KeyboardInterrupt:
        resumes = "; the same command resumes from the last checkpoint" if arguments[0] in RESUMABLE else ""
        return _report(f"interrupted{resumes}.", 130)


def _report(error: object, code: int) -> int:
    """Print a message on standard error and return the exit code."""
    print(f"cdred: {printable(str(error))}", file=sys.stderr)
    return code


def _run_verb(verb: str, *arguments: str) -> int:
    if verb not in VERBS:
        raise UserError(f"unknown verb '{verb}'. Verbs: {', '.join(VERBS)}.{did_you_mean(verb, VERBS)}")
    # Imported on demand, because a verb needs the modules of no other verb.
    return importlib.import_module(VERBS[verb][0]).main(list(arguments)) or 0


def _usage() -> str:
    width = max(map(len, VERBS))
    return USAGE.format(verbs="\n".join(f"  {verb:<{width}}  {about}" for verb, (_, about) in VERBS.items()))
