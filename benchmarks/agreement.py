"""Compare two devices' results, and measure what rounding the factors of matrix products changes.

    python benchmarks/agreement.py --devices cpu cuda --preset paper --json agreement.json

On each device: networks from one key, the rewards of a fixed batch of observations and actions, then updates on a fixed
replay buffer of noise. Everything is compared with the first device in float32. Differences are relative: rewards to
their standard deviation, losses to themselves, an array of the agent's state to its largest entry. Adam's first step
has the sign of the gradient, so that gradients which differ by rounding around zero move a weight apart by two steps.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from json_output import write_json

from cdred.bench.benchmarks import SPEC, Bench
from cdred.compilation_cache import use_compilation_cache
from cdred.config import PrecisionConfig, preset
from cdred.provenance import provenance

PRECISIONS = ("float32", "tf32", "bfloat16")
UPDATES = 20
# Number of rewards compared.
BATCH = 1024


def main() -> None:
    """Compute on every device in every precision, and compare the outputs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", nargs="+", default=["cpu"], help="JAX platforms; the first is the reference")
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    use_compilation_cache()
    # What a product of other precision asks for depends on the default device of the process.
    pairs = [(device, "float32") for device in options.devices]
    pairs += [(jax.default_backend(), precision) for precision in PRECISIONS[1:]]
    outputs = {pair: compute(pair[0], options.preset, pair[1], UPDATES) for pair in pairs}
    reference = outputs[options.devices[0], "float32"]
    rows = [
        {"device": device, "precision": precision} | differences(reference, output)
        for (device, precision), output in outputs.items()
    ]
    for row in rows:
        print(
            "  ".join(f"{key} {value:.1e}" if isinstance(value, float) else f"{value:8}" for key, value in row.items())
        )
    about = {"preset": options.preset, "updates": UPDATES, "against": f"{options.devices[0]}, float32"}
    write_json(options.json, provenance() | about | {"rows": rows})


def compute(device: str, name: Any, precision: Any, updates: int) -> dict[str, np.ndarray]:
    """Return `reward`, the metrics of the first and the last update, and the agent's state after the first.

    Args:
        device: JAX platform; its first device computes.
        name: preset.
        precision: of all matrix products.
        updates: number of updates.
    """
    with jax.default_device(jax.devices(device)[0]):
        config = replace(preset(name), updates_per_call=1, precision=PrecisionConfig(precision, precision))
        # Without a warm-up the first update changes every part.
        bench = Bench(replace(config, optim=replace(config.optim, reward_warmup_updates=0)))
        arrays = {"reward": rewards(bench)}
        for count in range(updates):
            bench.learner, metrics, _ = bench.fns.learn(*bench.update_arguments(count))
            if count == 0:
                paths, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(bench.learner, eqx.is_inexact_array))
                arrays |= {f"state{jax.tree_util.keystr(path)}": np.asarray(leaf) for path, leaf in paths}
            when = "last" if count else "first"
            arrays |= {f"{when} {key}": np.asarray(value) for key, value in metrics.items()}
        return arrays


def rewards(bench: Bench) -> np.ndarray:
    """Compute the rewards of a fixed batch of observations and actions."""
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(BATCH, *SPEC.obs_shape)).astype(np.float32)
    action = rng.uniform(-1, 1, (BATCH, SPEC.action_dim)).astype(np.float32)
    reward_at = jax.jit(jax.vmap(jax.vmap(bench.fns.algorithm.reward_at, (None, 0, 0)), (0, None, None)))
    return np.asarray(reward_at(bench.learner, obs, action))


def differences(reference: dict[str, np.ndarray], output: dict[str, np.ndarray]) -> dict[str, float | str | None]:
    """Return the largest relative difference of each kind, and the array that has it; None without a last update."""

    def errors(prefix: str) -> dict[str, float]:
        keys = [key for key in reference if key.startswith(prefix)]
        return {key.removeprefix(prefix): relative_error(reference[key], output[key]) for key in keys}

    first, last, state = errors("first "), errors("last "), errors("state")
    # Adam's first moment after one update is the gradient times a constant.
    gradient = {key: error for key, error in state.items() if ".mu" in key}
    return {
        "reward": float(np.abs(output["reward"] - reference["reward"]).max() / reference["reward"].std()),
        "first_update": max(first.values()),
        "first_update_metric": max(first, key=lambda key: first[key]),
        "gradient": max(gradient.values()),
        "state_after_it": max(state.values()),
        "state_array": max(state, key=lambda key: state[key]),
        "last_update": max(last.values(), default=None),
    }


def relative_error(expected: np.ndarray, actual: np.ndarray) -> float:
    """Return the largest absolute difference, relative to the largest expected entry unless that is 0."""
    scale = float(np.abs(expected).max())
    return float(np.abs(actual - expected).max()) / scale if scale else float(np.abs(actual).max())


if __name__ == "__main__":
    main()
