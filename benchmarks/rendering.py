"""Rendering of camera images: images per second, and the share of rendering in a training loop.

    python benchmarks/rendering.py --json results/benchmarks/rendering.json

Rendering is what a step takes with images beyond a step with states, random actions in both. The loop is that of the
`cpu` preset with one seed. `python benchmarks/executors.py --tasks 'dmc/walker-walk?obs=pixels'` compares processes.
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path

import jax
from json_output import write_json

import cdred
from cdred.bench.benchmarks import loop_rates
from cdred.config import RunConfig
from cdred.envs.registry import get_env_spec
from cdred.provenance import provenance
from cdred.resolve import resolve_demos
from cdred.task_name import with_obs

TASKS = ("metaworld/reach", "dmc/cartpole-swingup", "dmc/walker-walk")


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--sizes", nargs="+", type=int, default=(32, 64), help="height and width of the images")
    parser.add_argument("--blocks", type=int, default=2, help="blocks of steps of each loop")
    parser.add_argument("--json", type=Path, help="file for the measurements")
    options = parser.parse_args()
    machine = {"device": str(jax.devices()[0]), "opengl": os.environ.get("MUJOCO_GL", "")}
    rows: list[dict[str, object]] = []
    for task in options.tasks:
        rows += measure(task, options.sizes, options.blocks)
        if options.json:
            write_json(options.json, {"rows": rows, **machine, **provenance()})


def measure(task: str, sizes: list[int], blocks: int) -> list[dict[str, object]]:
    """Measure a row for every size of the images."""
    state, rows = loop(task, blocks), []
    for size in sizes:
        pixels = loop(with_obs(task, "pixels", size), blocks)
        render_ms = pixels["simulators_ms"] - state["simulators_ms"]
        row = {
            "task": task,
            "size": size,
            "images_per_second": 1e3 / render_ms,
            "step_ms": state["simulators_ms"],
            "render_ms": render_ms,
            "loop_ms": pixels["total_ms"],
            "render_share": render_ms / pixels["total_ms"],
        }
        rows.append(row)
        print({name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}, flush=True)
    return rows


def loop(task: str, blocks: int) -> dict[str, float]:
    """Measure the loop of the `cpu` preset, without pretraining, on a task."""
    config = cdred.preset("cpu")
    changes = {"task": task, "seeds": (0,), "random_episodes": 1, "pretrain": replace(config.pretrain, updates=0)}
    config = RunConfig(**vars(config) | changes)
    return loop_rates(config, resolve_demos(config, get_env_spec(task), print), blocks)


if __name__ == "__main__":
    main()
