"""The whole method: what one update may and may not change, and that the reward comes to tell the expert apart."""

from dataclasses import replace
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cdred.algos.factory import annealed, make_algorithm
from cdred.algos.method import Lived
from cdred.config import discount
from cdred.models.rewards.coupled_rnd import CoupledRND
from cdred.nn.layers import Fixed
from cdred.types import EnvSpec, Segment

KEY = jax.random.key(7)
WARMUP, UPDATES, GAMMA = 100, 250, 0.95

# From `update(state, batch, KEY)` below, past the warm-up; print `metrics` there to renew them, and say in the commit
# why they changed. They pin losses, reward, target and gradient at once.
GOLDEN = {
    "loss": 2.595814,
    "consistency_loss": 0.05629759,
    "critic_loss": 5.661612,
    "reward_loss": 9.037008,
    "reward_expert": -1.1823931,
    "reward_agent": -2.5832314,
    "td_target": -0.7173284,
    "td_target_abs_max": 3.8720906,
    "grad_norm": 5.0996623,
    "bc_loss": 1.8940467,
    "policy_grad_norm": 208.3822,
    "q_pi": -0.21038118,
    "q_scale": 1.1259193,
}


def compile_once(cache, name, function):
    return cache.setdefault(name, jax.jit(function))


@pytest.fixture(scope="module")
def programs():
    """Compiled functions, shared by this module's tests."""
    return {}


@pytest.fixture
def update(algorithm, programs):
    return compile_once(programs, "update", algorithm.update)


@pytest.fixture
def fresh(algorithm, programs):
    return compile_once(programs, "init", algorithm.init)(jax.random.key(0))


@pytest.fixture
def state(fresh):
    """A learner whose warm-up is over and whose critics, and their targets, are not zero."""
    heads = 0.3 * jax.random.normal(KEY, (2, *fresh.model.critics.members.head.weight.shape))
    return eqx.tree_at(
        lambda s: (s.updates, s.model.critics.members.head.weight, s.target_critics.members.head.weight),
        fresh,
        (jnp.array(1000, jnp.int32), *heads),
    )


def identical(one, other):
    return jax.tree.all(jax.tree.map(jnp.array_equal, one, other))


def changed(one, other):
    """Whether every matrix of a network has changed."""
    return all(
        not jnp.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
        if a.ndim > 1
    )


def largest_step(one, other):
    return max(jax.tree.leaves(jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), one, other)))


def assert_close(one, other, rtol, atol):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


@pytest.fixture(scope="module")
def training():
    return {}


@pytest.fixture
def train(config, spec, make_batch, training):
    """250 updates at debug size with wide embeddings and a large step; the metrics of each."""
    reward = replace(
        config.reward, embedding_dim=64, target_hidden_dims=(64,), predictor_hidden_dims=(64,), warmup_updates=WARMUP
    )
    optim = replace(config.optim, learning_rate=3e-3, lr_decay_fraction=0.0)
    algorithm = make_algorithm(replace(config, reward=reward, optim=optim), spec)

    def step(like_expert, state, key):
        batch_key, update_key = jax.random.split(key)
        return algorithm.update(state, make_batch(batch_key, 8, like_expert), update_key)

    @jax.jit
    def run(key, like_expert):
        state = algorithm.init(key)
        return jax.lax.scan(lambda s, k: step(like_expert, s, k), state, jax.random.split(key, UPDATES))

    def cached(like_expert):
        if like_expert not in training:
            training[like_expert] = run(jax.random.key(1), jnp.array(like_expert))
        return training[like_expert]

    return cached


def rewards(state, segments):
    z = jax.vmap(jax.vmap(state.model.encode))(segments.obs[:, :-1])
    return jax.vmap(jax.vmap(state.reward))(jnp.concatenate([z, segments.action], axis=-1))


def test_after_training_the_reward_ranks_the_expert_above_other_behaviour(train, make_batch):
    state, metrics = train(False)
    gap = metrics["reward_expert"] - metrics["reward_agent"]
    assert abs(float(gap[0])) < 0.5 * abs(float(metrics["reward_agent"][0]))
    assert float(gap[-50:].min()) > 5
    validation = make_batch(jax.random.key(99), 32)
    expert, own = rewards(state, validation.expert), rewards(state, validation.agent)
    assert float(expert.min()) > float(jnp.percentile(own, 95.0))
    assert float(expert.mean()) > float(own.mean()) + 5


def test_after_the_warm_up_targets_are_far_below_what_the_first_reward_would_make_of_them(train):
    """Trap 3: the first reward is tens a step, thousands over a horizon of 1 / (1 - gamma); critics never see it."""
    state, metrics = train(True)
    first = -float(metrics["reward_agent"][0])
    assert 5 < first < 100
    assert float(metrics["td_target_abs_max"][0]) > first
    learned = metrics["td_target_abs_max"][WARMUP:]
    assert float(learned.max()) < 0.02 * first / (1 - GAMMA)
    assert float(learned.max()) < 0.5 * first
    held = jax.vmap(lambda z: state.model.values(state.model.critics, z, jnp.zeros(2)).mean())(
        jax.nn.softmax(jax.random.normal(KEY, (32, 2, 8))).reshape(32, 16)
    )
    assert float(jnp.abs(held).max()) < 0.02 * first / (1 - GAMMA)


def test_all_metrics_stay_finite(train):
    for like_expert in (False, True):
        assert all(jnp.isfinite(series).all() for series in train(like_expert)[1].values())


def test_targets_are_never_touched(fresh, state, update, batch):
    for start in (fresh, state):
        after, _ = update(start, batch, KEY)
        assert identical(after.reward.targets, start.reward.targets)
        assert changed(after.reward.predictors, start.reward.predictors)


def test_the_prior_is_drawn_to_the_experts_actions_from_the_first_update_on(config, spec, make_batch):
    """All of the updates are warm-up, so nothing else moves it."""
    optim = replace(config.optim, bc_coef=1.0, learning_rate=3e-3, lr_decay_fraction=0.0)
    reward = replace(config.reward, warmup_updates=UPDATES)
    algorithm = make_algorithm(replace(config, optim=optim, reward=reward), spec)

    def step(state, key):
        batch_key, update_key = jax.random.split(key)
        return algorithm.update(state, make_batch(batch_key, 8, False), update_key)

    _, metrics = jax.jit(lambda k: jax.lax.scan(step, algorithm.init(k), jax.random.split(k, UPDATES)))(KEY)
    distance = metrics["bc_loss"]
    # Two components whose noise has a variance of 0.1^2 / 3, at three times of weight 1, 1/2, 1/4.
    assert float(distance[-50:].mean()) == pytest.approx(2 * 0.1**2 / 3 * 1.75, rel=0.2)
    assert float(distance[0]) > 0.2
    assert float(metrics["policy_grad_norm"].min()) > 0


def test_the_latent_may_be_shaped_by_what_the_expert_did(config, spec, fresh, batch, update):
    """The prior's distance becomes a part of the model's loss, and moves encoder and dynamics, but nothing else."""
    optim = replace(config.optim, bc_encoder_coef=3.0)
    shaping = jax.jit(make_algorithm(replace(config, optim=optim), spec).update)
    (plain, without), (shaped, with_it) = (step(fresh, batch, KEY) for step in (update, shaping))
    assert float(with_it["loss"] - without["loss"]) == pytest.approx(3 * float(with_it["bc_loss"]), rel=1e-3)
    assert changed(shaped.model.encoder, plain.model.encoder)
    assert changed(shaped.model.dynamics, plain.model.dynamics)
    assert identical(shaped.model.policy, plain.model.policy)


def test_imitation_may_be_a_warm_start_that_ends(config, spec, fresh, batch):
    """All of these updates are warm-up, so nothing else moves the prior."""
    optim = replace(config.optim, bc_coef=1.0, imitation_updates=7)
    update = jax.jit(make_algorithm(replace(config, optim=optim), spec).update)
    assert config.reward.warmup_updates > 8
    for updates, moves in ((0, True), (6, True), (7, False), (8, False)):
        start = eqx.tree_at(lambda s: s.updates, fresh, jnp.array(updates, jnp.int32))
        assert (float(update(start, batch, KEY)[1]["policy_grad_norm"]) > 0) == moves


def test_in_the_warm_up_critics_rest_and_everything_else_learns(fresh, update, batch):
    after, _ = update(fresh, batch, KEY)
    assert identical(after.model.critics, fresh.model.critics)
    assert identical(after.target_critics, fresh.target_critics)
    assert changed(after.model.encoder, fresh.model.encoder)
    assert changed(after.model.dynamics, fresh.model.dynamics)
    assert changed(after.reward.predictors, fresh.reward.predictors)
    assert int(after.updates) == 1


def test_the_warm_up_lasts_as_many_updates_as_told(config, spec, fresh, batch):
    """Without imitation the prior rests as long as the critics do."""
    algorithm = make_algorithm(replace(config, optim=replace(config.optim, bc_coef=0.0)), spec)
    update, last = jax.jit(algorithm.update), config.reward.warmup_updates - 1
    for updates, learns in ((last, False), (last + 1, True)):
        start = eqx.tree_at(lambda s: s.updates, fresh, jnp.array(updates, jnp.int32))
        after, metrics = update(start, batch, KEY)
        assert identical(after.model.critics, start.model.critics) != learns
        assert identical(after.model.policy, start.model.policy) != learns
        assert (metrics["policy_grad_norm"] > 0) == learns


def test_the_averages_follow_the_predictors_after_each_step(config, spec, batch):
    algorithm = make_algorithm(replace(config, reward=replace(config.reward, ema_rate=0.25)), spec)
    state = jax.jit(algorithm.init)(jax.random.key(0))
    after, _ = jax.jit(algorithm.update)(state, batch, KEY)
    expected = jax.tree.map(lambda a, p: 0.75 * a + 0.25 * p, state.reward.averages, after.reward.predictors)
    assert_close(after.reward.averages, expected, rtol=1e-5, atol=1e-7)
    assert changed(after.reward.predictors, state.reward.predictors)


def test_after_the_warm_up_everything_learns(state, update, batch):
    after, metrics = update(state, batch, KEY)
    assert changed(after.trainable, state.trainable)
    assert changed(after.model.policy, state.model.policy)
    assert metrics["policy_grad_norm"] > 0


def test_target_critics_follow_by_tau(config, state, update, batch):
    after, _ = update(state, batch, KEY)
    tau = config.optim.tau
    expected = jax.tree.map(lambda old, new: (1 - tau) * old + tau * new, state.target_critics, after.model.critics)
    assert_close(after.target_critics, expected, rtol=1e-5, atol=1e-7)
    assert changed(after.target_critics, state.target_critics)


def test_the_policys_step_changes_nothing_of_the_model(algorithm, state, batch, programs):
    latents = jax.nn.softmax(jax.random.normal(KEY, (16, 4, 16)))
    after, _ = compile_once(programs, "policy", algorithm._update_policy)(state, batch, latents, KEY)
    assert changed(after.model.policy, state.model.policy)
    assert identical(after.trainable, state.trainable)
    assert identical(after.model_opt, state.model_opt)


def test_the_reported_gradient_norm_is_that_of_the_reported_loss(algorithm, state, batch, update, programs):
    """Trap 6."""
    model_key, _ = jax.random.split(KEY)
    reported = compile_once(
        programs,
        "reported",
        jax.grad(lambda t, s, b, k: algorithm.model_loss(t, s, b, k)[1][1]["loss"]),
    )
    _, metrics = update(state, batch, KEY)
    norm = optax.tree.norm(reported(state.trainable, state, batch, model_key))
    assert float(metrics["grad_norm"]) == pytest.approx(float(norm), rel=1e-4)


def test_the_loss_is_the_weighted_sum_of_its_terms(config, fresh, state, update, batch):
    optim = config.optim
    for start, learning in ((fresh, 0.0), (state, 1.0)):
        _, m = update(start, batch, KEY)
        critic = learning * optim.value_coef * m["critic_loss"]
        expected = optim.consistency_coef * m["consistency_loss"] + critic + optim.reward_coef * m["reward_loss"]
        assert float(m["loss"]) == pytest.approx(float(expected), rel=1e-5)


def test_the_predictors_fit_does_not_shape_the_latents(algorithm, state, batch):
    alone = replace(algorithm, consistency_coef=0.0, value_coef=0.0)
    grads = jax.jit(jax.grad(lambda t: alone.model_loss(t, state, batch, KEY)[0]))(state.trainable)
    assert float(optax.tree.norm(grads.reward)) > 0
    assert float(optax.tree.norm((grads.encoder, grads.dynamics, grads.critics))) == 0


def test_the_encoder_learns_at_a_fraction_of_the_step(config, state, update, batch):
    """Adam's step of a first gradient is the step size, wherever the gradient is not tiny."""
    after, _ = update(state, batch, KEY)
    rate, (new, old) = config.optim.learning_rate, (after.trainable, state.trainable)
    assert largest_step(new.dynamics, old.dynamics) == pytest.approx(rate, rel=0.01)
    assert largest_step(new.encoder, old.encoder) == pytest.approx(rate * config.optim.encoder_lr_scale, rel=0.01)


def test_nothing_is_learned_after_the_runs_last_update(config, spec, batch):
    """A run of two updates, annealed over both: a whole step, half a step, none."""
    short = replace(config, steps=2, updates_per_call=2, optim=replace(config.optim, lr_decay_fraction=1.0))
    algorithm = make_algorithm(short, spec)
    update, state = jax.jit(algorithm.update), jax.jit(algorithm.init)(jax.random.key(0))
    state = eqx.tree_at(lambda s: s.updates, state, jnp.array(1000, jnp.int32))
    states = [state, *(state := update(state, batch, KEY)[0] for _ in range(3))]
    for learned in (lambda s: s.trainable.dynamics, lambda s: s.trainable.reward, lambda s: s.model.policy):
        steps = [largest_step(learned(a), learned(b)) for a, b in pairwise(states)]
        assert steps[0] == pytest.approx(short.optim.learning_rate, rel=0.01)
        assert steps[1] == pytest.approx(short.optim.learning_rate / 2, rel=0.1)
        assert steps[2] == 0.0


def test_the_step_size_falls_over_the_last_part_of_the_run():
    falling, constant = annealed(2.0, 0.25, 100), annealed(2.0, 0.0, 100)
    assert [float(falling(update)) for update in (0, 75, 80, 90, 100)] == pytest.approx([2.0, 2.0, 1.6, 0.8, 0.0])
    assert float(constant(100)) == 2.0


@pytest.mark.parametrize("rate", [1.0, 0.1])
def test_each_store_is_fitted_by_its_own_predictor_and_the_reward_is_the_true_one(config, spec, rate):
    """Whether one pass serves both, or the reward is read from averages."""
    algorithm = make_algorithm(replace(config, reward=replace(config.reward, ema_rate=rate)), spec)
    state = algorithm.init(jax.random.key(0))
    moved = jax.tree.map(lambda p: p + 0.1, state.reward.predictors)
    state = eqx.tree_at(lambda s: s.reward.predictors, state, moved)
    z = jax.nn.softmax(jax.random.normal(KEY, (8, 4, 16)))
    action = jax.random.uniform(KEY, (8, 3, 2), minval=-1.0)
    segments = Segment(jnp.zeros((8, 4, 3)), action, jnp.zeros((8, 3)), jnp.zeros((8, 4), bool))
    distilled, reward = jax.jit(algorithm.score)(state.reward, Lived(segments, z, z[:, 1:]), KEY)
    x = jnp.concatenate([z[:, :-1], action], axis=-1)
    np.testing.assert_allclose(reward, jax.vmap(jax.vmap(state.reward))(x), rtol=1e-4, atol=1e-5)
    targets, predictions = (jax.vmap(jax.vmap(f))(x) for f in (state.reward.targets, state.reward.predictors))
    for half, which in ((slice(0, 4), CoupledRND.EXPERT), (slice(4, 8), CoupledRND.OWN)):
        possible = jnp.sum((predictions[half, :, which][:, :, None] - targets[half]) ** 2, axis=-1)
        distance = jnp.abs(possible - distilled[half][..., None]).min(-1)
        np.testing.assert_allclose(distance, 0.0, atol=1e-4)


def test_one_update_gives_the_golden_numbers(state, update, batch):
    _, metrics = update(state, batch, KEY)
    assert {name: float(metrics[name]) for name in GOLDEN} == pytest.approx(GOLDEN, rel=1e-4)


@pytest.mark.slow
def test_a_whole_update_is_the_same_compiled_and_op_by_op(algorithm, state, update, batch):
    """The optimisers' moments stand for the gradients: Adam's first step is the gradient's sign, whatever its size."""
    compiled, metrics = update(state, batch, KEY)
    with jax.disable_jit():
        eager, eager_metrics = algorithm.update(state, batch, KEY)
    assert {k: float(v) for k, v in eager_metrics.items()} == pytest.approx(
        {k: float(v) for k, v in metrics.items()}, rel=1e-4, abs=1e-6
    )
    moments = (lambda s: s.model_opt, lambda s: s.policy_opt)
    for part in (*moments, lambda s: s.reward.averages, lambda s: s.target_critics):
        assert_close(part(eager), part(compiled), rtol=1e-2, atol=1e-4)


def test_the_same_key_gives_the_same_update_bit_for_bit(state, update, batch):
    first, again = (update(state, batch, KEY) for _ in range(2))
    assert identical(first, again)
    assert not identical(update(state, batch, jax.random.key(8)), first)


def test_compiled_is_eager(algorithm, state, update, make_batch):
    batch = make_batch(KEY, 8)
    model_key, _ = jax.random.split(KEY)
    loss, (_, metrics) = algorithm.model_loss(state.trainable, state, batch, model_key)
    _, compiled = update(state, batch, KEY)
    assert float(loss) == pytest.approx(float(compiled["loss"]), rel=1e-4)
    assert_close(metrics, {name: compiled[name] for name in metrics}, rtol=1e-4, atol=1e-5)


def test_seeds_at_once_are_seeds_one_by_one(algorithm, make_batch, programs, update):
    keys = jax.random.split(KEY, 2)
    batches = [make_batch(k) for k in keys]
    states = [compile_once(programs, "init", algorithm.init)(k) for k in keys]
    stack = lambda *x: jnp.stack(x)  # noqa: E731
    together, metrics = jax.jit(jax.vmap(algorithm.update))(
        jax.tree.map(stack, *states), jax.tree.map(stack, *batches), keys
    )
    for i in range(2):
        alone, alone_metrics = update(states[i], batches[i], keys[i])
        here, here_metrics = jax.tree.map(lambda x, i=i: x[i], (together, metrics))
        assert_close(here_metrics, alone_metrics, rtol=1e-4, atol=1e-5)
        assert_close(here.trainable, alone.trainable, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("start", [lambda z: z, Fixed])
def test_the_imagined_return_is_discounted_rewards_and_a_final_value(start, config, algorithm, state):
    z = state.model.encode(jnp.array([0.5, -0.2, 1.0]))
    actions = jax.random.uniform(KEY, (3, 2), minval=-1.0)
    expected, latent = 0.0, z
    for h, action in enumerate(actions):
        expected += GAMMA**h * float(state.reward(jnp.concatenate([latent, action])))
        latent = state.model.next(latent, action)
    values = state.model.values(state.model.critics, latent, state.model.pi(latent).mode)
    expected += GAMMA**3 * float(values.mean())
    assert abs(float(values.mean())) > 1e-3
    assert algorithm.discount == discount(100, config.optim.discount_min) == GAMMA
    assert float(algorithm.imagined_return(state, start(z), actions)) == pytest.approx(expected, rel=1e-4)


def test_a_plan_pays_for_its_distance_from_the_priors_own(config, algorithm, state):
    state = eqx.tree_at(lambda s: s.q_scale, state, jnp.array(7.0))
    z = latent = state.model.encode(jnp.array([0.5, -0.2, 1.0]))
    nominal = []
    for _ in range(3):
        nominal.append(state.model.pi(latent).mode)
        latent = state.model.next(latent, nominal[-1])
    nominal = jnp.stack(nominal)
    worth = algorithm.worth(state, z)
    for actions in (nominal, nominal.at[1, 0].add(0.5), -nominal):
        paid = config.mppi.policy_penalty_coef * 7.0 * float(jnp.sum((actions - nominal) ** 2))
        expected = float(algorithm.imagined_return(state, z, actions)) - paid
        assert float(worth(actions)) == pytest.approx(expected, rel=1e-4)


def test_the_dearer_it_is_to_leave_the_prior_the_nearer_the_plan_stays(config, spec, state):
    observations = jax.random.normal(KEY, (20, 3))
    modes = jax.vmap(lambda obs: state.model.pi(state.model.encode(obs)).mode)(observations)

    def distance(coef):
        planner = make_algorithm(
            replace(config, mppi=replace(config.mppi, num_samples=128, policy_penalty_coef=coef)), spec
        )
        act = jax.jit(lambda obs, key: planner.act(state, planner.init_plan(), obs, key, jnp.array(False))[0])
        actions = jax.vmap(act)(observations, jax.random.split(KEY, 20))
        return float(jnp.mean(jnp.abs(actions - modes)))

    assert distance(100.0) < 0.3 * distance(0.0)


def test_planning_explores_only_when_told(algorithm, state, programs):
    act = compile_once(programs, "act", algorithm.act)
    obs, plan = jnp.array([0.5, -0.2, 1.0]), algorithm.init_plan()
    for explore in (False, True):
        first, again = (act(state, plan, obs, KEY, jnp.array(explore)) for _ in range(2))
        assert identical(first, again)
    greedy, explored = (act(state, plan, obs, KEY, jnp.array(e))[0] for e in (False, True))
    assert not jnp.array_equal(greedy, explored)
    assert float(jnp.abs(explored).max()) <= 1


def test_the_prior_alone_acts_by_its_mode_or_samples(config, spec, state):
    algorithm = make_algorithm(replace(config, planner="policy"), spec)
    obs, plan = jnp.array([0.5, -0.2, 1.0]), algorithm.init_plan()
    greedy, after = algorithm.act(state, plan, obs, KEY, jnp.array(False))
    explored, _ = algorithm.act(state, plan, obs, KEY, jnp.array(True))
    np.testing.assert_allclose(greedy, state.model.pi(state.model.encode(obs)).mode, rtol=1e-5)
    assert not jnp.array_equal(greedy, explored)
    assert identical(after, plan)


def test_many_actions_are_planned_longer(config):
    iterations = [make_algorithm(config, EnvSpec("probe/fake", (3,), a, 100)).planner.iterations for a in (19, 20)]
    assert iterations == [config.mppi.iterations, config.mppi.iterations + 2]


def test_a_fresh_learner_differs_by_its_key(algorithm, programs, fresh):
    other = compile_once(programs, "init", algorithm.init)(jax.random.key(1))
    for one, another in zip(other.reward.targets.members.hidden, fresh.reward.targets.members.hidden, strict=True):
        assert not jnp.array_equal(one.linear.weight, another.linear.weight)
    assert not identical(other.model.encoder, fresh.model.encoder)
    assert identical(fresh.target_critics, fresh.model.critics)
