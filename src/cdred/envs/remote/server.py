"""Server side of environments in another process: serves one suite to the process that started it.

    python server.py FD SUITE

Run by its path, in any interpreter (3.9 or later) that has NumPy and the suite. `FD` is an inherited socket; `SUITE` a
module with `make(name, render_size=...)`, which returns a `cdred.envs.base.Env` (any object with the
fields of `EnvSpec` as spec, any tuple with the fields of `Step` as step). It may have `versions()`, a mapping of
packages, and `plan(name, seed)`, the actions of an expert's episode. The process ends when the socket closes, so it
cannot outlive its client.

A message is the length of a header (4 bytes, little-endian), the header as JSON, and the bytes of the arrays, with
dtypes and shapes listed in the header. No pickle: the two sides may run different versions of Python and NumPy.
"""

import contextlib
import importlib
import importlib.util
import json
import os
import signal
import sys
import traceback
import types
from multiprocessing.connection import Connection

import numpy as np


def pack(header, arrays=()):
    """Encode a JSON mapping and numeric arrays as one message."""
    arrays = [np.asarray(array, order="C") for array in arrays]
    text = json.dumps({**header, "arrays": [[array.dtype.str, array.shape] for array in arrays]}).encode()
    return b"".join([len(text).to_bytes(4, "little"), text, *(array.tobytes() for array in arrays)])


def unpack(message):
    """Decode a message into its mapping and writable copies of its arrays."""
    offset = 4 + int.from_bytes(message[:4], "little")
    header, arrays = json.loads(message[4:offset]), []
    for dtype, shape in header.pop("arrays"):
        array = np.frombuffer(message, dtype, int(np.prod(shape)), offset).reshape(shape).copy()
        arrays.append(array)
        offset += array.nbytes
    return header, arrays


def serve(connection, suite):
    """Reply to requests until the client closes the connection."""
    envs = {}
    while True:
        try:
            message = connection.recv_bytes()
        except (EOFError, OSError):
            return
        header, arrays = unpack(message)
        try:
            reply = pack(*HANDLERS[header["method"]](suite, envs, header, arrays))
        except Exception as error:
            failure = {"error": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()}
            reply = pack(failure)
        connection.send_bytes(reply)


def make(suite, envs, header, _arrays):
    """Import what registers environments, and make one; return its spec and the suite's package versions."""
    if header["imports"]:
        importlib.import_module("cdred.envs.imports").import_modules(header["imports"])
    module = importlib.import_module(suite)
    env = envs[header["env"]] = module.make(header["name"], render_size=header["render_size"])
    return {"spec": dict(vars(env.spec)), "versions": getattr(module, "versions", dict)()}, []


def reset(_suite, envs, header, _arrays):
    """Return the first observation of the episode of a seed."""
    return {}, obs_arrays(envs[header["env"]].reset(header["argument"]))


def step(_suite, envs, header, arrays):
    """Take one step; NumPy scalars are converted to Python's without loss."""
    obs, reward, *flags = envs[header["env"]].step(*arrays)
    return {"step": [float(reward), *map(bool, flags)]}, obs_arrays(obs)


def obs_arrays(obs):
    """Return the arrays of an observation: one, or vector and image of a `cdred.types.ImageObs`."""
    return list(obs) if isinstance(obs, tuple) else [obs]


def render(_suite, envs, header, _arrays):
    """Return the current frame."""
    return {}, [envs[header["env"]].render()]


def plan(suite, _envs, header, _arrays):
    """Return the actions `[T, A]` of the suite's planner for the episode of a seed; none if it found no plan."""
    return {}, [importlib.import_module(suite).plan(header["name"], header["seed"])]


HANDLERS = {"make": make, "reset": reset, "step": step, "render": render, "plan": plan}


def stub_package():
    """Make `cdred.envs` importable without `cdred/__init__.py` and its dependencies, which may be missing.

    They are imported when a module of the user needs a name of the package, such as `cdred.Trajectory`.
    """
    folder = os.path.dirname(os.path.abspath(__file__))
    # Python puts a script's folder first on the path, where it would shadow the suite's own modules.
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or os.curdir) != folder]
    package = types.ModuleType("cdred")
    package.__path__ = paths = [os.path.dirname(os.path.dirname(folder))]

    def load_package(name):
        if name.startswith("__"):
            raise AttributeError(name)
        location = os.path.join(paths[0], "__init__.py")
        spec = importlib.util.spec_from_file_location("cdred", location, submodule_search_locations=paths)
        assert spec is not None, "a file named .py has a loader"
        assert spec.loader is not None
        del package.__getattr__
        spec.loader.exec_module(package)
        return getattr(package, name)

    package.__getattr__ = load_package
    sys.modules["cdred"] = package


def main():
    """Serve on the socket given on the command line."""
    # Ctrl-C reaches the whole process group; the client decides how to react to it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stub_package()
    with contextlib.suppress(BrokenPipeError):
        serve(Connection(int(sys.argv[1])), sys.argv[2])


if __name__ == "__main__":
    main()
