"""Act with an exported policy at a fixed rate, without JAX: an `.onnx` file by onnxruntime, an `.npz` file by NumPy.

    cdred export runs/pendulum --to onnx --out policy.onnx
    python examples/run_exported.py policy.onnx --steps 200 --rate 20

The policy acts in the Gymnasium environment that its file names; `--import my_envs` imports the module that registers
one of your own. For a robot, let `make_env` return an object with `reset` and `step` that read its sensors; `step` also
sends the action. `NumpyPolicy` needs no package but NumPy: its file, src/cdred/export/numpy_policy.py, can be copied.
"""

import argparse
import importlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

Act = Callable[[Any], np.ndarray]
DEFAULT_RATE = 20.0


def load_policy(path: Path) -> tuple[Act, dict[str, Any]]:
    """Return the function from one observation to an action, and the policy's metadata."""
    if path.suffix == ".onnx":
        return load_onnx(path)
    from cdred.export.numpy_policy import NumpyPolicy

    policy = NumpyPolicy(path)
    return policy, policy.metadata


def load_onnx(path: Path) -> tuple[Act, dict[str, Any]]:
    """Load a policy with onnxruntime, in one thread: more are slower for networks of this size."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    texts = session.get_modelmeta().custom_metadata_map
    metadata = texts | {key: json.loads(texts[key]) for key in ("inputs", "control_timestep")}

    def act(obs: Any) -> np.ndarray:
        named = obs if isinstance(obs, dict) else {metadata["inputs"][0]["name"]: obs}
        feed = {
            part["name"]: np.asarray(named[part["name"]], np.float32).reshape(1, *part["shape"])
            for part in metadata["inputs"]
        }
        return session.run(None, feed)[0][0]

    return act, metadata


def make_env(task: str, module: str = "") -> gymnasium.Env:
    """Make the environment of a task `gym/<id>`; `module`, if given, is imported first, to register it."""
    if module:
        importlib.import_module(module)
    suite, _, name = task.partition("/")
    if suite != "gym":
        raise SystemExit(f"{task} is not one of Gymnasium's environments: replace make_env by what reads your sensors.")
    return gymnasium.make(name)


def act_at_rate(act: Act, env: gymnasium.Env, steps: int, rate: float) -> tuple[np.ndarray, int]:
    """Act in real time; returns the seconds that each action took, and how many steps began late."""
    seconds, late, period = np.zeros(steps), 0, 1.0 / rate
    obs, _ = env.reset(seed=0)
    act(obs)  # the first call allocates
    deadline = time.perf_counter()
    for step in range(steps):
        start = time.perf_counter()
        action = act(obs)
        seconds[step] = time.perf_counter() - start
        if not np.isfinite(action).all():
            raise SystemExit(f"step {step}: no finite action for the observation {obs}; stop the robot.")
        obs, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            obs, _ = env.reset()
        deadline += period
        remaining = deadline - time.perf_counter()
        if remaining < 0:
            # Later steps are not hurried to make up for it.
            late, deadline = late + 1, deadline - remaining
        else:
            time.sleep(remaining)
    return seconds, late


def main() -> None:
    """Load a policy, act, and print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", type=Path)
    parser.add_argument("--import", dest="module", default="", help="module on the import path that registers the task")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rate", type=float, help="steps per second; by default the task's, or 20 if it is unknown")
    options = parser.parse_args()
    act, metadata = load_policy(options.policy)
    timestep = metadata["control_timestep"]
    rate = options.rate or (1.0 / timestep if timestep else DEFAULT_RATE)
    env = make_env(metadata["task"], options.module)
    seconds, late = act_at_rate(act, env, options.steps, rate)
    p50, p99 = np.percentile(1000 * seconds, (50, 99))
    print(f"{metadata['policy']} of {metadata['task']}: {options.steps} steps at {rate:g} Hz, {late} late")
    print(f"action: p50 {p50:.3f} ms, p99 {p99:.3f} ms, of {1000 / rate:.0f} ms")


if __name__ == "__main__":
    main()
