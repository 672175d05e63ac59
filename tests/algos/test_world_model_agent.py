"""World-model agent: what one update changes and what it must not, and how it plans. The method is CDRED."""

from dataclasses import replace
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cdred.algos.factory import make_algorithm
from cdred.algos.optim import discount
from cdred.nn.layers import SharedLatent
from cdred.types import EnvSpec

KEY = jax.random.key(7)
UPDATES, GAMMA = 250, 0.95
OBS = jnp.array([0.5, -0.2, 1.0])


def all_equal(tree, other):
    return jax.tree.all(jax.tree.map(jnp.array_equal, tree, other))


def all_changed(tree, other):
    """Return True if every weight matrix differs."""
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
    return all(not jnp.array_equal(a, b) for a, b in pairs if a.ndim > 1)


def max_difference(tree, other):
    return max(jax.tree.leaves(jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), tree, other)))


def assert_close(tree, other, rtol, atol):
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def with_coefs(algorithm, **changes):
    return replace(algorithm, config=replace(algorithm.config, **changes))


def test_targets_never_change(initial_state, state, update, batch):
    for start in (initial_state, state):
        after, _ = update(start, batch, KEY)
        assert all_equal(after.reward.targets, start.reward.targets)
        assert all_changed(after.reward.predictors, start.reward.predictors)


def test_bc_term_trains_policy_during_warmup(config, spec, make_batch):
    """All of the updates are warm-up, so no other loss trains the policy."""
    optim = replace(config.optim, bc_coef=1.0, learning_rate=3e-3, lr_decay_fraction=0.0, reward_warmup_updates=UPDATES)
    algorithm = make_algorithm(replace(config, optim=optim), spec)

    def step(state, key):
        batch_key, update_key = jax.random.split(key)
        return algorithm.update(state, make_batch(batch_key, 8, False), update_key)

    _, metrics = jax.jit(lambda k: jax.lax.scan(step, algorithm.init(k), jax.random.split(k, UPDATES)))(KEY)
    distance = metrics["bc_loss"]
    # Two components with noise of variance 0.1^2 / 3, over three transitions of weight 1, 1/2, 1/4.
    assert float(distance[-50:].mean()) == pytest.approx(2 * 0.1**2 / 3 * 1.75, rel=0.2)
    assert float(distance[0]) > 0.2
    assert float(metrics["policy_grad_norm"].min()) > 0


def test_bc_encoder_coef_trains_encoder_and_dynamics_only(config, spec, initial_state, batch, update):
    optim = replace(config.optim, bc_encoder_coef=3.0)
    update_with_bc = jax.jit(make_algorithm(replace(config, optim=optim), spec).update)
    (plain, metrics), (shaped, bc_metrics) = (u(initial_state, batch, KEY) for u in (update, update_with_bc))
    assert float(bc_metrics["loss"] - metrics["loss"]) == pytest.approx(3 * float(bc_metrics["bc_loss"]), rel=1e-3)
    assert all_changed(shaped.model.encoder, plain.model.encoder)
    assert all_changed(shaped.model.dynamics, plain.model.dynamics)
    assert all_equal(shaped.model.policy, plain.model.policy)


def test_during_warmup_all_but_critics_learn(initial_state, update, batch):
    after, _ = update(initial_state, batch, KEY)
    assert all_equal(after.model.critics, initial_state.model.critics)
    assert all_equal(after.target_critics, initial_state.target_critics)
    assert all_changed(after.model.encoder, initial_state.model.encoder)
    assert all_changed(after.model.dynamics, initial_state.model.dynamics)
    assert all_changed(after.reward.predictors, initial_state.reward.predictors)
    assert int(after.updates) == 1


def test_warmup_ends_after_configured_updates(config, spec, initial_state, batch):
    """Without the BC term the policy starts to learn together with the critics."""
    algorithm = make_algorithm(replace(config, optim=replace(config.optim, bc_coef=0.0)), spec)
    update, last = jax.jit(algorithm.update), config.optim.reward_warmup_updates - 1
    for updates, learns in ((last, False), (last + 1, True)):
        start = eqx.tree_at(lambda s: s.updates, initial_state, jnp.array(updates, jnp.int32))
        after, metrics = update(start, batch, KEY)
        assert all_equal(after.model.critics, start.model.critics) != learns
        assert all_equal(after.model.policy, start.model.policy) != learns
        assert (metrics["policy_grad_norm"] > 0) == learns


def test_after_warmup_everything_learns(state, update, batch):
    after, metrics = update(state, batch, KEY)
    assert all_changed(after.trainable, state.trainable)
    assert all_changed(after.model.policy, state.model.policy)
    assert metrics["policy_grad_norm"] > 0


def test_ema_predictors_are_updated_after_each_step(config, spec, batch):
    algorithm = make_algorithm(replace(config, cdred=replace(config.cdred, ema_rate=0.25)), spec)
    state = jax.jit(algorithm.init)(jax.random.key(0))
    after, _ = jax.jit(algorithm.update)(state, batch, KEY)
    expected = jax.tree.map(lambda a, p: 0.75 * a + 0.25 * p, state.reward.ema_predictors, after.reward.predictors)
    assert_close(after.reward.ema_predictors, expected, rtol=1e-5, atol=1e-7)
    assert all_changed(after.reward.predictors, state.reward.predictors)


def test_target_critics_follow_by_tau(config, state, update, batch):
    after, _ = update(state, batch, KEY)
    tau = config.optim.tau
    expected = jax.tree.map(lambda old, new: (1 - tau) * old + tau * new, state.target_critics, after.model.critics)
    assert_close(after.target_critics, expected, rtol=1e-5, atol=1e-7)
    assert all_changed(after.target_critics, state.target_critics)


def test_policy_step_leaves_model_unchanged(algorithm, state, batch):
    latents = jax.nn.softmax(jax.random.normal(KEY, (16, 4, 16)))
    after, _ = jax.jit(algorithm._update_policy)(state, batch, latents, KEY)
    assert all_changed(after.model.policy, state.model.policy)
    assert all_equal(after.trainable, state.trainable)
    assert all_equal(after.model_opt_state, state.model_opt_state)


def test_grad_norm_is_that_of_logged_loss(algorithm, state, batch, update):
    """The logged loss is the one that is differentiated, with the same random numbers."""
    model_key, _ = jax.random.split(KEY)
    gradient = jax.jit(jax.grad(lambda t, s, b, k: algorithm.model_loss(t, s, b, k)[1][1]["loss"]))
    _, metrics = update(state, batch, KEY)
    norm = optax.tree.norm(gradient(state.trainable, state, batch, model_key))
    assert float(metrics["grad_norm"]) == pytest.approx(float(norm), rel=1e-4)


def test_loss_is_weighted_sum_of_terms(config, initial_state, state, update, batch):
    optim = config.optim
    for start, past_warmup in ((initial_state, 0.0), (state, 1.0)):
        _, m = update(start, batch, KEY)
        critic = past_warmup * optim.value_coef * m["critic_loss"]
        expected = optim.consistency_coef * m["consistency_loss"] + critic + optim.reward_coef * m["reward_loss"]
        assert float(m["loss"]) == pytest.approx(float(expected), rel=1e-5)


def test_reward_loss_does_not_shape_latents(algorithm, state, batch):
    reward_only = with_coefs(algorithm, consistency_coef=0.0, value_coef=0.0)
    grads = jax.jit(jax.grad(lambda t: reward_only.model_loss(t, state, batch, KEY)[0]))(state.trainable)
    assert float(optax.tree.norm(grads.reward)) > 0
    assert float(optax.tree.norm((grads.encoder, grads.dynamics, grads.critics))) == 0


def test_encoder_learning_rate_is_scaled(config, state, update, batch):
    """Adam's first step is the learning rate wherever the gradient is not tiny."""
    after, _ = update(state, batch, KEY)
    rate, (new, old) = config.optim.learning_rate, (after.trainable, state.trainable)
    assert max_difference(new.dynamics, old.dynamics) == pytest.approx(rate, rel=0.01)
    assert max_difference(new.encoder, old.encoder) == pytest.approx(rate * config.optim.encoder_lr_scale, rel=0.01)


def test_decayed_learning_rate_stops_learning(config, spec, batch):
    """A run of two updates with decay over both: a whole step, half a step, none."""
    short = replace(config, steps=2, updates_per_call=2, optim=replace(config.optim, lr_decay_fraction=1.0))
    algorithm = make_algorithm(short, spec)
    update, state = jax.jit(algorithm.update), jax.jit(algorithm.init)(jax.random.key(0))
    state = eqx.tree_at(lambda s: s.updates, state, jnp.array(1000, jnp.int32))
    states = [state, *(state := update(state, batch, KEY)[0] for _ in range(3))]
    for params in (lambda s: s.trainable.dynamics, lambda s: s.trainable.reward, lambda s: s.model.policy):
        steps = [max_difference(params(a), params(b)) for a, b in pairwise(states)]
        assert steps[0] == pytest.approx(short.optim.learning_rate, rel=0.01)
        assert steps[1] == pytest.approx(short.optim.learning_rate / 2, rel=0.1)
        assert steps[2] == 0.0


@pytest.mark.slow
def test_update_op_by_op_equals_compiled(algorithm, state, update, batch):
    """The optimisers' moments are compared instead of the parameters: Adam's first step is the gradient's sign."""
    compiled, metrics = update(state, batch, KEY)
    with jax.disable_jit():
        eager, eager_metrics = algorithm.update(state, batch, KEY)
    assert {k: float(v) for k, v in eager_metrics.items()} == pytest.approx(
        {k: float(v) for k, v in metrics.items()}, rel=1e-4, abs=1e-6
    )
    moments = (lambda s: s.model_opt_state, lambda s: s.policy_opt_state)
    for part in (*moments, lambda s: s.reward.ema_predictors, lambda s: s.target_critics):
        assert_close(part(eager), part(compiled), rtol=1e-2, atol=1e-4)


def test_same_key_gives_bitwise_equal_update(state, update, batch):
    first, second = (update(state, batch, KEY) for _ in range(2))
    assert all_equal(first, second)
    assert not all_equal(update(state, batch, jax.random.key(8)), first)


def test_eager_model_loss_equals_compiled(algorithm, state, update, make_batch):
    batch = make_batch(KEY, 8)
    model_key, _ = jax.random.split(KEY)
    loss, (_, metrics) = algorithm.model_loss(state.trainable, state, batch, model_key)
    _, compiled = update(state, batch, KEY)
    assert float(loss) == pytest.approx(float(compiled["loss"]), rel=1e-4)
    assert_close(metrics, {name: compiled[name] for name in metrics}, rtol=1e-4, atol=1e-5)


def test_vmapped_seeds_equal_separate_updates(algorithm, init, make_batch, update):
    keys = jax.random.split(KEY, 2)
    batches = [make_batch(k) for k in keys]
    states = [init(k) for k in keys]
    stack = lambda *x: jnp.stack(x)  # noqa: E731
    vmapped, vmapped_metrics = jax.jit(jax.vmap(algorithm.update))(
        jax.tree.map(stack, *states), jax.tree.map(stack, *batches), keys
    )
    for i in range(2):
        separate, metrics = update(states[i], batches[i], keys[i])
        one, one_metrics = jax.tree.map(lambda x, i=i: x[i], (vmapped, vmapped_metrics))
        assert_close(one_metrics, metrics, rtol=1e-4, atol=1e-5)
        assert_close(one.trainable, separate.trainable, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("start", [lambda z: z, SharedLatent])
def test_imagined_return_is_rewards_plus_final_value(start, config, algorithm, state):
    z = state.model.encode(OBS)
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


def test_plan_objective_subtracts_distance_from_policy(config, algorithm, state):
    state = eqx.tree_at(lambda s: s.q_scale, state, jnp.array(7.0))
    z = latent = state.model.encode(OBS)
    modes = []
    for _ in range(3):
        modes.append(state.model.pi(latent).mode)
        latent = state.model.next(latent, modes[-1])
    modes = jnp.stack(modes)
    objective = algorithm.plan_objective(state, z)
    for actions in (modes, modes.at[1, 0].add(0.5), -modes):
        penalty = config.mppi.policy_penalty_coef * 7.0 * float(jnp.sum((actions - modes) ** 2))
        expected = float(algorithm.imagined_return(state, z, actions)) - penalty
        assert float(objective(actions)) == pytest.approx(expected, rel=1e-4)


def test_larger_policy_penalty_keeps_plan_nearer(config, spec, state):
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


def test_planned_action_has_noise_only_when_exploring(algorithm, state):
    act, plan = jax.jit(algorithm.act), algorithm.init_plan()
    for explore in (False, True):
        first, second = (act(state, plan, OBS, KEY, jnp.array(explore)) for _ in range(2))
        assert all_equal(first, second)
    greedy, explored = (act(state, plan, OBS, KEY, jnp.array(e))[0] for e in (False, True))
    assert not jnp.array_equal(greedy, explored)
    assert float(jnp.abs(explored).max()) <= 1


def test_policy_planner_acts_by_mode_or_sample(config, spec, state):
    algorithm = make_algorithm(replace(config, planner="policy"), spec)
    plan = algorithm.init_plan()
    greedy, after = algorithm.act(state, plan, OBS, KEY, jnp.array(False))
    explored, _ = algorithm.act(state, plan, OBS, KEY, jnp.array(True))
    np.testing.assert_allclose(greedy, state.model.pi(state.model.encode(OBS)).mode, rtol=1e-5)
    assert not jnp.array_equal(greedy, explored)
    assert all_equal(after, plan)


def test_agent_that_collects_by_its_policy_plans_in_evaluations(config, spec, algorithm, state):
    collector = make_algorithm(replace(config, collect_with="policy"), spec)
    act, plan_act = jax.jit(collector.act), jax.jit(algorithm.act)
    start, keys = algorithm.init_plan(), jax.random.split(KEY, 500)
    explore = jax.jit(jax.vmap(lambda key: collector.act(state, start, OBS, key, jnp.array(True))[0]))
    actions = np.asarray(explore(keys))
    inside = (np.abs(actions) < 1.0).all(axis=0)
    noise = (actions - np.asarray(state.model.pi(state.model.encode(OBS)).mode))[:, inside]
    assert inside.any()
    np.testing.assert_allclose(noise.std(axis=0), config.mppi.explore_min_std, rtol=0.1)
    assert all_equal(act(state, start, OBS, KEY, jnp.array(True))[1], start)
    evaluated = act(state, start, OBS, KEY, jnp.array(False))
    assert_close(evaluated, plan_act(state, start, OBS, KEY, jnp.array(False)), rtol=1e-5, atol=1e-6)


def test_large_action_spaces_get_more_iterations(config):
    agents = [make_algorithm(config, EnvSpec("probe/fake", (3,), action_dim, 100)) for action_dim in (19, 20)]
    iterations = [agent.planner.config.iterations for agent in agents]
    assert iterations == [config.mppi.iterations, config.mppi.iterations + 2]


def test_initial_state_depends_on_key(init, initial_state):
    other = init(jax.random.key(1))
    hidden, other_hidden = (s.reward.targets.members.hidden for s in (initial_state, other))
    for layer, other_layer in zip(hidden, other_hidden, strict=True):
        assert not jnp.array_equal(layer.linear.weight, other_layer.linear.weight)
    assert not all_equal(other.model.encoder, initial_state.model.encoder)
    assert all_equal(initial_state.target_critics, initial_state.model.critics)
