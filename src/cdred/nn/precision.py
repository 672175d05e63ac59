"""Matrix products whose factors are rounded, on request, before they are multiplied; sums are float32 always.

The rounding is written out, so that an option means the same numbers on every device. Where the device has units for
such factors (GPUs), the product is told to use them.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.lax import DotAlgorithmPreset
from jaxtyping import Array, Float

from cdred.types import Precision

# Of both formats: the exponent is float32's.
_EXPONENT_BITS = 8
_MANTISSA_BITS: dict[Precision, int] = {"tf32": 10, "bfloat16": 7}
_UNITS = {"tf32": DotAlgorithmPreset.TF32_TF32_F32, "bfloat16": DotAlgorithmPreset.BF16_BF16_F32}


def dot(x: Float[Array, " in"], weight: Float[Array, "in out"], precision: Precision) -> Float[Array, " out"]:
    """x W. On a GPU `float32` is really float32: JAX's default there is TF32."""
    if precision == "float32":
        return jnp.dot(x, weight, precision=jax.lax.Precision.HIGHEST)
    return _rounded_dot(precision, x, weight)


# Autodiff alone would multiply gradients that nobody has rounded.
@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _rounded_dot(precision: Precision, x: Array, weight: Array) -> Array:
    units = None if jax.default_backend() == "cpu" else _UNITS[precision]
    return jnp.dot(rounded(x, precision), rounded(weight, precision), precision=units)


def _forward(precision, x, weight):
    return _rounded_dot(precision, x, weight), (x, weight)


def _backward(precision, factors, gradient):
    x, weight = factors
    of_weight = _rounded_dot(precision, x[:, None], gradient[None])
    return _rounded_dot(precision, gradient, weight.T), of_weight


_rounded_dot.defvjp(_forward, _backward)


def rounded(x: Float[Array, "..."], precision: Precision) -> Float[Array, "..."]:
    """float32 numbers with the mantissa of `precision`, to the nearest."""
    return x if precision == "float32" else jax.lax.reduce_precision(x, _EXPONENT_BITS, _MANTISSA_BITS[precision])
