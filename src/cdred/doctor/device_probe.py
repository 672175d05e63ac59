"""Prints, as JSON, the devices of JAX, the measured precision of matrix products, and the memory of a preset.

    python -m cdred.doctor.device_probe PRESET [SPEC]

`SPEC` is an `EnvSpec` as JSON; without it, memory is null.
"""

import json
import sys
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from cdred.config import preset
from cdred.host_memory import host_memory
from cdred.nn.precision import dot
from cdred.train.memory import run_memory
from cdred.types import EnvSpec, PresetName

SIZE = 256
# Relative errors of products of rounded inputs: 1e-7 in float32, 4e-4 in TF32, 3e-3 in bfloat16.
FLOAT32_MAX_ERROR, TF32_MAX_ERROR = 1e-5, 1e-3


def measure_precision(product: Callable[[jax.Array, jax.Array], jax.Array]) -> str:
    """Return the precision that the error of a matrix product shows: float32, tf32 or bfloat16 or lower."""
    x, weight = np.random.default_rng(0).standard_normal((2, SIZE, SIZE)).astype(np.float32)
    exact = x.astype(np.float64) @ weight.astype(np.float64)
    error = np.linalg.norm(np.asarray(product(jnp.asarray(x), jnp.asarray(weight)), np.float64) - exact)
    relative = error / np.linalg.norm(exact)
    if relative < FLOAT32_MAX_ERROR:
        return "float32"
    return "tf32" if relative < TF32_MAX_ERROR else "bfloat16 or lower"


def default_product(x: jax.Array, weight: jax.Array) -> jax.Array:
    """Compute a matrix product at JAX's default precision."""
    return jnp.dot(x, weight)


def cdred_product(x: jax.Array, weight: jax.Array) -> jax.Array:
    """Compute a matrix product as the networks do with their default precision."""
    return jax.vmap(lambda row: dot(row, weight, "float32"))(x)


def describe(name: PresetName, spec: EnvSpec | None) -> dict[str, Any]:
    """Return what this module prints."""
    devices = jax.local_devices()
    stats = devices[0].memory_stats() or {}
    return {
        "backend": jax.default_backend(),
        "devices": [f"{device.platform} {device.device_kind}" for device in devices],
        "precision": {"cdred": measure_precision(cdred_product), "jax": measure_precision(default_product)},
        "memory": None if spec is None else run_memory(preset(name), spec)._asdict(),
        "memory_limit": stats.get("bytes_limit"),
        "host_memory": host_memory().total,
    }


def parse_spec(text: str) -> EnvSpec:
    """Return the spec that `dataclasses.asdict` gave as JSON, without the names of parts."""
    fields = json.loads(text)
    # JSON has lists where a spec has tuples.
    return EnvSpec(**(fields | {"obs_shape": tuple(fields["obs_shape"]), "obs_parts": ()}))


if __name__ == "__main__":
    _, preset_name, spec_text = sys.argv
    print(json.dumps(describe(cast(PresetName, preset_name), parse_spec(spec_text) if spec_text else None)))
