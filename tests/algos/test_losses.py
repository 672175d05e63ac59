"""Each loss against numbers worked out by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cdred.algos import losses
from cdred.models.world_model import WorldModel
from cdred.nn.two_hot import TwoHot

KEY = jax.random.key(0)
N, H, Z, A = 6, 3, 16, 2
SIZES = {"latent_dim": Z, "simnorm_dim": 8, "encoder_hidden_dims": (8,), "hidden_dims": (8,), "num_critics": 3}
# Logits on bins 10, 13 and 4 of 21 over [-10, 10] decode to these.
PEAKS, VALUES = jnp.array([10, 13, 4]), np.array([0.0, np.expm1(3.0), -np.expm1(6.0)])


@pytest.fixture(scope="module")
def model():
    model = WorldModel.create(3, A, **SIZES, dropout=0.0, two_hot=TwoHot(21), key=KEY)
    return eqx.tree_at(lambda m: m.critics.members.head.bias, model, 100 * jax.nn.one_hot(PEAKS, 21))


@pytest.fixture(scope="module")
def latents():
    return jax.nn.softmax(jax.random.normal(KEY, (N, H, Z)))


def test_losses_further_into_a_segment_weigh_less():
    loss = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    assert float(losses.discounted_over_time(loss, 0.5)) == pytest.approx(2.0 + 0.5 * 3.0)


def test_the_dynamics_loss_by_hand():
    encoded = jnp.zeros((N, H, Z)) + jnp.array([1.0, 2.0, 3.0])[None, :, None]
    assert float(losses.consistency_loss(jnp.zeros((N, H, Z)), encoded, 0.5)) == pytest.approx(1 + 0.5 * 4 + 0.25 * 9)


def test_the_dynamics_loss_moves_the_prediction_and_not_the_encoding(latents):
    predicted, encoded = jax.grad(losses.consistency_loss, argnums=(0, 1))(latents, latents + 1.0, 0.5)
    np.testing.assert_array_equal(encoded, jnp.zeros_like(encoded))
    np.testing.assert_allclose(predicted[:, 1], -2 * 0.5 / (N * Z), rtol=1e-5)


def test_next_values_are_the_least_of_a_pair_of_critics(model, latents):
    for key in jax.random.split(KEY, 3):
        values = losses.next_values(model, model.critics, latents, 0.0, key)
        np.testing.assert_allclose(values, jnp.full((N, H), values[0, 0]), rtol=1e-4, atol=1e-5)
        # The least of a pair is never the greatest of the three.
        assert np.isclose(values[0, 0], [VALUES[0], VALUES[2]], rtol=1e-4, atol=1e-5).any()


def test_next_values_are_the_target_critics(model, latents):
    target = eqx.tree_at(
        lambda c: c.members.head.bias, model.critics, 100 * jax.nn.one_hot(jnp.array([12, 12, 12]), 21)
    )
    values = losses.next_values(model, target, latents, 0.0, KEY)
    np.testing.assert_allclose(values, np.expm1(2.0), rtol=1e-4)


def test_the_termination_loss_is_the_cross_entropy_of_its_logit(latents):
    mortal = WorldModel.create(3, A, **SIZES, dropout=0.0, two_hot=TwoHot(21), can_terminate=True, key=KEY)
    sure = eqx.tree_at(
        lambda m: (m.termination.head.weight, m.termination.head.bias), mortal, (jnp.zeros((8, 1)), jnp.full(1, 2.0))
    )
    over = jnp.zeros((N, H), bool).at[:, 2].set(True)
    right, wrong = np.log1p(np.exp(-2.0)), np.log1p(np.exp(2.0))
    loss = losses.termination_loss(sure, latents, jnp.zeros((N, H, A)), over, 0.5)
    assert float(loss) == pytest.approx(wrong + 0.5 * wrong + 0.25 * right, rel=1e-5)


def test_a_world_without_end_has_no_termination_loss(model, latents):
    assert losses.termination_loss(model, latents, jnp.zeros((N, H, A)), jnp.zeros((N, H), bool), 0.5) == 0


def test_uniform_critics_lose_the_log_of_the_bins(model, latents):
    flat = eqx.tree_at(lambda m: m.critics.members.head.bias, model, jnp.zeros((3, 21)))
    args = (latents, jnp.zeros((N, H, A)), jnp.full((N, H), 3.3), 0.5, None)
    assert float(losses.critic_loss(flat, *args)) == pytest.approx(np.log(21) * (1 + 0.5 + 0.25), rel=1e-5)


def test_a_critics_loss_is_the_mean_of_its_members(model, latents):
    """Logits of 100 on bins 10, 13 and 4, asked for bin 13: two of three are wrong by 100."""
    args = (latents, jnp.zeros((N, H, A)), jnp.full((N, H), VALUES[1], jnp.float32), 0.5, None)
    assert float(losses.critic_loss(model, *args)) == pytest.approx(200 / 3 * 1.75, rel=1e-3)


def test_the_policys_loss_is_entropy_minus_scaled_value(model, latents):
    loss, (values, log_prob) = losses.policy_loss(model.policy, model, latents, jnp.array(4.0), 0.1, 1.0, KEY)
    assert float(loss) == pytest.approx(H * (0.1 * float(log_prob) - float(values.mean()) / 4), rel=1e-4)
    assert np.isclose(float(values[0, 0]), VALUES, rtol=1e-4, atol=1e-5)[[0, 2]].any()


def test_a_surer_policy_pays_for_its_certainty(model, latents):
    loss = lambda beta: losses.policy_loss(model.policy, model, latents, jnp.ones(()), beta, 0.5, KEY)  # noqa: E731
    (none, (_, log_prob)), (some, _) = loss(0.0), loss(0.01)
    assert float(log_prob) > 0
    assert float(some) > float(none)


def test_the_policys_loss_is_lowered_by_better_actions(latents):
    """Critics that like large actions: following the gradient enlarges them."""
    sizes = {"latent_dim": Z, "simnorm_dim": 8, "encoder_hidden_dims": (8,), "hidden_dims": (), "num_critics": 3}
    model = WorldModel.create(3, A, **sizes, dropout=0.0, two_hot=TwoHot(21), key=KEY)
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


def test_the_policys_gradient_goes_through_the_actions_alone():
    """The plain formula joins (z, a), whose gradient is then computed for all of z, to be thrown away."""
    dim, width = 64, 32
    sizes = {
        "latent_dim": dim,
        "simnorm_dim": 8,
        "encoder_hidden_dims": (8,),
        "hidden_dims": (width,),
        "num_critics": 3,
    }
    model = WorldModel.create(3, A, **sizes, dropout=0.0, two_hot=TwoHot(21), key=KEY)
    heads = jax.random.normal(KEY, model.critics.members.head.weight.shape)
    model = eqx.tree_at(lambda m: m.critics.members.head.weight, model, heads)
    latents = jax.nn.softmax(jax.random.normal(KEY, (N, H, dim)))

    def plain(policy):
        pair_key, action_key = jax.random.split(KEY)
        pair = model.critics.subset(losses.two_of(3, pair_key))
        actor = eqx.tree_at(lambda m: m.policy, model, policy)

        def loss(z, k):
            action, _ = actor.pi(z).sample(k)
            return -jnp.min(model.values(pair, z, action)) / 4.0

        keys = jax.random.split(action_key, latents.shape[:2])
        return losses.discounted_over_time(jax.vmap(jax.vmap(loss))(latents, keys), 0.5)

    def ours(policy):
        return losses.policy_loss(policy, model, latents, jnp.array(4.0), 0.0, 0.5, KEY)[0]

    joined, apart = (jax.jit(jax.grad(loss)).lower(model.policy).compile() for loss in (plain, ours))
    expected = joined(model.policy)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected)) > 1e-2
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), apart(model.policy), expected)
    saved = joined.cost_analysis()["flops"] - apart.cost_analysis()["flops"]
    assert saved == pytest.approx(2 * 2 * N * H * dim * width, rel=0.1)


def test_the_imitation_loss_is_the_distance_of_the_priors_mode_from_the_experts_actions(model, latents):
    """Off by 0.5 in one component: 0.25 per transition, whatever the prior's spread; nothing after the end."""
    modes = jax.vmap(jax.vmap(lambda z: model.pi(z).mode))(latents)
    action, over = modes.at[..., 0].add(0.5), jnp.zeros((N, H), bool).at[:, 2].set(True)
    loss = losses.bc_loss(model.policy, model, latents, action, over, 0.5)
    assert float(loss) == pytest.approx(0.25 * (1 + 0.5), rel=1e-5)
    assert float(losses.bc_loss(model.policy, model, latents, modes, over, 0.5)) == 0.0


def test_two_of_draws_every_pair_equally_often_and_no_twins():
    pairs = np.sort(jax.vmap(lambda k: losses.two_of(5, k))(jax.random.split(KEY, 3000)), axis=1)
    distinct, counts = np.unique(pairs, axis=0, return_counts=True)
    assert len(distinct) == 10
    assert (distinct[:, 0] < distinct[:, 1]).all()
    assert stats.chisquare(counts).pvalue > 1e-3


def test_the_range_of_values_is_their_middle_ninety_percent():
    assert float(losses.q_range(jnp.arange(101.0).reshape(1, 101))) == pytest.approx(90.0)
    assert float(losses.q_range(jnp.full((4, 4), 7.0))) == 1.0


def test_the_gradient_penalty_is_the_slopes_distance_from_one_between_the_stores():
    """Of x^2, whose slope tells where it was taken, and of 3 x: 2 from 1, wherever."""
    x = jnp.concatenate([jnp.full((500, 1, 1), 2.0), jnp.full((500, 1, 1), 1.0)])
    square = losses.gradient_penalty(lambda rows: rows[:, 0] ** 2, x, KEY)
    assert square.shape == (1000, 1)
    np.testing.assert_array_equal(square[:500], square[500:])
    points = (jnp.sqrt(square[:500]) + 1) / 2
    assert 1.0 <= float(points.min()) < 1.02
    assert 1.98 < float(points.max()) <= 2.0001
    assert float(points.mean()) == pytest.approx(1.5, abs=0.05)
    both = losses.gradient_penalty(lambda rows: jnp.array([3.0, 0.0]) * rows[:, 0], x, KEY, 2)
    np.testing.assert_allclose(both, (2.0**2 + 1.0) / 2, rtol=1e-5)
