"""Demonstrations by an agent: complete, reproducible episodes with a sufficient return."""

from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict

import cdred
from cdred import experts
from cdred.data.demonstrations import load_demos, save_demos
from cdred.demos.record_agent import agent_episodes, record_agent
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
    return experts.train_expert(config, out, num=12, quiet=True), out


def test_recorded_episodes_are_reproduced_by_their_seed(recorded):
    demos, _ = recorded
    env = make("probe/point")
    assert len({demo.seed for demo in demos}) == len(demos) == 12
    for demo in demos:
        first = env.reset(demo.seed)
        steps = [env.step(action) for action in demo.action]
        np.testing.assert_array_equal(demo.obs, np.stack([first, *(step.obs for step in steps)]))
        np.testing.assert_allclose(demo.reward, [step.reward for step in steps], rtol=1e-6)
        assert (demo.terminated, demo.truncated) == (steps[-1].terminated, steps[-1].truncated)
        assert not any(step.truncated for step in steps[:-1])


@pytest.mark.parametrize("name", ["demos", "demos.npz"])
def test_names_of_observation_parts_are_recorded(name, tmp_path):
    class Parts(gymnasium.Env):
        observation_space, action_space = Dict(state=Box(-9, 9, (3,)), flow=Box(-1, 1, (1,))), Box(-1, 1, (2,))

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed, options=options)
            return self.observation_space.sample(), {}

        def step(self, _action):
            return self.observation_space.sample(), 1.0, False, False, {}

    def act(_learner, plan, *_):
        return np.full((1, 1, 2), 0.5, np.float32), plan

    gymnasium.register("CdredParts-v0", Parts, max_episode_steps=4)
    try:
        with VectorEnv("gym/CdredParts-v0", (3,), 1, "demos") as envs:
            demos = record_agent(SimpleNamespace(act=act, init_plan=lambda *_: None), None, envs, 2)
    finally:
        del gymnasium.registry["CdredParts-v0"]
    save_demos(demos, tmp_path / name)
    read = load_demos(tmp_path / name, envs.spec)
    assert (read.provenance["obs_keys"], read.provenance["obs_widths"]) == (["state", "flow"], [3, 1])
    np.testing.assert_array_equal(read[1].obs, demos[1].obs)


def test_agent_does_not_explore_and_resets_its_plan():
    calls = []

    def act(_learner, plan, _obs, is_first, _keys, counter, explore):
        calls.append((is_first.copy(), int(counter), explore))
        return np.full((1, 2, 2), 0.5, np.float32), plan

    compiled = SimpleNamespace(act=act, init_plan=lambda *_: None)
    with VectorEnv("probe/point", (3,), 2, "demos") as envs:
        episodes = list(islice(agent_episodes(compiled, None, envs), 4))
    assert [len(episode) for episode in episodes] == [20] * 4
    assert len({episode.seed for episode in episodes}) == 4
    assert [bool(is_first.all()) for is_first, *_ in calls] == ([True] + [False] * 19) * 2
    assert [counter for _, counter, _ in calls] == list(range(40))
    assert not any(explore for *_, explore in calls)


def test_file_has_the_demonstrations_and_their_scores(recorded):
    demos, out = recorded
    loaded = load_demos(out)
    for demo, loaded_demo in zip(demos, loaded, strict=True):
        np.testing.assert_array_equal(demo.obs, loaded_demo.obs)
        np.testing.assert_array_equal(demo.action, loaded_demo.action)
    returns = [demo.episode_return for demo in demos]
    assert loaded.provenance["returns"] == pytest.approx(returns, abs=1e-3)
    assert loaded.provenance["expert_level"]["episode_return"] == pytest.approx(np.mean(returns), rel=1e-4)
    assert "tdmpc2 on the true reward" in loaded.provenance["expert"]


def test_only_episodes_above_the_threshold_are_kept(config, recorded, tmp_path):
    median = float(np.median([demo.episode_return for demo in recorded[0]]))
    kept = experts.train_expert(config, tmp_path / "good", num=4, threshold=median, quiet=True)
    assert min(demo.episode_return for demo in kept) >= median
    assert kept.provenance["attempts"] > 4


def test_unreachable_threshold_reports_the_best_return(config, tmp_path):
    message = r"only 0 of 60 episodes have a return of at least 5, expected 1; the best return is -"
    with pytest.raises(UserError, match=message):
        experts.train_expert(config, tmp_path / "none", num=1, threshold=5.0, quiet=True)
    assert not (tmp_path / "none").exists()


def test_existing_output_is_rejected_before_recording(config, tmp_path, monkeypatch):
    monkeypatch.setattr(experts, "record_agent", lambda *_, **__: pytest.fail("it recorded"))
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").write_text("kept")
    with pytest.raises(UserError, match="there exists already"):
        experts.train_expert(config, tmp_path / "there", num=1, quiet=True)
    assert (tmp_path / "there" / "mine").read_text() == "kept"


def test_run_without_expert_has_no_expert_score(config):
    result = cdred.train(config, quiet=True)
    assert result["demos"] == 0
    assert result["eval"]["expert_return"] is None
    assert result["eval"]["normalized"] is None
    assert result["eval"]["random_return"] < 0
