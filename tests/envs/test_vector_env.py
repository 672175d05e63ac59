import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdred.envs.failures import SimulatorError
from cdred.envs.registry import make
from cdred.envs.vector_env import STREAMS, VectorEnv, episode_seed
from cdred.errors import UserError

SIMULATED = ("metaworld/drawer-close", "dmc/reacher-hard", "gym/Pendulum-v1")


def actions(grid, steps, seed=0):
    size = (steps, *grid.shape, grid.spec.action_dim)
    return np.random.default_rng(seed).uniform(-1, 1, size).astype(np.float32)


def run(grid, chosen):
    """Observations and rewards of stepping through `chosen`, resetting what has ended."""
    seen = []
    for action in chosen:
        step = grid.step(action)
        seen.append((step.obs, step.reward, step.terminated, step.truncated, step.success))
        done = step.terminated | step.truncated
        if done.any():
            seen.append((grid.reset(done),))
    return seen


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_row_is_what_it_would_be_alone():
    with VectorEnv("probe/point", [0, 3], 2) as both, VectorEnv("probe/point", [3], 2) as alone:
        chosen = actions(both, 45)
        np.testing.assert_array_equal(both.reset()[1:], alone.reset())
        rows = [tuple(part[1:] for part in step) for step in run(both, chosen)]
        assert_same(rows, run(alone, chosen[:, 1:]))


def test_environments_and_episodes_differ():
    with VectorEnv("probe/point", [0, 1], 3) as grid:
        starts = np.concatenate([grid.reset().reshape(-1, 4), grid.reset().reshape(-1, 4)])
        assert len(np.unique(starts, axis=0)) == 12


index = st.integers(0, 10**6)


@given(seeds=st.tuples(index, index), envs=st.tuples(index, index), episodes=st.tuples(index, index))
def test_streams_never_share_an_episode(seeds, envs, episodes):
    train = episode_seed(seeds[0], "train", envs[0], episodes[0])
    others = {episode_seed(seeds[1], stream, envs[1], episodes[1]) for stream in STREAMS if stream != "train"}
    assert train not in others
    assert 0 <= train < 2**32
    # Not by luck: a seed tells its stream.
    assert {seed % len(STREAMS) for seed in others} == set(range(1, len(STREAMS)))
    assert train % len(STREAMS) == 0
    assert train == episode_seed(seeds[0], "train", envs[0], episodes[0])


def test_the_readable_seed_reproduces_the_episode():
    with VectorEnv("probe/point", [5, 6], 2, "eval") as grid:
        grid.reset()
        obs = grid.reset()
        np.testing.assert_array_equal(make("probe/point").reset(grid.episode_seed(1, 0)), obs[1, 0])


def test_a_mask_resets_only_where_it_holds():
    with VectorEnv("probe/point", [0, 1], 2) as grid:
        grid.reset()
        before = grid.step(actions(grid, 1)[0]).obs
        mask = np.array([[False, True], [False, False]])
        after = grid.reset(mask)
        np.testing.assert_array_equal(after[~mask], before[~mask])
        assert not np.array_equal(after[mask], before[mask])


def test_the_final_observation_is_the_true_one_and_a_reset_must_follow():
    with VectorEnv("probe/dying", [0, 1]) as grid:
        with pytest.raises(RuntimeError, match="reset"):
            grid.step(np.ones((2, 1, 1)))
        grid.reset()
        step = grid.step(np.ones((2, 1, 1)))
        while not step.terminated.any():
            step = grid.step(np.ones((2, 1, 1)))
        assert (step.obs[step.terminated] > 1).all()
        with pytest.raises(RuntimeError, match="reset"):
            grid.step(np.ones((2, 1, 1)))
        grid.reset(step.terminated)
        grid.step(np.zeros((2, 1, 1)))


def test_what_was_returned_does_not_change_afterwards():
    with VectorEnv("probe/point", [0]) as grid:
        first = grid.reset()
        kept = first.copy()
        second = grid.step(np.ones((1, 1, 2)))
        kept_second = second.obs.copy()
        snapshot = grid.snapshot()
        kept_snapshot = {key: value.copy() for key, value in snapshot.items()}
        grid.step(np.ones((1, 1, 2)))
        np.testing.assert_array_equal(first, kept)
        np.testing.assert_array_equal(second.obs, kept_second)
        for key, value in kept_snapshot.items():
            np.testing.assert_array_equal(snapshot[key], value)


@pytest.mark.parametrize("wrong", [np.zeros((2, 2)), np.zeros((1, 1, 3)), np.full((1, 1, 2), np.nan)])
def test_actions_of_another_shape_or_not_finite_are_refused(wrong):
    with VectorEnv("probe/point", [0]) as grid:
        grid.reset()
        with pytest.raises(ValueError, match=r"finite actions of shape \(1, 1, 2\)"):
            grid.step(wrong)


@pytest.mark.parametrize("taken", [0, 7, 20, 33])
def test_a_restored_grid_goes_on_as_if_nothing_had_happened(taken):
    with VectorEnv("probe/dying", [0, 4], 2) as grid, VectorEnv("probe/dying", [0, 4], 2) as resumed:
        grid.reset()
        chosen = actions(grid, taken + 40)
        run(grid, chosen[:taken])
        resumed.restore(grid.snapshot())
        assert_same(run(grid, chosen[taken:]), run(resumed, chosen[taken:]))


@pytest.mark.parametrize("task", SIMULATED)
def test_simulators_are_restored_in_the_middle_of_an_episode(task):
    if not task.startswith("gym"):
        pytest.importorskip({"metaworld": "metaworld", "dmc": "dm_control"}[task.split("/")[0]])
    with VectorEnv(task, [0, 1]) as grid, VectorEnv(task, [0, 1]) as resumed:
        grid.reset(), grid.reset()
        chosen = actions(grid, 60)
        run(grid, chosen[:30])
        # A grid that has lived through something else must come to the same place.
        resumed.reset()
        run(resumed, chosen[30:35])
        resumed.restore(grid.snapshot())
        assert_same(run(grid, chosen[30:]), run(resumed, chosen[30:]))


def test_an_episode_that_has_ended_is_restored_as_ended():
    with VectorEnv("probe/point", [0]) as grid, VectorEnv("probe/point", [0]) as resumed:
        grid.reset()
        for action in actions(grid, 20):
            last = grid.step(action)
        resumed.restore(grid.snapshot())
        with pytest.raises(RuntimeError, match="reset"):
            resumed.step(np.zeros((1, 1, 2)))
        np.testing.assert_array_equal(resumed.reset(np.zeros((1, 1), bool)), last.obs)
        np.testing.assert_array_equal(resumed.reset(), grid.reset())


def test_a_snapshot_before_the_first_reset_restores_a_new_grid():
    with VectorEnv("probe/point", [0]) as grid, VectorEnv("probe/point", [0]) as resumed:
        resumed.reset()
        resumed.restore(grid.snapshot())
        with pytest.raises(RuntimeError, match="reset"):
            resumed.step(np.zeros((1, 1, 2)))
        np.testing.assert_array_equal(resumed.reset(), grid.reset())


def test_a_snapshot_of_another_grid_is_refused():
    with VectorEnv("probe/point", [0, 1]) as grid, VectorEnv("probe/point", [0, 2]) as other:
        with pytest.raises(ValueError, match="another grid"):
            other.restore(grid.snapshot())
        with VectorEnv("probe/point", [0]) as smaller, pytest.raises(ValueError, match="another grid"):
            smaller.restore(grid.snapshot())


def test_a_simulator_that_does_not_come_back_is_reported(monkeypatch):
    from cdred.envs.suites.probes import Point

    with VectorEnv("probe/point", [0]) as grid:
        grid.reset()
        grid.step(np.ones((1, 1, 2)))
        snapshot = grid.snapshot()
        monkeypatch.setattr(Point, "SPEED", 0.1)
        with pytest.raises(SimulatorError, match=r"probe/point, seed 0, environment 0.*other observations"):
            grid.restore(snapshot)


@pytest.mark.parametrize("seeds", [[], [-1]])
def test_seeds_must_be_given_and_not_negative(seeds):
    with pytest.raises(UserError, match="seeds"):
        VectorEnv("probe/point", seeds)


def test_render_is_that_of_the_cell():
    with VectorEnv("probe/point", [0, 1], render_size=16) as grid:
        grid.reset()
        alone = make("probe/point", render_size=16)
        alone.reset(grid.episode_seed(1, 0))
        np.testing.assert_array_equal(grid.render(1, 0), alone.render())
