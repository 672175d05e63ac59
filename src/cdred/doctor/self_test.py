"""Trains for some updates on a task without a simulator, saves, loads and acts.

python -m cdred.doctor.self_test
"""

import json
import math
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from cdred.doctor.checks import Check, ProbeError, run_probe

MODULE = "cdred.doctor.self_test"
TASK, DEMOS, SEEDS = "probe/point", 3, (0, 1)
# Much longer than it takes where nothing else runs.
SECONDS = 600
# Most of the time is compilation, which takes a quarter as long without optimizations.
VARIABLES = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def check_training() -> Check:
    """Run the self-test in another process."""
    name = "self-test"
    try:
        found = run_probe(MODULE, seconds=SECONDS, variables=VARIABLES)
    except ProbeError as error:
        return Check(name, "problem", str(error))
    text = (
        f"{found['updates']} updates on {TASK} finite, checkpoint loaded, action within its bounds; "
        f"{found['seconds']:.0f} s"
    )
    return Check(name, "ok", text)


def self_test(folder: Path) -> dict[str, Any]:
    """Train, load the checkpoint and act.

    Args:
        folder: receives the run and the compiled programs.

    Returns:
        `{"updates", "seconds"}`: number of updates, and of seconds for everything after the imports.

    Raises:
        RuntimeError: a metric of the updates is not finite, or an action is not within its bounds.
    """
    import cdred
    from cdred.algos.pretrain import PretrainConfig
    from cdred.config import preset
    from cdred.demos.scripted import collect_scripted
    from cdred.loggers.metrics import read_lines

    start, run = time.perf_counter(), folder / "run"
    config = replace(preset("debug"), task=TASK, seeds=SEEDS, pretrain=PretrainConfig(), video=False, out=str(run))
    cdred.train(config, demos=collect_scripted(TASK, DEMOS), quiet=True)
    lines = [line for line in read_lines(run / "metrics.jsonl") if line["kind"] == "train"]
    check_finite(lines)
    check_action(cdred.load(run))
    return {"updates": lines[-1]["updates"], "seconds": time.perf_counter() - start}


def check_finite(lines: list[dict[str, Any]]) -> None:
    """Check that there are metrics of updates, all finite.

    Raises:
        RuntimeError: there are none, or one is not finite.
    """
    if not lines:
        raise RuntimeError("no update was made")
    for name, value in lines[-1].items():
        values = value if isinstance(value, list) else [value]
        # Metrics that do not apply are None; a metrics file has no other text than the kind of its line.
        if not all(x is None or isinstance(x, str) or math.isfinite(x) for x in values):
            raise RuntimeError(f"{name} is not finite after {lines[-1]['step']} steps: {value}")


def check_action(agent: Any) -> None:
    """Check that the agent's first action is within the bounds of its task.

    Raises:
        RuntimeError: it is not.
    """
    from contextlib import closing

    from cdred.envs.registry import make

    with closing(make(agent.spec.task)) as env:
        action = agent.act(env.reset(0))
    low, high = agent.spec.action_bounds
    if not ((low <= action) & (action <= high)).all():
        raise RuntimeError(f"the action {action} is not between {low} and {high}")


if __name__ == "__main__":
    import jax

    with tempfile.TemporaryDirectory() as temporary:
        # In place of the user's caches, in which no files are to be left.
        os.environ.setdefault("MPLCONFIGDIR", temporary)
        jax.config.update("jax_compilation_cache_dir", temporary)
        print(json.dumps(self_test(Path(temporary))))
