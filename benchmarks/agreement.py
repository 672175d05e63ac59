"""Compare two devices' results, and measure what rounding the factors of matrix products changes.

    python benchmarks/agreement.py --devices cpu cuda --preset paper --json agreement.json

On each device, in a process of its own: networks from one key, the rewards of a fixed batch of observations and
actions, then updates on a fixed replay buffer of noise. Everything is compared with the first device in float32.
Differences are relative: rewards to their standard deviation, losses to themselves, an array of the agent's state to
its largest entry.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from json_output import write_json

PRECISIONS = ("float32", "tf32", "bfloat16")
UPDATES = 20
# Number of rewards compared.
BATCH = 1024


def main() -> None:
    """Run one child process per device and precision, and compare their outputs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", nargs="+", default=["cpu"], help="JAX platforms; the first is the reference")
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=2, metavar=("PRECISION", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        compute(options.preset, *options.child)
        return
    with tempfile.TemporaryDirectory() as folder:
        outputs = {
            (device, precision): compute_in_child(device, options.preset, precision, Path(folder))
            for device in options.devices
            for precision in PRECISIONS
        }
    reference = outputs[options.devices[0], "float32"]
    rows = [
        {"device": device, "precision": precision} | differences(reference, output)
        for (device, precision), output in outputs.items()
    ]
    for row in rows:
        print(
            "  ".join(f"{key} {value:.1e}" if isinstance(value, float) else f"{value:8}" for key, value in row.items())
        )
    if options.json:
        from cdred.provenance import provenance

        about = {"preset": options.preset, "updates": UPDATES, "against": f"{options.devices[0]}, float32"}
        write_json(options.json, provenance() | about | {"rows": rows})


def compute_in_child(device: str, preset: str, precision: str, folder: Path) -> dict[str, np.ndarray]:
    """Return the arrays that `compute` writes on this device."""
    file = folder / f"{device}-{precision}.npz"
    command = [sys.executable, __file__, "--preset", preset, "--child", precision, str(file)]
    subprocess.run(command, env=os.environ | {"JAX_PLATFORMS": device}, check=True)
    with np.load(file) as arrays:
        return dict(arrays)


def compute(name: Any, precision: Any, file: str) -> None:
    """Write `reward`, the metrics of the first and the last update, and the agent's state after the first."""
    import equinox as eqx
    import jax

    from cdred.api import use_compilation_cache
    from cdred.bench.benchmarks import SPEC, Bench
    from cdred.config import PrecisionConfig, preset

    use_compilation_cache()
    config = replace(preset(name), updates_per_call=1, precision=PrecisionConfig(precision, precision))
    # Without a warm-up the first update changes every part.
    bench = Bench(replace(config, optim=replace(config.optim, reward_warmup_updates=0)))
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(BATCH, *SPEC.obs_shape)).astype(np.float32)
    action = rng.uniform(-1, 1, (BATCH, SPEC.action_dim)).astype(np.float32)
    reward_at = jax.jit(jax.vmap(jax.vmap(bench.fns.algorithm.reward_at, (None, 0, 0)), (0, None, None)))
    arrays = {"reward": reward_at(bench.learner, obs, action)}
    for count in range(UPDATES):
        arguments = (bench.learner, bench.replay, bench.expert, bench.learn_keys, np.int32(count), None)
        bench.learner, metrics, _ = bench.fns.learn(*arguments)
        if count == 0:
            paths, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(bench.learner, eqx.is_inexact_array))
            arrays |= {f"state{jax.tree_util.keystr(path)}": np.asarray(leaf) for path, leaf in paths}
        if count in (0, UPDATES - 1):
            arrays |= {f"update {count + 1} {name}": value for name, value in metrics.items()}
    np.savez(file, **{key: np.asarray(value) for key, value in arrays.items()})


def differences(reference: dict[str, np.ndarray], output: dict[str, np.ndarray]) -> dict[str, float | str]:
    """Return the largest relative difference of each kind, and the array that has it."""

    def errors(prefix: str) -> dict[str, float]:
        keys = [key for key in reference if key.startswith(prefix)]
        return {key.removeprefix(prefix): relative_error(reference[key], output[key]) for key in keys}

    first, last, state = errors("update 1 "), errors(f"update {UPDATES} "), errors("state")
    return {
        "reward": float(np.abs(output["reward"] - reference["reward"]).max() / reference["reward"].std()),
        "first_update": max(first.values()),
        "first_update_metric": max(first, key=lambda key: first[key]),
        "state_after_it": max(state.values()),
        "state_array": max(state, key=lambda key: state[key]),
        "last_update": max(last.values()),
    }


def relative_error(expected: np.ndarray, actual: np.ndarray) -> float:
    """Return the largest absolute difference, relative to the largest expected entry unless that is 0."""
    scale = float(np.abs(expected).max())
    return float(np.abs(actual - expected).max()) / scale if scale else float(np.abs(actual).max())


if __name__ == "__main__":
    main()
