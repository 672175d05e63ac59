"""Policy as StableHLO for CPU and CUDA: an archive of a function that `jax.export` serialised, and its metadata.

with zipfile.ZipFile("policy.stablehlo") as archive:
    policy = jax.jit(jax.export.deserialize(bytearray(archive.read("jax_export.bin"))).call)
    metadata = json.loads(archive.read("metadata.json"))
"""

import json
import zipfile
from typing import Any, BinaryIO

import jax
import jax.export
import jax.numpy as jnp

from cdred.export.numpy_policy import Layer, apply_layers

FUNCTION, METADATA = "jax_export.bin", "metadata.json"
PLATFORMS = ("cpu", "cuda")


def write_stablehlo(file: BinaryIO, layers: list[Layer], metadata: dict[str, Any]) -> None:
    """Write the function of a batch `[batch, ...]` of any size; of several inputs, of a dict of batches by name.

    An observation that is not finite has an action of NaN.
    """
    inputs = metadata["inputs"]

    def act(*parts):
        x = jnp.concatenate([part.reshape(-1) for part in parts])
        return jnp.where(jnp.isfinite(x).all(), apply_layers(layers, x, jnp), jnp.nan)

    def act_on_batch(obs):
        return jax.vmap(act)(*([obs[part["name"]] for part in inputs] if isinstance(obs, dict) else [obs]))

    (batch,) = jax.export.symbolic_shape("batch")
    parts = {part["name"]: jax.ShapeDtypeStruct((batch, *part["shape"]), jnp.float32) for part in inputs}
    obs = parts if len(parts) > 1 else parts[inputs[0]["name"]]
    with jax.default_matmul_precision("highest"):
        exported = jax.export.export(jax.jit(act_on_batch), platforms=PLATFORMS)(obs)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(FUNCTION, bytes(exported.serialize()))
        archive.writestr(METADATA, json.dumps(metadata, indent=1))
