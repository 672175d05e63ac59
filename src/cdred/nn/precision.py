"""Matrix products with inputs rounded to a chosen precision; sums are always float32.

The rounding is explicit, so that a precision gives the same inputs on every device. On a GPU the product also asks for
the matching tensor-core algorithm.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.lax import DotAlgorithmPreset
from jaxtyping import Array, Float

from cdred.types import Precision

# TF32 and bfloat16 have float32's exponent.
_EXPONENT_BITS = 8
_MANTISSA_BITS: dict[Precision, int] = {"tf32": 10, "bfloat16": 7}
_DOT_PRESETS = {"tf32": DotAlgorithmPreset.TF32_TF32_F32, "bfloat16": DotAlgorithmPreset.BF16_BF16_F32}


def dot(x: Float[Array, " in"], weight: Float[Array, "in out"], precision: Precision) -> Float[Array, " out"]:
    """Compute x W. `float32` means float32 on a GPU too, where JAX's default is TF32."""
    if precision == "float32":
        return jnp.dot(x, weight, precision=jax.lax.Precision.HIGHEST)
    return _rounded_dot(precision, x, weight)


# Without a custom gradient the backward products would take unrounded gradients.
@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _rounded_dot(precision: Precision, x: Array, weight: Array) -> Array:
    algorithm = None if jax.default_backend() == "cpu" else _DOT_PRESETS[precision]
    return jnp.dot(round_mantissa(x, precision), round_mantissa(weight, precision), precision=algorithm)


def _forward(precision, x, weight):
    return _rounded_dot(precision, x, weight), (x, weight)


def _backward(precision, factors, gradient):
    x, weight = factors
    weight_gradient = _rounded_dot(precision, x[:, None], gradient[None])
    return _rounded_dot(precision, gradient, weight.T), weight_gradient


_rounded_dot.defvjp(_forward, _backward)


def round_mantissa(x: Float[Array, "..."], precision: Precision) -> Float[Array, "..."]:
    """Round float32 numbers to the mantissa of `precision`, to nearest."""
    return x if precision == "float32" else jax.lax.reduce_precision(x, _EXPONENT_BITS, _MANTISSA_BITS[precision])
