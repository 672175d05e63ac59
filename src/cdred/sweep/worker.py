"""Process of one run of a sweep: `python -m cdred.sweep.worker FOLDER`, with the run's settings on standard input.

The first line of standard input has the settings as JSON. The process that started this one keeps its end open: when it
ends, for whatever reason, this one saves its state and ends as well, as after SIGTERM.
"""

import json
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import replace
from pathlib import Path

from cdred.api import train
from cdred.config import RunConfig, parse_settings
from cdred.errors import DivergenceError, Interrupted, UserError
from cdred.sweep.events import record
from cdred.sweep.process import SAVE_SECONDS, wait_until_unlocked

# Seconds to wait for the end of another process of the same run, as one that still saves its state.
LOCK_SECONDS = 300.0


def main(folder: Path) -> int:
    """Train, record events in the run folder, and return the exit code, which is that of `cdred train`."""
    config = replace(parse_settings(json.loads(sys.stdin.readline()), ".".join), out=str(folder))
    threading.Thread(target=_stop_after_parent, daemon=True).start()
    wait_until_unlocked(folder, LOCK_SECONDS)
    folder.mkdir(parents=True, exist_ok=True)
    record(folder, "started")
    return _train(config, folder)


def _train(config: RunConfig, folder: Path) -> int:
    try:
        train(config)
    except (Interrupted, KeyboardInterrupt) as error:
        record(folder, "stopped")
        return error.code if isinstance(error, Interrupted) else 130
    except (UserError, DivergenceError) as error:
        record(folder, "failed", error=str(error))
        print(f"cdred: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 3
    except Exception as error:
        record(folder, "failed", error=f"{type(error).__name__}: {error}")
        traceback.print_exc()
        return 1
    record(folder, "finished")
    return 0


def _stop_after_parent() -> None:
    """Wait for the end of standard input, then end this process."""
    # Not sys.stdin: its lock would block the exit of the interpreter.
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SAVE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
