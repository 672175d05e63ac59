"""Layers against known answers and against the plain loop they stand for."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.nn.layers import MLP, Ensemble, Fixed, LayerNorm, Linear, NormedLinear, ema, join, mish, simnorm

KEY = jax.random.key(0)
GRID = jnp.linspace(-50.0, 50.0, 2001)


def textbook_mish(x):
    return x * jnp.tanh(jax.nn.softplus(x))


def member(ensemble: Ensemble, i: int) -> MLP:
    return jax.tree.map(lambda leaf: leaf[i], ensemble.members)


@pytest.fixture
def ensemble():
    return Ensemble(lambda k: MLP(4, (8, 8), 3, key=k, dropout=0.5), 5, key=KEY)


def test_mish_is_x_tanh_softplus_x():
    x = np.asarray(GRID, np.float64)
    np.testing.assert_allclose(mish(GRID), x * np.tanh(np.logaddexp(0, x)), rtol=2e-6, atol=1e-20)


def test_mish_has_the_gradient_that_autodiff_finds():
    ours, theirs = (jax.vmap(jax.grad(f))(GRID) for f in (mish, textbook_mish))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("x", [-1e30, -100.0, 0.0, 19.99, 20.01, 100.0, 1e30])
def test_mish_and_its_gradient_are_finite_everywhere(x):
    value, slope = jax.value_and_grad(mish)(jnp.array(x))
    assert jnp.isfinite(value)
    assert jnp.isfinite(slope)
    if x >= 19:
        assert (value, slope) == (pytest.approx(x), 1.0)


def test_simnorm_is_a_softmax_within_each_group():
    x = jnp.array([0.0, jnp.log(3.0), 5.0, 5.0])
    np.testing.assert_allclose(simnorm(x, 2), [0.25, 0.75, 0.5, 0.5], rtol=1e-6)
    groups = simnorm(10 * jax.random.normal(KEY, (24,)), 8).reshape(3, 8)
    np.testing.assert_allclose(groups.sum(1), 1.0, rtol=1e-6)
    assert groups.min() >= 0


def test_layer_norm_knows_the_answer():
    norm = eqx.tree_at(
        lambda n: (n.scale, n.shift), LayerNorm(4), (jnp.array([1.0, 1, 1, 2]), jnp.array([0.0, 0, 3, 0]))
    )
    expected = np.array([-1.5, -0.5, 0.5, 1.5]) / np.sqrt(1.25 + 1e-5) * [1, 1, 1, 2] + [0, 0, 3, 0]
    np.testing.assert_allclose(norm(jnp.array([1.0, 2.0, 3.0, 4.0])), expected, rtol=1e-6)


def test_layer_norm_of_a_constant_is_the_shift():
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


def test_a_hidden_layer_is_linear_then_norm_then_mish():
    layer = eqx.tree_at(lambda m: m.linear.weight, NormedLinear(4, 4, key=KEY), 3 * jnp.eye(4))
    x = np.array([1.0, 2.0, 3.0, 4.0])
    normed = (x - 2.5) * 3 / np.sqrt(1.25 * 9 + 1e-5)
    np.testing.assert_allclose(layer(jnp.asarray(x, jnp.float32)), normed * np.tanh(np.logaddexp(0, normed)), rtol=1e-5)


def test_a_zero_head_gives_exactly_zero():
    np.testing.assert_array_equal(MLP(4, (8,), 3, key=KEY, zero_head=True)(jnp.ones(4)), jnp.zeros(3))


def test_a_simnorm_head_gives_simplices():
    z = MLP(4, (8,), 16, key=KEY, simnorm_group=8)(jnp.arange(4.0))
    np.testing.assert_allclose(z.reshape(2, 8).sum(1), 1.0, rtol=1e-6)


def test_an_ensemble_is_a_loop_over_its_members(ensemble):
    x = jax.random.normal(KEY, (4,))
    out = ensemble(x)
    np.testing.assert_allclose(out, jnp.stack([member(ensemble, i)(x) for i in range(5)]), rtol=1e-5, atol=1e-6)
    assert len({row.tobytes() for row in np.asarray(out)}) == 5


def test_each_gives_member_i_its_own_input(ensemble):
    x = jax.random.normal(KEY, (5, 4))
    expected = jnp.stack([member(ensemble, i)(x[i]) for i in range(5)])
    np.testing.assert_allclose(ensemble.each(x), expected, rtol=1e-5, atol=1e-6)


def test_a_subset_is_those_members_in_that_order(ensemble):
    x = jax.random.normal(KEY, (4,))
    subset = ensemble.subset(jnp.array([3, 1]))
    assert len(subset) == 2
    np.testing.assert_allclose(subset(x), ensemble(x)[jnp.array([3, 1])], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("simnorm_group", [0, 3])
def test_an_ensemble_knows_its_size_whatever_its_heads(simnorm_group):
    assert len(Ensemble(lambda k: MLP(4, (8,), 3, key=k, simnorm_group=simnorm_group), 5, key=KEY)) == 5


def test_without_a_key_nothing_is_dropped():
    dropping, whole = (MLP(4, (8, 8), 3, key=KEY, dropout=p) for p in (0.5, 0.0))
    np.testing.assert_array_equal(dropping(jnp.ones(4)), whole(jnp.ones(4)))
    assert not jnp.array_equal(dropping(jnp.ones(4), KEY), whole(jnp.ones(4)))


def test_a_shared_latent_gives_what_the_concatenation_gives_and_is_multiplied_once():
    z, actions = jax.random.normal(KEY, (32,)), jax.random.normal(KEY, (50, 3))
    network = Ensemble(lambda k: MLP(35, (16,), 2, key=k), 4, key=KEY)

    def outputs(z, actions):
        return jax.vmap(lambda a: network(join(z, a)))(actions)

    plain, shared = (jax.jit(outputs).lower(start, actions).compile() for start in (z, Fixed(z)))
    np.testing.assert_allclose(shared(Fixed(z), actions), plain(z, actions), rtol=1e-5, atol=1e-6)
    saved = plain.cost_analysis()["flops"] - shared.cost_analysis()["flops"]
    assert saved == pytest.approx(2 * 49 * 4 * 32 * 16, rel=0.05)


def test_dropout_acts_on_the_first_layer_only():
    mlp = MLP(4, (8, 8), 3, key=KEY, dropout=0.5)
    by_hand = mlp.head(mlp.hidden[1](mlp.hidden[0](jnp.ones(4), KEY)))
    np.testing.assert_array_equal(mlp(jnp.ones(4), KEY), by_hand)


def test_dropout_preserves_the_mean():
    layer = NormedLinear(4, 8, key=KEY, dropout=0.25, activation=lambda x: x)
    layer = eqx.tree_at(lambda m: m.norm, layer, eqx.nn.Identity())
    x = jnp.arange(1.0, 5.0)
    whole = layer(x)
    draws = jax.vmap(lambda k: layer(x, k))(jax.random.split(KEY, 4096))
    dropped = draws == 0
    np.testing.assert_allclose(
        jnp.where(dropped, whole[None] / 0.75, draws), jnp.tile(whole / 0.75, (4096, 1)), rtol=1e-5
    )
    assert float(dropped.mean()) == pytest.approx(0.25, abs=0.01)
    np.testing.assert_allclose(draws.mean(0), whole, rtol=0.05)


def test_every_member_drops_by_a_mask_of_its_own():
    twins = Ensemble(lambda _: MLP(4, (64,), 3, key=KEY, dropout=0.5), 2, key=KEY)
    same, other = twins(jnp.ones(4), KEY)
    np.testing.assert_array_equal(*twins(jnp.ones(4)))
    assert not jnp.array_equal(same, other)


def test_a_moving_average_takes_a_step_towards_the_new():
    moved = ema((jnp.zeros(2), jnp.ones(())), (jnp.array([1.0, -2.0]), jnp.ones(())), 0.1)
    np.testing.assert_allclose(moved[0], [0.1, -0.2], rtol=1e-6)
    assert moved[1] == 1.0
