from dataclasses import replace

import numpy as np
import pytest

from cdred.data.demonstrations import save_demos
from cdred.demos import scripted
from cdred.demos.episodes import rollout
from cdred.demos.scripted import (
    cached_demos,
    collect_scripted,
    expert_level,
    get_demos,
    level,
    random_level,
)
from cdred.envs.registry import make
from cdred.envs.suites.probes import PointExpert
from cdred.envs.vector_env import STREAMS
from cdred.errors import UserError


class Careless(PointExpert):
    """Reaches the goal and leaves it again, unless it holds; on half of the episodes it does not even set out."""

    def __init__(self, hold=False):
        super().__init__()
        self.hold, self.reached, self.lazy = hold, False, None

    def __call__(self, obs, success=False):
        self.lazy = obs[2] > 0 if self.lazy is None else self.lazy
        self.reached |= success
        if self.lazy:
            return np.zeros(2, np.float32)
        if self.reached:
            return np.zeros(2, np.float32) if self.hold else -np.sign(obs[2:]).astype(np.float32)
        return super().__call__(obs)


class Leaving(PointExpert):
    """Reaches the goal and leaves it again, whatever it is told."""

    def __init__(self, hold=False):
        super().__init__(hold)
        self.reached = False

    def __call__(self, obs, success=False):
        self.reached |= success
        return -np.sign(obs[2:]).astype(np.float32) if self.reached else super().__call__(obs)


@pytest.fixture
def expert(monkeypatch):
    """Puts another expert in the place of `probe/point`'s."""
    return lambda maker: monkeypatch.setattr(scripted, "scripted_expert", lambda _task: maker)


def assert_same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.seed == b.seed
        for key in ("obs", "action", "reward", "success"):
            np.testing.assert_array_equal(getattr(a, key), getattr(b, key))


def test_a_rollout_is_what_the_environment_did():
    env = make("probe/dying")
    one = rollout(env, 4, lambda _obs, _success: np.ones(1, np.float32))
    assert (one.terminated, one.truncated, one.success, one.seed) == (True, False, None, 4)
    assert one.obs.shape == (len(one) + 1, 1)
    np.testing.assert_array_equal(one.obs[0], env.reset(4))
    assert one.obs[-1, 0] > 1
    assert one.episode_return == -len(one)


def test_demonstrations_are_successful_and_reproduced_by_their_seed():
    demos = collect_scripted("probe/point", 5)
    assert (demos.task, len(demos)) == ("probe/point", 5)
    assert all(one.success_at_end for one in demos)
    env = make("probe/point")
    for one in demos:
        assert one.seed % len(STREAMS) == STREAMS.index("demos")
        np.testing.assert_array_equal(env.reset(one.seed), one.obs[0])
        for action, obs in zip(one.action, one.obs[1:], strict=True):
            np.testing.assert_array_equal(env.step(action).obs, obs)


def test_the_first_of_many_are_the_few(expert):
    expert(Careless)
    assert_same(collect_scripted("probe/point", 9).take(3), collect_scripted("probe/point", 3))


def test_another_seed_gives_other_episodes():
    seeds = [{one.seed for one in collect_scripted("probe/point", 4, seed=seed)} for seed in (0, 1)]
    assert not seeds[0] & seeds[1]


def test_holding_still_is_chosen_where_it_keeps_success_and_failures_are_counted(expert):
    expert(Careless)
    attempts = []
    demos = collect_scripted("probe/point", 6, on_episode=lambda kept, tried: attempts.append((kept, tried)))
    assert demos.provenance["hold"] is True
    assert demos.provenance["kept"] == "success at the end"
    assert all(one.success_at_end for one in demos)
    tried = demos.provenance["attempts"]
    assert attempts[-1] == (6, tried)
    assert [count for _, count in attempts] == list(range(1, tried + 1))
    assert tried > 6
    assert expert_level(demos).success_once == pytest.approx(6 / tried)
    assert expert_level(demos).episode_return < level(demos.trajectories).episode_return


def test_success_at_any_time_is_kept_where_none_is_at_the_end(expert):
    expert(Leaving)
    demos = collect_scripted("probe/point", 6)
    assert demos.provenance["hold"] is False
    assert demos.provenance["kept"] == "success at any time"
    assert all(one.success_once for one in demos)
    assert expert_level(demos).success_at_end < 0.5


def test_the_choice_can_be_made_by_hand(expert):
    expert(Careless)
    demos = collect_scripted("probe/point", 3, hold=False)
    assert demos.provenance["hold"] is False


def test_an_expert_that_fails_too_often_is_reported(expert):
    expert(Careless)
    with pytest.raises(UserError, match=r"succeeded in \d of 10 episodes, 10 successes were asked for"):
        collect_scripted("probe/point", 10, max_attempts=10)


def test_a_task_without_expert_and_no_demonstrations_are_refused(tmp_path):
    with pytest.raises(UserError, match="--demos PATH"):
        cached_demos("probe/dying", 3, tmp_path)
    with pytest.raises(UserError, match="at least one"):
        collect_scripted("probe/point", 0)


def test_the_cache_collects_once_and_serves_smaller_requests(tmp_path, monkeypatch):
    first = cached_demos("probe/point", 6, tmp_path)
    monkeypatch.setattr(scripted, "collect_scripted", lambda *_, **__: pytest.fail("collected again"))
    assert_same(cached_demos("probe/point", 6, tmp_path), first)
    few = cached_demos("probe/point", 2, tmp_path)
    assert_same(few, first.take(2))
    assert expert_level(few).success_once == 1


def test_the_cache_grows_for_larger_requests(tmp_path):
    few, more = cached_demos("probe/point", 2, tmp_path), cached_demos("probe/point", 4, tmp_path)
    assert (len(few), len(more)) == (2, 4)
    assert_same(more.take(2), few)


def test_the_cache_lies_where_the_user_keeps_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cached_demos("probe/point", 1)
    assert list((tmp_path / "cdred" / "demos" / "probe" / "point").iterdir())
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert str(scripted.default_cache_dir()) == "/home/somebody/.cache/cdred/demos"


def test_a_copy_saved_by_somebody_else_meanwhile_is_taken(tmp_path, monkeypatch):
    real = scripted.collect_scripted

    def slow(task, num, **options):
        monkeypatch.setattr(scripted, "collect_scripted", real)
        cached_demos(task, num, tmp_path)
        return real(task, num, **options)

    monkeypatch.setattr(scripted, "collect_scripted", slow)
    assert_same(cached_demos("probe/point", 2, tmp_path), real("probe/point", 2))


def test_random_is_worse_than_the_expert_and_reproducible():
    random = random_level("probe/point", 20)
    assert random == random_level("probe/point", 20)
    assert random != random_level("probe/point", 20, seed=1)
    assert random.success_at_end < 0.3
    assert random.episode_return < expert_level(collect_scripted("probe/point", 5)).episode_return


def test_a_dataset_that_does_not_know_its_expert_is_measured():
    demos = collect_scripted("probe/point", 3)
    bare = type(demos)(demos.task, demos.trajectories)
    assert expert_level(bare) == level(demos.trajectories)


def test_a_simulated_expert_keeps_its_success_by_holding_still():
    pytest.importorskip("metaworld")
    demos = collect_scripted("metaworld/stick-push", 2)
    assert demos.provenance["hold"] is True
    assert all(one.success_at_end for one in demos)
    assert demos[0].obs.shape == (101, 39)
    assert demos.provenance["versions"]["metaworld"]


def test_a_number_takes_what_comes_with_the_package_before_it_asks_the_expert(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    save_demos(collect_scripted("probe/point", 3, seed=5), tmp_path / "set.npz")
    monkeypatch.setattr(scripted, "shipped", lambda _task: tmp_path / "set.npz")
    assert_same(get_demos("probe/point", 2), collect_scripted("probe/point", 3, seed=5).take(2))
    assert_same(get_demos("probe/point", 4), collect_scripted("probe/point", 4))
    with pytest.raises(UserError, match="at least one"):
        get_demos("probe/point", 0)


def test_more_than_come_with_the_package_need_an_expert(tmp_path, monkeypatch):
    save_demos(replace(collect_scripted("probe/point", 3), task="probe/dying"), tmp_path / "set.npz")
    monkeypatch.setattr(scripted, "shipped", lambda _task: tmp_path / "set.npz")
    with pytest.raises(UserError, match="3 demonstrations of probe/dying come with the package, 4 were asked for"):
        get_demos("probe/dying", 4)
