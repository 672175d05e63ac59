"""Rounded matrix products: which numbers are multiplied, forwards and backwards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.nn.layers import MLP
from cdred.nn.precision import dot, rounded

KEY = jax.random.key(0)
X, W = jax.random.normal(KEY, (12,)), jax.random.normal(jax.random.key(1), (12, 5))


@pytest.mark.parametrize(("precision", "mantissa"), [("tf32", 10), ("bfloat16", 7)])
def test_rounding_is_to_the_nearest_of_so_many_bits(precision, mantissa):
    last = 2.0**-mantissa
    x = jnp.array([1.0, 1 + last, 1 + 0.4 * last, 1 + 0.6 * last, -3e38, 1e-37])
    expected = [1.0, 1 + last, 1.0, 1 + last]
    np.testing.assert_array_equal(rounded(x, precision)[:4], np.float32(expected))
    np.testing.assert_allclose(rounded(x, precision), x, rtol=last)


def test_bfloat16_is_the_devices_bfloat16():
    np.testing.assert_array_equal(rounded(X, "bfloat16"), X.astype(jnp.bfloat16).astype(jnp.float32))


def test_float32_is_the_plain_product():
    np.testing.assert_allclose(dot(X, W, "float32"), np.asarray(X, np.float64) @ np.asarray(W, np.float64), rtol=2e-6)


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_rounded_factors_and_an_exact_sum_forwards_and_backwards(precision):
    x, w = (np.asarray(rounded(v, precision), np.float64) for v in (X, W))
    g = jnp.linspace(-1.0, 2.0, 5)
    rounded_g = np.asarray(rounded(g, precision), np.float64)
    product, pullback = jax.vjp(lambda a, b: dot(a, b, precision), X, W)
    np.testing.assert_allclose(product, x @ w, rtol=1e-5)
    for got, expected in zip(pullback(g), (w @ rounded_g, np.outer(x, rounded_g)), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5)
    assert not np.allclose(product, dot(X, W, "float32"), rtol=1e-6)


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_slopes_of_a_rounded_network_can_be_learned_from(precision):
    """A gradient penalty differentiates twice."""
    network = MLP(12, (16,), 1, precision=precision, key=KEY)
    plain = MLP(12, (16,), 1, key=KEY)

    def penalty(mlp, x):
        return jnp.sum(jax.jacrev(mlp)(x) ** 2)

    close, exact = (jax.jit(jax.grad(lambda x, m=mlp: penalty(m, x)))(X) for mlp in (network, plain))
    assert jnp.isfinite(close).all()
    np.testing.assert_allclose(close, exact, atol=0.05 * float(jnp.abs(exact).max()))


@pytest.mark.parametrize("simnorm_group", [0, 8])
def test_every_layer_is_told(simnorm_group):
    """Each layer's rounding alone would leave the others' share of the difference out."""
    mlp = MLP(12, (16, 16), 16, simnorm_group=simnorm_group, precision="bfloat16", key=KEY)
    layers = [*(hidden.linear for hidden in mlp.hidden), mlp.head if not simnorm_group else mlp.head.linear]
    assert [layer.precision for layer in layers] == ["bfloat16"] * 3
