"""Each loss against values computed by hand."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cdred.algos import losses
from cdred.models.world_model import ModelConfig, WorldModel
from cdred.nn.two_hot import TwoHot

KEY = jax.random.key(0)
N, H, Z, A = 6, 3, 16, 2
CONFIG = ModelConfig(
    latent_dim=Z, simnorm_dim=8, encoder_hidden_dims=(8,), hidden_dims=(8,), num_critics=3, dropout=0.0
)
# Logits with these peaks among 21 bins over [-10, 10] decode to these values.
PEAKS, VALUES = jnp.array([10, 13, 4]), np.array([0.0, np.expm1(3.0), -np.expm1(6.0)])


@pytest.fixture(scope="module")
def model():
    model = WorldModel.create(3, A, CONFIG, two_hot=TwoHot(21), key=KEY)
    return eqx.tree_at(lambda m: m.critics.members.head.bias, model, 100 * jax.nn.one_hot(PEAKS, 21))


@pytest.fixture(scope="module")
def latents():
    return jax.nn.softmax(jax.random.normal(KEY, (N, H, Z)))


def test_rho_weighted_sum_by_hand():
    loss = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    assert float(losses.rho_weighted(loss, 0.5)) == pytest.approx(2.0 + 0.5 * 3.0)


def test_consistency_loss_by_hand():
    target = jnp.zeros((N, H, Z)) + jnp.array([1.0, 2.0, 3.0])[None, :, None]
    assert float(losses.consistency_loss(jnp.zeros((N, H, Z)), target, 0.5)) == pytest.approx(1 + 0.5 * 4 + 0.25 * 9)


def test_consistency_loss_has_no_gradient_of_target(latents):
    grad, target_grad = jax.grad(losses.consistency_loss, argnums=(0, 1))(latents, latents + 1.0, 0.5)
    np.testing.assert_array_equal(target_grad, jnp.zeros_like(target_grad))
    np.testing.assert_allclose(grad[:, 1], -2 * 0.5 / (N * Z), rtol=1e-5)


def test_target_values_are_minimum_of_two_critics(model, latents):
    for key in jax.random.split(KEY, 3):
        values = losses.target_values(model, model.critics, latents, 0.0, key)
        np.testing.assert_allclose(values, jnp.full((N, H), values[0, 0]), rtol=1e-4, atol=1e-5)
        # The minimum of a pair is never the maximum of the three.
        assert np.isclose(values[0, 0], [VALUES[0], VALUES[2]], rtol=1e-4, atol=1e-5).any()


def test_target_values_use_target_critics(model, latents):
    target = eqx.tree_at(
        lambda c: c.members.head.bias, model.critics, 100 * jax.nn.one_hot(jnp.array([12, 12, 12]), 21)
    )
    values = losses.target_values(model, target, latents, 0.0, KEY)
    np.testing.assert_allclose(values, np.expm1(2.0), rtol=1e-4)


def test_termination_loss_is_cross_entropy_of_logit(latents):
    model = WorldModel.create(3, A, CONFIG, two_hot=TwoHot(21), can_terminate=True, key=KEY)
    constant = eqx.tree_at(
        lambda m: (m.termination.head.weight, m.termination.head.bias), model, (jnp.zeros((8, 1)), jnp.full(1, 2.0))
    )
    terminated = jnp.zeros((N, H), bool).at[:, 2].set(True)
    right, wrong = np.log1p(np.exp(-2.0)), np.log1p(np.exp(2.0))
    loss = losses.termination_loss(constant, latents, jnp.zeros((N, H, A)), terminated, 0.5)
    assert float(loss) == pytest.approx(wrong + 0.5 * wrong + 0.25 * right, rel=1e-5)


def test_without_termination_head_loss_is_zero(model, latents):
    assert losses.termination_loss(model, latents, jnp.zeros((N, H, A)), jnp.zeros((N, H), bool), 0.5) == 0


def test_uniform_critics_lose_log_of_bins(model, latents):
    uniform = eqx.tree_at(lambda m: m.critics.members.head.bias, model, jnp.zeros((3, 21)))
    args = (latents, jnp.zeros((N, H, A)), jnp.full((N, H), 3.3), 0.5, None)
    assert float(losses.critic_loss(uniform, *args)) == pytest.approx(np.log(21) * (1 + 0.5 + 0.25), rel=1e-5)


def test_critic_loss_is_mean_over_critics(model, latents):
    """Logits of 100 at bins 10, 13 and 4, and a target in bin 13: two of three are wrong by 100."""
    args = (latents, jnp.zeros((N, H, A)), jnp.full((N, H), VALUES[1], jnp.float32), 0.5, None)
    assert float(losses.critic_loss(model, *args)) == pytest.approx(200 / 3 * 1.75, rel=1e-3)


def test_policy_loss_is_log_density_minus_scaled_value(model, latents):
    loss, (values, log_prob) = losses.policy_loss(model.policy, model, latents, jnp.array(4.0), 0.1, 1.0, KEY)
    assert float(loss) == pytest.approx(H * (0.1 * float(log_prob) - float(values.mean()) / 4), rel=1e-4)
    assert np.isclose(float(values[0, 0]), VALUES, rtol=1e-4, atol=1e-5)[[0, 2]].any()


def test_entropy_coef_penalizes_high_density(model, latents):
    loss = lambda beta: losses.policy_loss(model.policy, model, latents, jnp.ones(()), beta, 0.5, KEY)  # noqa: E731
    (plain, (_, log_prob)), (regularized, _) = loss(0.0), loss(0.01)
    assert float(log_prob) > 0
    assert float(regularized) > float(plain)


def test_policy_gradient_increases_values(latents):
    """The critics' values grow with the action, so following the gradient enlarges actions."""
    model = WorldModel.create(3, A, replace(CONFIG, hidden_dims=()), two_hot=TwoHot(21), key=KEY)
    weight = jnp.zeros((3, Z + A, 21)).at[:, Z:].set(jnp.linspace(-1.0, 1.0, 21))
    model = eqx.tree_at(lambda m: m.critics.members.head.weight, model, weight)
    grad = jax.grad(losses.policy_loss, has_aux=True)

    def step(policy, _):
        grads, (values, _) = grad(policy, model, latents, jnp.ones(()), 0.0, 0.5, KEY)
        return jax.tree.map(lambda p, g: p - 0.1 * g, policy, grads), values.mean()

    policy, values = jax.lax.scan(step, model.policy, length=50)
    after = eqx.tree_at(lambda m: m.policy, model, policy).pi(latents[0, 0])
    assert float(values[-1]) > float(values[0]) + 0.5
    assert float(after.mode.min()) > float(model.pi(latents[0, 0]).mode.min())


def test_policy_loss_computes_no_latent_gradient():
    """With a concatenated (z, a) the gradient of z would be computed too, and discarded."""
    dim, width = 64, 32
    config = replace(CONFIG, latent_dim=dim, hidden_dims=(width,))
    model = WorldModel.create(3, A, config, two_hot=TwoHot(21), key=KEY)
    heads = jax.random.normal(KEY, model.critics.members.head.weight.shape)
    model = eqx.tree_at(lambda m: m.critics.members.head.weight, model, heads)
    latents = jax.nn.softmax(jax.random.normal(KEY, (N, H, dim)))

    def concatenated_loss(policy):
        pair_key, action_key = jax.random.split(KEY)
        pair = model.critics.subset(losses.sample_pair(3, pair_key))
        actor = eqx.tree_at(lambda m: m.policy, model, policy)

        def loss(z, k):
            action, _ = actor.pi(z).sample(k)
            return -jnp.min(model.values(pair, z, action)) / 4.0

        keys = jax.random.split(action_key, latents.shape[:2])
        return losses.rho_weighted(jax.vmap(jax.vmap(loss))(latents, keys), 0.5)

    def split_loss(policy):
        return losses.policy_loss(policy, model, latents, jnp.array(4.0), 0.0, 0.5, KEY)[0]

    gradients = (jax.jit(jax.grad(loss)).lower(model.policy).compile() for loss in (concatenated_loss, split_loss))
    concatenated, split = gradients
    expected = concatenated(model.policy)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected)) > 1e-2
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), split(model.policy), expected)
    saved = concatenated.cost_analysis()["flops"] - split.cost_analysis()["flops"]
    assert saved == pytest.approx(2 * 2 * N * H * dim * width, rel=0.1)


def test_bc_loss_is_squared_distance_from_mode(model, latents):
    """Off by 0.5 in one component: 0.25 per transition, whatever the policy's spread; 0 in absorbing states."""
    modes = jax.vmap(jax.vmap(lambda z: model.pi(z).mode))(latents)
    action, absorbing = modes.at[..., 0].add(0.5), jnp.zeros((N, H), bool).at[:, 2].set(True)
    loss = losses.bc_loss(model.policy, model, latents, action, absorbing, 0.5)
    assert float(loss) == pytest.approx(0.25 * (1 + 0.5), rel=1e-5)
    assert float(losses.bc_loss(model.policy, model, latents, modes, absorbing, 0.5)) == 0.0


def test_sample_pair_draws_distinct_pairs_equally_often():
    pairs = np.sort(jax.vmap(lambda k: losses.sample_pair(5, k))(jax.random.split(KEY, 3000)), axis=1)
    distinct, counts = np.unique(pairs, axis=0, return_counts=True)
    assert len(distinct) == 10
    assert (distinct[:, 0] < distinct[:, 1]).all()
    assert stats.chisquare(counts).pvalue > 1e-3


def test_percentile_range_is_middle_ninety_percent():
    assert float(losses.percentile_range(jnp.arange(101.0).reshape(1, 101))) == pytest.approx(90.0)
    assert float(losses.percentile_range(jnp.full((4, 4), 7.0))) == 1.0


def test_gradient_penalty_is_slopes_distance_from_one():
    """For x^2 the slope shows the point of evaluation; for 3 x it is 2 away from 1 everywhere."""
    x = jnp.concatenate([jnp.full((500, 1, 1), 2.0), jnp.full((500, 1, 1), 1.0)])
    square = losses.gradient_penalty(lambda rows: rows[:, 0] ** 2, x, KEY)
    assert square.shape == (1000, 1)
    np.testing.assert_array_equal(square[:500], square[500:])
    points = (jnp.sqrt(square[:500]) + 1) / 2
    assert 1.0 <= float(points.min()) < 1.02
    assert 1.98 < float(points.max()) <= 2.0001
    assert float(points.mean()) == pytest.approx(1.5, abs=0.05)
    mean_of_two = losses.gradient_penalty(lambda rows: jnp.array([3.0, 0.0]) * rows[:, 0], x, KEY, 2)
    np.testing.assert_allclose(mean_of_two, (2.0**2 + 1.0) / 2, rtol=1e-5)
