"""Demonstrations by an agent: whole episodes that can be lived through again, and only the good ones."""

from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest

import cdred
from cdred import api
from cdred.data.demonstrations import load_demos
from cdred.demos.record_agent import episodes
from cdred.envs.registry import make
from cdred.envs.vector_env import VectorEnv
from cdred.errors import UserError


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A finished training run of TD-MPC2 on two seeds."""
    out = tmp_path_factory.mktemp("expert") / "run"
    base = replace(cdred.preset("debug"), task="probe/point", algo="tdmpc2", steps=120, video=False)
    base = replace(base, seeds=(3, 4), out=str(out))
    cdred.train(base, quiet=True)
    return base


@pytest.fixture(scope="module")
def recorded(config, tmp_path_factory):
    out = tmp_path_factory.mktemp("demos") / "demos"
    return api.train_expert(config, out, num=12, quiet=True), out


def test_recorded_episodes_are_those_of_their_seeds(recorded):
    demos, _ = recorded
    env = make("probe/point")
    assert len({one.seed for one in demos}) == len(demos) == 12
    for one in demos:
        seen = [env.reset(one.seed)]
        steps = [env.step(action) for action in one.action]
        np.testing.assert_array_equal(one.obs, np.stack(seen + [step.obs for step in steps]))
        np.testing.assert_allclose(one.reward, [step.reward for step in steps], rtol=1e-6)
        assert (one.terminated, one.truncated) == (steps[-1].terminated, steps[-1].truncated)
        assert not any(step.truncated for step in steps[:-1])


def test_the_agent_does_not_explore_and_plans_anew_in_each_episode():
    asked = []

    def act(_learner, plan, _obs, fresh, _keys, counter, explore):
        asked.append((fresh.copy(), int(counter), explore))
        return np.full((1, 2, 2), 0.5, np.float32), plan

    programs = SimpleNamespace(act=act, init_plan=lambda *_: None)
    with VectorEnv("probe/point", (3,), 2, "demos") as grid:
        first = list(islice(episodes(programs, None, grid), 4))
    assert [len(one) for one in first] == [20] * 4
    assert len({one.seed for one in first}) == 4
    assert [bool(fresh.all()) for fresh, *_ in asked] == ([True] + [False] * 19) * 2
    assert [counter for _, counter, _ in asked] == list(range(40))
    assert not any(explore for *_, explore in asked)


def test_the_file_holds_what_was_returned_and_says_how_good_it_is(recorded):
    demos, out = recorded
    read = load_demos(out)
    for one, other in zip(demos, read, strict=True):
        np.testing.assert_array_equal(one.obs, other.obs)
        np.testing.assert_array_equal(one.action, other.action)
    returns = [one.episode_return for one in demos]
    assert read.provenance["returns"] == pytest.approx(returns, abs=1e-3)
    assert read.provenance["expert_level"]["episode_return"] == pytest.approx(np.mean(returns), rel=1e-4)
    assert "tdmpc2 on the true reward" in read.provenance["expert"]


def test_only_episodes_above_the_threshold_are_kept(config, recorded, tmp_path):
    middle = float(np.median([one.episode_return for one in recorded[0]]))
    kept = api.train_expert(config, tmp_path / "good", num=4, threshold=middle, quiet=True)
    assert min(one.episode_return for one in kept) >= middle
    assert kept.provenance["attempts"] > 4


def test_a_threshold_that_is_never_reached_is_an_error_with_the_best_return(config, tmp_path):
    with pytest.raises(
        UserError, match=r"only 0 of 60 episodes have a return of 5 or more, 1 are wanted; the best has -"
    ):
        api.train_expert(config, tmp_path / "none", num=1, threshold=5.0, quiet=True)
    assert not (tmp_path / "none").exists()


def test_what_exists_is_not_overwritten_and_told_before_anything_is_recorded(config, tmp_path, monkeypatch):
    monkeypatch.setattr(api, "record_agent", lambda *_, **__: pytest.fail("it recorded"))
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").write_text("kept")
    with pytest.raises(UserError, match="there exists already"):
        api.train_expert(config, tmp_path / "there", num=1, quiet=True)
    assert (tmp_path / "there" / "mine").read_text() == "kept"


def test_a_run_without_an_expert_has_no_expert_level(config):
    result = cdred.train(config, quiet=True)
    assert result["demos"] == 0
    assert result["eval"]["expert_return"] is None
    assert result["eval"]["normalized"] is None
    assert result["eval"]["random_return"] < 0
