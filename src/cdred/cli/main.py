"""The `cdred` command: one verb per task, each a thin face over `cdred.api`."""

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from difflib import get_close_matches

from cdred.errors import DivergenceError, Interrupted, UserError

# Verb: the module whose `main(arguments)` serves it, and what `cdred --help` says of it.
VERBS = {
    "train": ("cdred.cli.train", "train an agent from demonstrations; the same command again resumes"),
    "eval": ("cdred.cli.evaluate", "evaluate a run's agents on fresh episodes"),
    "compare": ("cdred.cli.compare", "train several methods on one task, and set them beside each other"),
    "expert": ("cdred.cli.expert", "make an expert with the true reward, and demonstrations with the expert"),
    "demos": ("cdred.cli.demos", "collect demonstrations, convert them from other formats, look into them"),
    "bench": ("cdred.cli.bench", "time updates, plans, whole loops, and how they grow"),
    "report": ("cdred.cli.report", "draw a run's report; a table of several runs"),
}
USAGE = "usage: cdred VERB ...\n\n{verbs}\n\n`cdred VERB --help` tells more."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 if it finished, 2 for what the user can mend, 3 if it diverged, 130 or 143 if told to stop."""
    try:
        try:
            return _run(list(sys.argv[1:] if arguments is None else arguments))
        finally:
            # A reader that has gone, as in `cdred train --help | head -1`, is to be noticed here, not at Python's exit.
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return 0 if words else 2
    try:
        if words[0] not in VERBS:
            close = get_close_matches(words[0], VERBS, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise UserError(f"no verb '{words[0]}': there are {', '.join(VERBS)}.{hint}")
        # Imported when asked for, so that `--help` does not wait for JAX.
        importlib.import_module(VERBS[words[0]][0]).main(words[1:])
    except UserError as error:
        # What a file says of itself may be in the message, and is not to steer the terminal.
        told = "".join(one if one.isprintable() or one == "\n" else ascii(one)[1:-1] for one in str(error))
        print(f"cdred: {told}", file=sys.stderr)
        return 2
    except DivergenceError as error:
        print(f"cdred: {error}", file=sys.stderr)
        return 3
    except Interrupted as stopped:
        print(f"cdred: {stopped}", file=sys.stderr)
        return stopped.code
    except KeyboardInterrupt:
        print("cdred: interrupted; the same command goes on from the last checkpoint.", file=sys.stderr)
        return 130
    return 0


def _usage() -> str:
    width = max(map(len, VERBS))
    return USAGE.format(verbs="\n".join(f"  {verb:<{width}}  {about}" for verb, (_, about) in VERBS.items()))
