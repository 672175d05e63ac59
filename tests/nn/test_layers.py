"""Layers against values computed by hand, and batched evaluation against plain loops."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.nn.layers import (
    MLP,
    Ensemble,
    LayerNorm,
    Linear,
    NormedLinear,
    SharedLatent,
    concat_input,
    ema,
    mish,
    simnorm,
)

KEY = jax.random.key(0)
POINTS = jnp.linspace(-50.0, 50.0, 2001)


def reference_mish(x):
    return x * jnp.tanh(jax.nn.softplus(x))


def member(ensemble: Ensemble, i: int) -> MLP:
    return jax.tree.map(lambda leaf: leaf[i], ensemble.members)


@pytest.fixture
def ensemble():
    return Ensemble(lambda k: MLP(4, (8, 8), 3, key=k, dropout=0.5), 5, key=KEY)


def test_mish_is_x_tanh_softplus_x():
    x = np.asarray(POINTS, np.float64)
    np.testing.assert_allclose(mish(POINTS), x * np.tanh(np.logaddexp(0, x)), rtol=2e-6, atol=1e-20)


def test_mish_gradient_equals_autodiff():
    gradient, expected = (jax.vmap(jax.grad(f))(POINTS) for f in (mish, reference_mish))
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("x", [-1e30, -100.0, 0.0, 19.99, 20.01, 100.0, 1e30])
def test_mish_and_gradient_are_finite(x):
    value, slope = jax.value_and_grad(mish)(jnp.array(x))
    assert jnp.isfinite(value)
    assert jnp.isfinite(slope)
    if x >= 19:
        assert (value, slope) == (pytest.approx(x), 1.0)


def test_simnorm_is_softmax_within_groups():
    x = jnp.array([0.0, jnp.log(3.0), 5.0, 5.0])
    np.testing.assert_allclose(simnorm(x, 2), [0.25, 0.75, 0.5, 0.5], rtol=1e-6)
    groups = simnorm(10 * jax.random.normal(KEY, (24,)), 8).reshape(3, 8)
    np.testing.assert_allclose(groups.sum(1), 1.0, rtol=1e-6)
    assert groups.min() >= 0


def test_layer_norm_matches_hand_computation():
    norm = eqx.tree_at(
        lambda n: (n.scale, n.shift), LayerNorm(4), (jnp.array([1.0, 1, 1, 2]), jnp.array([0.0, 0, 3, 0]))
    )
    expected = np.array([-1.5, -0.5, 0.5, 1.5]) / np.sqrt(1.25 + 1e-5) * [1, 1, 1, 2] + [0, 0, 3, 0]
    np.testing.assert_allclose(norm(jnp.array([1.0, 2.0, 3.0, 4.0])), expected, rtol=1e-6)


def test_layer_norm_of_constant_is_shift():
    np.testing.assert_array_equal(LayerNorm(3)(jnp.full(3, 7.0)), jnp.zeros(3))


def test_linear_weights_have_variance_one_over_inputs():
    weight = Linear(400, 500, key=KEY).weight
    assert float(weight.var()) * 400 == pytest.approx(1.0, rel=0.02)
    assert abs(float(weight.mean())) < 5 * 0.05 / np.sqrt(weight.size)


def test_linear_is_x_w_plus_b():
    linear = eqx.tree_at(
        lambda m: (m.weight, m.bias),
        Linear(2, 3, key=KEY),
        (jnp.arange(6.0).reshape(2, 3), jnp.array([1.0, 0.0, -1.0])),
    )
    np.testing.assert_array_equal(linear(jnp.array([2.0, 10.0])), [31.0, 42.0, 53.0])


def test_hidden_layer_is_linear_norm_mish():
    layer = eqx.tree_at(lambda m: m.linear.weight, NormedLinear(4, 4, key=KEY), 3 * jnp.eye(4))
    x = np.array([1.0, 2.0, 3.0, 4.0])
    normed = (x - 2.5) * 3 / np.sqrt(1.25 * 9 + 1e-5)
    np.testing.assert_allclose(layer(jnp.asarray(x, jnp.float32)), normed * np.tanh(np.logaddexp(0, normed)), rtol=1e-5)


def test_zero_head_outputs_zero():
    np.testing.assert_array_equal(MLP(4, (8,), 3, key=KEY, zero_head=True)(jnp.ones(4)), jnp.zeros(3))


def test_simnorm_head_outputs_simplices():
    z = MLP(4, (8,), 16, key=KEY, simnorm_group=8)(jnp.arange(4.0))
    np.testing.assert_allclose(z.reshape(2, 8).sum(1), 1.0, rtol=1e-6)


def test_ensemble_equals_loop_over_members(ensemble):
    x = jax.random.normal(KEY, (4,))
    out = ensemble(x)
    np.testing.assert_allclose(out, jnp.stack([member(ensemble, i)(x) for i in range(5)]), rtol=1e-5, atol=1e-6)
    assert len({row.tobytes() for row in np.asarray(out)}) == 5


def test_per_member_evaluates_member_i_at_input_i(ensemble):
    x = jax.random.normal(KEY, (5, 4))
    expected = jnp.stack([member(ensemble, i)(x[i]) for i in range(5)])
    np.testing.assert_allclose(ensemble.per_member(x), expected, rtol=1e-5, atol=1e-6)


def test_subset_keeps_members_in_order(ensemble):
    x = jax.random.normal(KEY, (4,))
    subset = ensemble.subset(jnp.array([3, 1]))
    assert len(subset) == 2
    np.testing.assert_allclose(subset(x), ensemble(x)[jnp.array([3, 1])], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("simnorm_group", [0, 3])
def test_ensemble_length_with_any_head(simnorm_group):
    assert len(Ensemble(lambda k: MLP(4, (8,), 3, key=k, simnorm_group=simnorm_group), 5, key=KEY)) == 5


def test_without_key_dropout_is_off():
    with_dropout, without = (MLP(4, (8, 8), 3, key=KEY, dropout=p) for p in (0.5, 0.0))
    np.testing.assert_array_equal(with_dropout(jnp.ones(4)), without(jnp.ones(4)))
    assert not jnp.array_equal(with_dropout(jnp.ones(4), KEY), without(jnp.ones(4)))


def test_shared_latent_equals_concatenation_with_fewer_flops():
    """The latent is multiplied once instead of once for each of the 50 actions."""
    z, actions = jax.random.normal(KEY, (32,)), jax.random.normal(KEY, (50, 3))
    network = Ensemble(lambda k: MLP(35, (16,), 2, key=k), 4, key=KEY)

    def outputs(z, actions):
        return jax.vmap(lambda a: network(concat_input(z, a)))(actions)

    plain, shared = (jax.jit(outputs).lower(start, actions).compile() for start in (z, SharedLatent(z)))
    np.testing.assert_allclose(shared(SharedLatent(z), actions), plain(z, actions), rtol=1e-5, atol=1e-6)
    saved = plain.cost_analysis()["flops"] - shared.cost_analysis()["flops"]
    assert saved == pytest.approx(2 * 49 * 4 * 32 * 16, rel=0.05)


def test_dropout_acts_on_the_first_layer_only():
    mlp = MLP(4, (8, 8), 3, key=KEY, dropout=0.5)
    expected = mlp.head(mlp.hidden[1](mlp.hidden[0](jnp.ones(4), KEY)))
    np.testing.assert_array_equal(mlp(jnp.ones(4), KEY), expected)


def test_dropout_preserves_the_mean():
    layer = NormedLinear(4, 8, key=KEY, dropout=0.25, activation=lambda x: x)
    layer = eqx.tree_at(lambda m: m.norm, layer, eqx.nn.Identity())
    x = jnp.arange(1.0, 5.0)
    expected = layer(x)
    samples = jax.vmap(lambda k: layer(x, k))(jax.random.split(KEY, 4096))
    dropped = samples == 0
    np.testing.assert_allclose(
        jnp.where(dropped, expected[None] / 0.75, samples), jnp.tile(expected / 0.75, (4096, 1)), rtol=1e-5
    )
    assert float(dropped.mean()) == pytest.approx(0.25, abs=0.01)
    np.testing.assert_allclose(samples.mean(0), expected, rtol=0.05)


def test_each_member_has_its_own_dropout_mask():
    twins = Ensemble(lambda _: MLP(4, (64,), 3, key=KEY, dropout=0.5), 2, key=KEY)
    first, second = twins(jnp.ones(4), KEY)
    np.testing.assert_array_equal(*twins(jnp.ones(4)))
    assert not jnp.array_equal(first, second)


def test_ema_steps_towards_new_values():
    average = ema((jnp.zeros(2), jnp.ones(())), (jnp.array([1.0, -2.0]), jnp.ones(())), 0.1)
    np.testing.assert_allclose(average[0], [0.1, -0.2], rtol=1e-6)
    assert average[1] == 1.0


def test_without_layer_norm_a_hidden_layer_is_linear_mish():
    layer = NormedLinear(4, 4, key=KEY, layer_norm=False)
    x = jnp.arange(4.0)
    y = np.asarray(layer.linear(x))
    np.testing.assert_allclose(layer(x), y * np.tanh(np.logaddexp(0, y)), rtol=1e-5)
    assert all(hidden.norm is None for hidden in MLP(4, (8, 8), 16, key=KEY, simnorm_group=8, layer_norm=False).hidden)
