"""Measure the time of an action in a 20 Hz control loop: by planner, policy and exported policies.

    taskset -c 0 python benchmarks/control_loop.py RUN --json results/benchmarks/control_loop.json

All act in the environment of the run's task, one after the other, and sleep for the rest of every period as a robot's
loop would. The first action after `Agent.warm_up` counts too, and every first action of an exported policy. onnxruntime
has one thread; NumPy has those of its BLAS library, which `taskset` limits. An action includes its conversion to the
environment's units.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from json_output import write_json

import cdred
from cdred.action_units import normalize_actions
from cdred.envs.registry import make
from cdred.export.numpy_policy import NumpyPolicy
from cdred.provenance import package_versions, provenance

Act = Callable[[np.ndarray], np.ndarray]


class Actor(NamedTuple):
    """A way to act: the function from an observation to an action, and what begins an episode."""

    name: str
    act: Act
    reset: Callable[[], Any]


def actors(run: Path, folder: Path) -> Iterator[Actor]:
    """Yield the agent by its policy and by its planner, and its exported policy in two formats."""
    for planner in ("policy", "mppi"):
        agent = cdred.load(run, planner=planner).warm_up().reset()
        yield Actor(planner, agent.act, agent.reset)
    paths = [cdred.export(run, to, folder / f"policy.{to}") for to in ("onnx", "npz")]
    yield Actor("exported to onnx", onnx_policy(paths[0]), lambda: None)
    yield Actor("exported to npz", NumpyPolicy(paths[1]), lambda: None)


def onnx_policy(path: Path) -> Act:
    """Return the function from an observation to an action, by onnxruntime in one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = [(part.name, part.shape[1]) for part in session.get_inputs()]

    def act(obs: np.ndarray) -> np.ndarray:
        ends = np.cumsum([width for _, width in inputs])
        parts = np.split(obs[None], ends[:-1], axis=1)
        return session.run(None, {name: part for (name, _), part in zip(inputs, parts, strict=True)})[0][0]

    return act


def action_seconds(actor: Actor, task: str, steps: int, period: float) -> list[float]:
    """Return the seconds that each of `steps` actions took."""
    env, seconds, seed = make(task), [], 0
    low, high = env.spec.action_bounds
    obs, _ = env.reset(seed), actor.reset()
    while len(seconds) < steps:
        start = time.perf_counter()
        action = actor.act(obs)
        seconds.append(time.perf_counter() - start)
        step = env.step(normalize_actions(action, low, high))
        obs = step.obs
        if step.terminated or step.truncated:
            seed += 1
            obs, _ = env.reset(seed), actor.reset()
        time.sleep(max(0.0, period - (time.perf_counter() - start)))
    env.close()
    return seconds


def main() -> None:
    """Measure all ways to act, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=20.0, help="actions per second")
    parser.add_argument("--note", help="circumstances to record, such as other processes")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    task = cdred.load(options.run).spec.task
    rows, load = {}, os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        for actor in actors(options.run, Path(folder)):
            milliseconds = 1000 * np.array(action_seconds(actor, task, options.steps, 1 / options.rate))
            p50, p99 = np.percentile(milliseconds, (50, 99))
            late = float(np.mean(milliseconds > 1000 / options.rate))
            rows[actor.name] = {"p50_ms": p50, "p99_ms": p99, "max_ms": milliseconds.max(), "late": late}
            print(f"{actor.name:<16} p50 {p50:.3f} ms, p99 {p99:.3f} ms, late {late:.1%} of {options.steps} actions")
    cores = len(os.sched_getaffinity(0))
    facts = {"task": task, "rate_hz": options.rate, "steps": options.steps, "cores": cores}
    facts |= {"load_average": load, "note": options.note, "onnxruntime": package_versions(["onnxruntime"])}
    write_json(options.json, provenance() | facts | {"times": rows})


if __name__ == "__main__":
    main()
