"""The far end of the door: serves the environments of one suite to the process that started it.

    python server.py FD SUITE

Run by its path, in any interpreter (3.9 or later) that has NumPy and the suite. `FD` is an inherited socket; `SUITE` a
module with `make(name, render_size=...)`, whose environments look like `cdred.envs.base.Env` (any object with the
fields of `EnvSpec` is a spec, any tuple like `Step` a step). It may have `versions()`, a mapping of packages, and
`plan(name, seed)`, the actions of an expert's episode. When the socket closes, the process ends: it cannot
outlive the one that it works for.

A message is the length of a header (4 bytes, little-endian), the header as JSON, and the bytes of the arrays whose
dtypes and shapes the header lists. No pickle: the two ends may have different versions of Python and NumPy.
"""

import contextlib
import importlib
import json
import os
import signal
import sys
import traceback
import types
from multiprocessing.connection import Connection

import numpy as np


def pack(head, arrays=()):
    """One message of a JSON mapping and arrays of numbers."""
    arrays = [np.asarray(array, order="C") for array in arrays]
    text = json.dumps({**head, "arrays": [[array.dtype.str, array.shape] for array in arrays]}).encode()
    return b"".join([len(text).to_bytes(4, "little"), text, *(array.tobytes() for array in arrays)])


def unpack(message):
    """The mapping and the arrays (copies that may be written to) of a message."""
    at = 4 + int.from_bytes(message[:4], "little")
    head, arrays = json.loads(message[4:at]), []
    for dtype, shape in head.pop("arrays"):
        array = np.frombuffer(message, dtype, int(np.prod(shape)), at).reshape(shape).copy()
        arrays.append(array)
        at += array.nbytes
    return head, arrays


def serve(connection, suite):
    """Answer requests until the other end is gone."""
    envs = {}
    while True:
        try:
            message = connection.recv_bytes()
        except (EOFError, OSError):
            return
        head, arrays = unpack(message)
        try:
            reply = pack(*DO[head["do"]](suite, envs, head, arrays))
        except Exception as error:
            told = {"error": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()}
            reply = pack(told)
        connection.send_bytes(reply)


def make(suite, envs, head, _arrays):
    """The environment's spec, and the versions that the suite tells."""
    module = importlib.import_module(suite)
    env = envs[head["env"]] = module.make(head["name"], render_size=head["render_size"])
    return {"spec": dict(vars(env.spec)), "versions": getattr(module, "versions", dict)()}, []


def reset(_suite, envs, head, _arrays):
    """The first observation of the episode of a seed."""
    return {}, [envs[head["env"]].reset(head["argument"])]


def step(_suite, envs, head, arrays):
    """What one step led to; NumPy's scalars become Python's, exactly."""
    obs, reward, *flags = envs[head["env"]].step(*arrays)
    return {"step": [float(reward), *map(bool, flags)]}, [obs]


def render(_suite, envs, head, _arrays):
    """The current frame."""
    return {}, [envs[head["env"]].render()]


def plan(suite, _envs, head, _arrays):
    """The suite's own plan for the episode of a seed: actions `[T, A]`, none where it found no way."""
    return {}, [importlib.import_module(suite).plan(head["name"], head["seed"])]


DO = {"make": make, "reset": reset, "step": step, "render": render, "plan": plan}


def bare_package():
    """Let `cdred.envs` be imported without `cdred/__init__.py`, whose imports this interpreter may lack."""
    here = os.path.dirname(os.path.abspath(__file__))
    # Python puts a script's folder first; nothing here may stand before a suite's own modules.
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or os.curdir) != here]
    package = types.ModuleType("cdred")
    package.__path__ = [os.path.dirname(os.path.dirname(here))]
    sys.modules["cdred"] = package


def main():
    """Serve on the socket named on the command line."""
    # Ctrl-C reaches the whole group; what it means is for the other end to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    bare_package()
    with contextlib.suppress(BrokenPipeError):
        serve(Connection(int(sys.argv[1])), sys.argv[2])


if __name__ == "__main__":
    main()
