"""Whether two devices compute the same, and what rounding the factors of products changes.

    python benchmarks/agreement.py --devices cpu cuda --preset paper --json results/gpu/agreement.json

On each device, in a process of its own: networks from one key, the rewards of a fixed batch of observations and
actions, then updates on a fixed store of noise. Everything is held against the first device in float32. Differences
are relative: of rewards to their standard deviation, of losses to themselves, of an array of the learner to its largest
number.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

PRECISIONS = ("float32", "tf32", "bfloat16")
UPDATES = 20
# As many rewards as are compared.
BATCH = 1024


def main() -> None:
    """Compute in children, compare here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--devices", nargs="+", default=["cpu"], help="JAX's names of platforms; the first is the measure"
    )
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=2, metavar=("PRECISION", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        compute(options.preset, *options.child)
        return
    with tempfile.TemporaryDirectory() as folder:
        found = {
            (device, precision): in_child(device, options.preset, precision, Path(folder))
            for device in options.devices
            for precision in PRECISIONS
        }
    measure = found[options.devices[0], "float32"]
    rows = [
        {"device": device, "precision": precision} | differences(measure, one)
        for (device, precision), one in found.items()
    ]
    for row in rows:
        print(
            "  ".join(f"{key} {value:.1e}" if isinstance(value, float) else f"{value:8}" for key, value in row.items())
        )
    if options.json:
        from cdred.provenance import origin

        options.json.parent.mkdir(parents=True, exist_ok=True)
        about = origin() | {"preset": options.preset, "updates": UPDATES, "against": f"{options.devices[0]}, float32"}
        options.json.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")


def in_child(device: str, preset: str, precision: str, folder: Path) -> dict[str, np.ndarray]:
    """What `compute` makes on this device."""
    file = folder / f"{device}-{precision}.npz"
    words = [sys.executable, __file__, "--preset", preset, "--child", precision, str(file)]
    subprocess.run(words, env=os.environ | {"JAX_PLATFORMS": device}, check=True)
    with np.load(file) as arrays:
        return dict(arrays)


def compute(name: Any, precision: Any, file: str) -> None:
    """Write `reward`, the metrics of the first update and of the last, and the learner after the first."""
    import equinox as eqx
    import jax

    from cdred.api import use_compilation_cache
    from cdred.bench.benchmarks import SPEC, Bench
    from cdred.config import PrecisionConfig, preset

    use_compilation_cache()
    config = replace(preset(name), updates_per_call=1, precision=PrecisionConfig(precision, precision))
    # Without a warm-up the first update teaches every part.
    bench = Bench(replace(config, reward=replace(config.reward, warmup_updates=0)))
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(BATCH, *SPEC.obs_shape)).astype(np.float32)
    action = rng.uniform(-1, 1, (BATCH, SPEC.action_dim)).astype(np.float32)
    reward_at = jax.jit(jax.vmap(jax.vmap(bench.programs.algorithm.reward_at, (None, 0, 0)), (0, None, None)))
    arrays = {"reward": reward_at(bench.learner, obs, action)}
    for count in range(UPDATES):
        arguments = (bench.learner, bench.replay, bench.expert, bench.learn_keys, np.int32(count), None)
        bench.learner, metrics = bench.programs.learn(*arguments)
        if count == 0:
            paths, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(bench.learner, eqx.is_inexact_array))
            arrays |= {f"learner{jax.tree_util.keystr(path)}": np.asarray(leaf) for path, leaf in paths}
        if count in (0, UPDATES - 1):
            arrays |= {f"update {count + 1} {name}": value for name, value in metrics.items()}
    np.savez(file, **{key: np.asarray(value) for key, value in arrays.items()})


def differences(measure: dict[str, np.ndarray], one: dict[str, np.ndarray]) -> dict[str, float | str]:
    """The largest of each kind, and where it is."""
    losses = {key: _relative(measure[key], one[key]) for key in measure if key.startswith("update 1 ")}
    later = {key: _relative(measure[key], one[key]) for key in measure if key.startswith(f"update {UPDATES} ")}
    arrays = {key: _relative(measure[key], one[key]) for key in measure if key.startswith("learner")}
    return {
        "reward": float(np.abs(one["reward"] - measure["reward"]).max() / measure["reward"].std()),
        "first_update": max(losses.values()),
        "first_update_where": max(losses, key=lambda key: losses[key]).removeprefix("update 1 "),
        "learner_after_it": max(arrays.values()),
        "learner_where": max(arrays, key=lambda key: arrays[key]).removeprefix("learner"),
        "last_update": max(later.values()),
    }


def _relative(expected: np.ndarray, found: np.ndarray) -> float:
    scale = float(np.abs(expected).max())
    return float(np.abs(found - expected).max()) / scale if scale else float(np.abs(found).max())


if __name__ == "__main__":
    main()
