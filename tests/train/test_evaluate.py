from types import SimpleNamespace

import numpy as np

from cdred.demos.episodes import rollout
from cdred.envs.registry import make
from cdred.envs.vector_env import VectorEnv, episode_seed
from cdred.train.evaluate import evaluate


def acting(policy):
    """Programs whose agent is a plain function of observations."""
    return SimpleNamespace(
        init_plan=lambda *_: None, act=lambda _l, plan, obs, _f, _k, _c, _e: (policy(np.asarray(obs)), plan)
    )


def to_the_goal(obs):
    return np.clip(10.0 * (obs[..., 2:] - obs[..., :2]), -1.0, 1.0).astype(np.float32)


def test_a_perfect_agent_always_succeeds_and_an_idle_one_never():
    with VectorEnv("probe/point", [0, 5], 2, "eval") as grid:
        best = evaluate(acting(to_the_goal), None, grid, None, 4)
        idle = evaluate(acting(lambda obs: np.zeros((*obs.shape[:2], 2), np.float32)), None, grid, None, 4)
    assert best.success_once.tolist() == best.success_at_end.tolist() == [1.0, 1.0]
    assert idle.success_at_end.tolist() == [0.0, 0.0]
    assert (best.episode_return > idle.episode_return).all()


def test_episodes_are_shared_out_over_lanes_and_never_repeated():
    with VectorEnv("probe/point", [0], 2, "eval") as grid:
        assert evaluate(acting(to_the_goal), None, grid, None, 5).episodes == 6
        after = grid.snapshot()["episode"].tolist()
        evaluate(acting(to_the_goal), None, grid, None, 2)
        assert after == [[2, 2]]
        assert grid.snapshot()["episode"].tolist() == [[3, 3]]


def test_the_mean_return_is_that_of_the_episodes_played_one_by_one():
    env = make("probe/point")
    seeds = [episode_seed(3, "eval", 0, episode) for episode in range(3)]
    alone = [rollout(env, seed, lambda obs, _: to_the_goal(obs)).episode_return for seed in seeds]
    with VectorEnv("probe/point", [3], 1, "eval") as grid:
        together = evaluate(acting(to_the_goal), None, grid, None, 3)
    np.testing.assert_allclose(together.episode_return, [np.mean(alone)], rtol=1e-6)


def test_lanes_with_short_episodes_do_not_count_for_more():
    # The first lane dies after a few steps, the second idles for twenty: two episodes of each are counted.
    rush_and_idle = np.array([[[1.0], [0.0]]], np.float32)
    env = make("probe/dying")
    rushed = [rollout(env, episode_seed(0, "eval", 0, episode), lambda *_: rush_and_idle[0, 0]) for episode in range(2)]
    returns, lengths = [one.episode_return for one in rushed], [len(one) for one in rushed]
    with VectorEnv("probe/dying", [0], 2, "eval") as grid:
        result = evaluate(acting(lambda _: rush_and_idle), None, grid, None, 4)
    assert -10 < min(returns) <= max(returns) < 0
    np.testing.assert_allclose(result.episode_return, [(sum(returns) - 40) / 4])
    np.testing.assert_allclose(result.episode_length, [(sum(lengths) + 40) / 4])
