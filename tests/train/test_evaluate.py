from types import SimpleNamespace

import numpy as np

from cdred.demos.episodes import rollout
from cdred.envs.registry import make
from cdred.envs.seeding import episode_seed
from cdred.envs.vector_env import VectorEnv
from cdred.train.evaluate import evaluate, unseen_episode


def make_actor(policy):
    """Make an actor that computes its actions from the observations."""
    return SimpleNamespace(
        init_plan=lambda *_: None, act=lambda _l, plan, obs, _f, _k, _c, _e: (policy(np.asarray(obs)), plan)
    )


def to_the_goal(obs):
    return np.clip(10.0 * (obs[..., 2:] - obs[..., :2]), -1.0, 1.0).astype(np.float32)


def test_optimal_policy_succeeds_and_idle_policy_fails():
    with VectorEnv("probe/point", [0, 5], 2, "eval") as envs:
        best = evaluate(make_actor(to_the_goal), None, envs, None, 4)
        idle = evaluate(make_actor(lambda obs: np.zeros((*obs.shape[:2], 2), np.float32)), None, envs, None, 4)
    assert best.success.tolist() == best.success_at_end.tolist() == [1.0, 1.0]
    assert idle.success_at_end.tolist() == [0.0, 0.0]
    assert (best.episode_return > idle.episode_return).all()


def test_episodes_are_shared_by_environments_and_never_repeated():
    with VectorEnv("probe/point", [0], 2, "eval") as envs:
        assert evaluate(make_actor(to_the_goal), None, envs, None, 5).episodes == 6
        first = envs.snapshot()["episode"].tolist()
        evaluate(make_actor(to_the_goal), None, envs, None, 2)
        assert first == [[2, 2]]
        assert envs.snapshot()["episode"].tolist() == [[3, 3]]


def test_agents_that_begin_at_one_episode_act_from_the_same_initial_states():
    with VectorEnv("probe/point", [0, 5], 2, "eval") as envs:
        first = evaluate(make_actor(to_the_goal), None, envs, None, 4)
        following = evaluate(make_actor(to_the_goal), None, envs, None, 4)
        again = evaluate(make_actor(to_the_goal), None, envs, None, 4, first_episode=0)
        assert envs.next_episode == 2
        # Four episodes of two environments are numbers 0 and 1, which a final evaluation of six reaches beyond.
        assert (unseen_episode(envs, 4), unseen_episode(envs, 6)) == (2, 3)
    assert first.episode_return.tolist() == again.episode_return.tolist() != following.episode_return.tolist()


def test_mean_return_equals_that_of_single_episodes():
    env = make("probe/point")
    seeds = [episode_seed(3, "eval", 0, episode) for episode in range(3)]
    returns = [rollout(env, seed, lambda obs, _: to_the_goal(obs)).episode_return for seed in seeds]
    with VectorEnv("probe/point", [3], 1, "eval") as envs:
        result = evaluate(make_actor(to_the_goal), None, envs, None, 3)
    np.testing.assert_allclose(result.episode_return, [np.mean(returns)], rtol=1e-6)
    np.testing.assert_allclose(result.returns, [returns], rtol=1e-6)


def test_environments_with_short_episodes_do_not_count_more():
    # The first environment terminates after a few steps, the second idles for twenty: two episodes of each are counted.
    rush_and_idle = np.array([[[1.0], [0.0]]], np.float32)
    env = make("probe/dying")
    seeds = [episode_seed(0, "eval", 0, episode) for episode in range(2)]
    episodes = [rollout(env, seed, lambda *_: rush_and_idle[0, 0]) for seed in seeds]
    returns, lengths = [episode.episode_return for episode in episodes], [len(episode) for episode in episodes]
    with VectorEnv("probe/dying", [0], 2, "eval") as envs:
        result = evaluate(make_actor(lambda _: rush_and_idle), None, envs, None, 4)
    assert -10 < min(returns) <= max(returns) < 0
    np.testing.assert_allclose(result.episode_return, [(sum(returns) - 40) / 4])
    np.testing.assert_allclose(result.returns, [[*returns, -20, -20]], rtol=1e-6)
    np.testing.assert_allclose(result.episode_length, [(sum(lengths) + 40) / 4])
