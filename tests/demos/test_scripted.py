from dataclasses import replace

import numpy as np
import pytest

from cdred.data.demonstrations import save_demos
from cdred.demos import scripted
from cdred.demos.episodes import rollout
from cdred.demos.reference_scores import expert_score, mean_score
from cdred.demos.scripted import cached_demos, collect_scripted, get_demos
from cdred.envs.registry import make
from cdred.envs.seeding import STREAMS
from cdred.envs.suites.probes import PointExpert
from cdred.errors import UserError


class UnreliableExpert(PointExpert):
    """Never moves in half of the episodes; in the others reaches the goal, and leaves it unless it is to stop."""

    def __init__(self, stop_after_success=False):
        super().__init__()
        self.stop, self.reached, self.idle = stop_after_success, False, None

    def __call__(self, obs, success=False):
        self.idle = obs[2] > 0 if self.idle is None else self.idle
        self.reached |= success
        if self.idle:
            return np.zeros(2, np.float32)
        if self.reached:
            return np.zeros(2, np.float32) if self.stop else -np.sign(obs[2:]).astype(np.float32)
        return super().__call__(obs)


class LeavingExpert(PointExpert):
    """Reaches the goal and leaves it, even if it is to stop."""

    def __init__(self, stop_after_success=False):
        super().__init__(stop_after_success)
        self.reached = False

    def __call__(self, obs, success=False):
        self.reached |= success
        return -np.sign(obs[2:]).astype(np.float32) if self.reached else super().__call__(obs)


@pytest.fixture
def set_expert(monkeypatch):
    """Replaces the expert of `probe/point`."""
    return lambda maker: monkeypatch.setattr(scripted, "scripted_expert", lambda _task: maker)


def assert_same(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.seed == b.seed
        for key in ("obs", "action", "reward", "success"):
            np.testing.assert_array_equal(getattr(a, key), getattr(b, key))


def test_rollout_returns_the_episode():
    env = make("probe/dying")
    episode = rollout(env, 4, lambda _obs, _success: np.ones(1, np.float32))
    assert (episode.terminated, episode.truncated, episode.success, episode.seed) == (True, False, None, 4)
    assert episode.obs.shape == (len(episode) + 1, 1)
    np.testing.assert_array_equal(episode.obs[0], env.reset(4))
    assert episode.obs[-1, 0] > 1
    assert episode.episode_return == -len(episode)


def test_demonstrations_succeed_and_are_reproduced_by_seed():
    demos = collect_scripted("probe/point", 5)
    assert (demos.task, len(demos)) == ("probe/point", 5)
    assert all(demo.success_at_end for demo in demos)
    env = make("probe/point")
    for demo in demos:
        assert demo.seed % len(STREAMS) == STREAMS.index("demos")
        np.testing.assert_array_equal(env.reset(demo.seed), demo.obs[0])
        for action, obs in zip(demo.action, demo.obs[1:], strict=True):
            np.testing.assert_array_equal(env.step(action).obs, obs)


def test_smaller_collection_is_a_prefix(set_expert):
    set_expert(UnreliableExpert)
    assert_same(collect_scripted("probe/point", 9).take(3), collect_scripted("probe/point", 3))


def test_other_seed_gives_other_episodes():
    seeds = [{demo.seed for demo in collect_scripted("probe/point", 4, seed=seed)} for seed in (0, 1)]
    assert not seeds[0] & seeds[1]


def test_noise_on_actions_is_recorded_and_reproducible():
    plain, noisy = collect_scripted("probe/point", 4), collect_scripted("probe/point", 4, noise_std=0.3)
    assert_same(noisy, collect_scripted("probe/point", 4, noise_std=0.3))
    assert noisy.provenance["expert"].startswith("scripted, with noise of 0.3 on its actions")
    env = make("probe/point")
    for demo in noisy:
        assert np.abs(demo.action).max() <= 1.0
        np.testing.assert_array_equal(env.reset(demo.seed), demo.obs[0])
        np.testing.assert_array_equal(env.step(demo.action[0]).obs, demo.obs[1])
    changes = np.concatenate([demo.action[0] for demo in noisy]) - np.concatenate([demo.action[0] for demo in plain])
    assert np.abs(changes).max() > 0.05
    for std in (-0.1, float("nan"), float("inf")):
        with pytest.raises(UserError, match="--noise-std must be a number >= 0"):
            collect_scripted("probe/point", 1, noise_std=std)


def test_stopping_is_chosen_if_it_keeps_success(set_expert):
    set_expert(UnreliableExpert)
    attempts = []
    demos = collect_scripted("probe/point", 6, on_episode=lambda *counts: attempts.append(counts))
    assert demos.provenance["hold"] is True
    assert demos.provenance["kept"] == "success at the end"
    assert all(demo.success_at_end for demo in demos)
    num_attempts = demos.provenance["attempts"]
    assert attempts[-1] == (6, num_attempts)
    assert [count for _, count in attempts] == list(range(1, num_attempts + 1))
    assert num_attempts > 6
    assert expert_score(demos).success == pytest.approx(6 / num_attempts)
    assert expert_score(demos).episode_return < mean_score(demos.trajectories).episode_return


def test_success_at_any_step_is_kept_if_none_lasts(set_expert):
    set_expert(LeavingExpert)
    demos = collect_scripted("probe/point", 6)
    assert demos.provenance["hold"] is False
    assert demos.provenance["kept"] == "success at any time"
    assert all(demo.success_once for demo in demos)
    assert expert_score(demos).success_at_end < 0.5


def test_stopping_can_be_set_explicitly(set_expert):
    set_expert(UnreliableExpert)
    demos = collect_scripted("probe/point", 3, stop_after_success=False)
    assert demos.provenance["hold"] is False


def test_too_few_successes_are_reported(set_expert):
    set_expert(UnreliableExpert)
    with pytest.raises(UserError, match=r"succeeded in \d of 10 episodes, expected 10 successes"):
        collect_scripted("probe/point", 10, max_attempts=10)


def test_missing_expert_and_zero_demonstrations_are_rejected(tmp_path):
    with pytest.raises(UserError, match="--demos PATH"):
        cached_demos("probe/dying", 3, tmp_path)
    with pytest.raises(UserError, match="at least one"):
        collect_scripted("probe/point", 0)


def test_cache_serves_smaller_requests_without_collecting(tmp_path, monkeypatch):
    first = cached_demos("probe/point", 6, tmp_path)
    monkeypatch.setattr(scripted, "collect_scripted", lambda *_, **__: pytest.fail("collected again"))
    assert_same(cached_demos("probe/point", 6, tmp_path), first)
    few = cached_demos("probe/point", 2, tmp_path)
    assert_same(few, first.take(2))
    assert expert_score(few).success == 1


def test_cache_grows_for_larger_requests(tmp_path):
    few, more = cached_demos("probe/point", 2, tmp_path), cached_demos("probe/point", 4, tmp_path)
    assert (len(few), len(more)) == (2, 4)
    assert_same(more.take(2), few)


def test_cache_follows_xdg_cache_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cached_demos("probe/point", 1)
    assert list((tmp_path / "cdred" / "demos" / "probe" / "point").iterdir())
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/user")
    assert str(scripted.default_cache_dir()) == "/home/user/.cache/cdred/demos"


def test_copy_saved_by_another_process_is_used(tmp_path, monkeypatch):
    original = scripted.collect_scripted

    def collect_late(task, num, **options):
        monkeypatch.setattr(scripted, "collect_scripted", original)
        cached_demos(task, num, tmp_path)
        return original(task, num, **options)

    monkeypatch.setattr(scripted, "collect_scripted", collect_late)
    assert_same(cached_demos("probe/point", 2, tmp_path), original("probe/point", 2))


def test_simulated_expert_stops_after_success():
    pytest.importorskip("metaworld")
    demos = collect_scripted("metaworld/stick-push", 2)
    assert demos.provenance["hold"] is True
    assert all(demo.success_at_end for demo in demos)
    assert demos[0].obs.shape == (101, 39)
    assert demos.provenance["versions"]["metaworld"]


def test_bundled_demos_precede_the_scripted_expert(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    save_demos(collect_scripted("probe/point", 3, seed=5), tmp_path / "set.npz")
    monkeypatch.setattr(scripted, "bundled_demos", lambda: {"probe/point": tmp_path / "set.npz"})
    assert_same(get_demos("probe/point", 2), collect_scripted("probe/point", 3, seed=5).take(2))
    assert_same(get_demos("probe/point", 4), collect_scripted("probe/point", 4))
    with pytest.raises(UserError, match="at least one"):
        get_demos("probe/point", 0)


def test_bundled_demos_that_failed_are_chosen_last(tmp_path, monkeypatch):
    demos = collect_scripted("probe/point", 4)
    failed = replace(demos[0], success=np.zeros(len(demos[0]), bool))
    save_demos(replace(demos, trajectories=(failed, *demos[1:])), tmp_path / "set.npz")
    monkeypatch.setattr(scripted, "bundled_demos", lambda: {"probe/point": tmp_path / "set.npz"})
    chosen = get_demos("probe/point", 2)
    assert_same(chosen, demos[1:3])
    assert chosen.provenance["selected_episodes"] == {"indices": [1, 2], "of": 4, "failed": [0]}


def test_bundled_demos_are_not_of_another_action_repeat():
    pytest.importorskip("dm_control")
    assert len(get_demos("dmc/walker-walk", 1)) == 1
    with pytest.raises(UserError, match=r"dmc/walker-walk\?repeat=1 has no scripted expert"):
        get_demos("dmc/walker-walk?repeat=1", 1)


def test_scripted_demos_at_another_action_repeat_are_cached_apart(tmp_path):
    pytest.importorskip("metaworld")
    demos = cached_demos("metaworld/reach?repeat=8", 1, tmp_path)
    assert (demos.task, demos.provenance["action_repeat"], len(demos[0])) == ("metaworld/reach?repeat=8", 8, 25)
    assert [folder.name for folder in (tmp_path / "metaworld").iterdir()] == ["reach-repeat-8"]
    assert_same(cached_demos("metaworld/reach?repeat=8", 1, tmp_path), demos)


def test_more_than_bundled_needs_an_expert(tmp_path, monkeypatch):
    save_demos(replace(collect_scripted("probe/point", 3), task="probe/dying"), tmp_path / "set.npz")
    monkeypatch.setattr(scripted, "bundled_demos", lambda: {"probe/dying": tmp_path / "set.npz"})
    with pytest.raises(UserError, match="3 demonstrations of probe/dying come with the package, 4 were requested"):
        get_demos("probe/dying", 4)
