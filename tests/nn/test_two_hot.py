"""Two-hot distributions over symlog values: exact inverses within their range, clipped beyond it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdred.nn.two_hot import TwoHot, symexp, symlog

TWO_HOT = TwoHot()
MAX_VALUE = float(np.float32(np.expm1(10.0)))

encode = jax.jit(TWO_HOT.encode)
decode = jax.jit(TWO_HOT.decode)
values = st.floats(-MAX_VALUE, MAX_VALUE, width=32)


def test_symlog_matches_known_values():
    x = jnp.array([0.0, np.e - 1, 1 - np.e, 1e-6])
    np.testing.assert_allclose(symlog(x), [0.0, 1.0, -1.0, 1e-6], rtol=1e-6)


def test_symexp_inverts_symlog():
    x = jnp.concatenate([-jnp.logspace(-6, 6, 50), jnp.zeros(1), jnp.logspace(-6, 6, 50)])
    np.testing.assert_allclose(symexp(symlog(x)), x, rtol=1e-5)


@given(values)
def test_decode_inverts_encode(x):
    assert float(decode(jnp.log(encode(x)))) == pytest.approx(x, rel=2e-5, abs=2e-5)


@given(values)
def test_encoding_is_distribution_over_two_neighbours(x):
    p = np.asarray(encode(x))
    hot = np.flatnonzero(p)
    assert p.sum() == pytest.approx(1.0, abs=1e-5)
    assert p.min() >= 0
    assert len(hot) <= 2
    assert hot[-1] - hot[0] <= 1


@pytest.mark.parametrize(("x", "bin_index"), [(1e9, -1), (-1e9, 0), (float(np.expm1(10.5)), -1)])
def test_values_beyond_range_are_clipped(x, bin_index):
    p = encode(x)
    assert p[bin_index] == 1.0
    assert p.sum() == 1.0
    assert float(decode(jnp.log(p))) == pytest.approx(np.sign(x) * MAX_VALUE, rel=1e-5)


def test_equal_logits_decode_to_zero():
    assert float(decode(jnp.full(101, 3.0))) == pytest.approx(0.0, abs=1e-5)


def test_cross_entropy_of_equal_logits_is_log_bins():
    assert float(TWO_HOT.cross_entropy(jnp.zeros(101), jnp.array(5.3))) == pytest.approx(np.log(101), rel=1e-6)


@pytest.mark.parametrize("x", [-300.0, 0.0, 0.123, 17.0])
def test_cross_entropy_is_minimal_at_target(x):
    target = jnp.array(x)
    p = encode(target)
    best = jnp.log(jnp.maximum(p, 1e-30))
    entropy = -float(jnp.sum(p * best))
    assert float(TWO_HOT.cross_entropy(best, target)) == pytest.approx(entropy, abs=1e-6)
    np.testing.assert_allclose(jax.grad(TWO_HOT.cross_entropy)(best, target), jnp.zeros(101), atol=1e-6)
    for key in jax.random.split(jax.random.key(0), 5):
        assert float(TWO_HOT.cross_entropy(best + jax.random.normal(key, (101,)), target)) >= entropy - 1e-6
