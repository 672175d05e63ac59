"""Matrix products of rounded inputs: forward, gradient and second derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.nn.layers import MLP
from cdred.nn.precision import dot, round_mantissa

KEY = jax.random.key(0)
X, W = jax.random.normal(KEY, (12,)), jax.random.normal(jax.random.key(1), (12, 5))


@pytest.mark.parametrize(("precision", "mantissa"), [("tf32", 10), ("bfloat16", 7)])
def test_mantissa_is_rounded_to_nearest(precision, mantissa):
    last = 2.0**-mantissa
    x = jnp.array([1.0, 1 + last, 1 + 0.4 * last, 1 + 0.6 * last, -3e38, 1e-37])
    expected = [1.0, 1 + last, 1.0, 1 + last]
    np.testing.assert_array_equal(round_mantissa(x, precision)[:4], np.float32(expected))
    np.testing.assert_allclose(round_mantissa(x, precision), x, rtol=last)


def test_bfloat16_rounding_equals_device_dtype():
    np.testing.assert_array_equal(round_mantissa(X, "bfloat16"), X.astype(jnp.bfloat16).astype(jnp.float32))


def test_float32_is_full_precision_product():
    np.testing.assert_allclose(dot(X, W, "float32"), np.asarray(X, np.float64) @ np.asarray(W, np.float64), rtol=2e-6)


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_product_and_gradients_use_rounded_inputs(precision):
    x, w = (np.asarray(round_mantissa(v, precision), np.float64) for v in (X, W))
    g = jnp.linspace(-1.0, 2.0, 5)
    rounded_g = np.asarray(round_mantissa(g, precision), np.float64)
    product, pullback = jax.vjp(lambda a, b: dot(a, b, precision), X, W)
    np.testing.assert_allclose(product, x @ w, rtol=1e-5)
    for got, expected in zip(pullback(g), (w @ rounded_g, np.outer(x, rounded_g)), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5)
    assert not np.allclose(product, dot(X, W, "float32"), rtol=1e-6)


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_rounded_network_can_be_differentiated_twice(precision):
    """As a gradient penalty does."""
    rounded = MLP(12, (16,), 1, precision=precision, key=KEY)
    exact = MLP(12, (16,), 1, key=KEY)

    def penalty(mlp, x):
        return jnp.sum(jax.jacrev(mlp)(x) ** 2)

    gradient, expected = (jax.jit(jax.grad(lambda x, m=mlp: penalty(m, x)))(X) for mlp in (rounded, exact))
    assert jnp.isfinite(gradient).all()
    np.testing.assert_allclose(gradient, expected, atol=0.05 * float(jnp.abs(expected).max()))


@pytest.mark.parametrize("simnorm_group", [0, 8])
def test_precision_reaches_every_layer(simnorm_group):
    """A comparison of outputs would not notice a single layer without it."""
    mlp = MLP(12, (16, 16), 16, simnorm_group=simnorm_group, precision="bfloat16", key=KEY)
    layers = [*(hidden.linear for hidden in mlp.hidden), mlp.head if not simnorm_group else mlp.head.linear]
    assert [layer.precision for layer in layers] == ["bfloat16"] * 3
