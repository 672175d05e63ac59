"""Processor time of the image encoder's gradient: outside of a loop, inside one, and vmapped over networks.

Convolutions are matrix products on CPUs; those of XLA, which other devices have, are measured beside them.

    XLA_FLAGS=--xla_cpu_multi_thread_eigen=false taskset -c 0 python benchmarks/image_encoder.py --json FILE

The times of one process are compared with each other: a machine with other jobs has other times in every run.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from json_output import write_json

from cdred.nn import image_encoder
from cdred.nn.image_encoder import ImageEncoder
from cdred.provenance import provenance
from cdred.types import STACKED_IMAGES, ImageObs

NUM_IMAGES, LOOP, REPEATS = 64, 4, 3
IMPLEMENTATIONS = {"convolution": image_encoder.convolution, "matrix products": image_encoder.matmul_convolution}


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=(32, 64), help="height and width of the images")
    parser.add_argument("--json", type=Path, help="file for the measurements")
    options = parser.parse_args()
    rows = []
    for name, function in IMPLEMENTATIONS.items():
        image_encoder.matmul_convolution = function
        jax.clear_caches()
        rows += [measure(name, size) for size in options.sizes]
    if options.json:
        device = str(jax.devices()[0])
        write_json(options.json, {"rows": rows, "images": NUM_IMAGES, "device": device, **provenance()})


def measure(implementation: str, size: int) -> dict[str, float | str]:
    """Measure milliseconds of processor time per gradient of `NUM_IMAGES` observations."""
    encoder = make_encoder(size, jax.random.key(0))
    image = jax.random.randint(jax.random.key(1), (NUM_IMAGES, STACKED_IMAGES, size, size, 3), 0, 256, jnp.uint8)
    obs = ImageObs(jnp.zeros((NUM_IMAGES, 0)), image)
    both = jax.vmap(lambda key: make_encoder(size, key))(jax.random.split(jax.random.key(2), 2))
    row: dict[str, float | str] = {
        "implementation": implementation,
        "size": size,
        "forward_ms": milliseconds(forward, encoder, obs),
        "gradient_ms": milliseconds(gradient, encoder, obs),
        "gradient_in_a_loop_ms": milliseconds(looped, encoder, obs) / LOOP,
        "gradient_of_two_vmapped_networks_ms": milliseconds(
            vmapped, both, jax.tree.map(lambda x: jnp.stack([x, x]), obs)
        ),
    }
    print({name: round(value, 1) if isinstance(value, float) else value for name, value in row.items()}, flush=True)
    return row


def make_encoder(size: int, key) -> ImageEncoder:
    """Initialise the encoder of the `cpu` preset."""
    return ImageEncoder(size, 0, (128,), 128, simnorm_group=8, layer_norm=False, key=key)


def loss(encoder: ImageEncoder, obs: ImageObs):
    """Compute a loss with a gradient for all weights."""
    return jnp.sum(jax.vmap(encoder)(obs) ** 2)


forward, gradient, vmapped = jax.jit(loss), jax.jit(jax.grad(loss)), jax.jit(jax.vmap(jax.grad(loss)))


@jax.jit
def looped(encoder: ImageEncoder, obs: ImageObs):
    """Take `LOOP` gradient steps in one loop."""

    def step(encoder, _):
        return jax.tree.map(lambda x, g: x - 1e-6 * g, encoder, jax.grad(loss)(encoder, obs)), None

    return jax.lax.scan(step, encoder, None, length=LOOP)[0]


def milliseconds(function: Callable, *args) -> float:
    """Measure the median processor time of a call after a first one, which compiles."""
    times = []
    for _ in range(REPEATS + 1):
        start = time.process_time()
        jax.block_until_ready(function(*args))
        times.append(time.process_time() - start)
    return float(np.median(times[1:]) * 1e3)


if __name__ == "__main__":
    main()
