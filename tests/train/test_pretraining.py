"""Runs with pretraining: its evaluation, the first episodes, self-imitation, the choice of the agent, resuming."""

import json
import os
import signal
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import cdred
from cdred import api
from cdred.algos.judge import SelfImitationConfig
from cdred.algos.pretrain import CANDIDATES, PretrainConfig
from cdred.errors import Interrupted, UserError
from cdred.run_folder import load_run
from cdred.train import pretraining, selection
from cdred.train.keys import ACT, seed_keys
from cdred.train.setup import make_compiled_fns
from runs import arrays, assert_same_arrays, device_config, killed_at, metric_lines, run_config

SETTINGS = {
    "pretrain": PretrainConfig(updates=200, episodes=2, noise_std=0.0, selection_episodes=2),
    "self_imitation": SelfImitationConfig(coef=1.0, window=5, tolerance=1.0),
    "steps": 120,
    "eval_every": 60,
    "checkpoint_every": 40,
}


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("pretrained") / "run"
    cdred.train(run_config(out, **SETTINGS), quiet=True)
    return out


def lines(run, kind):
    return [line for line in metric_lines(run) if line["kind"] == kind]


def test_curve_starts_at_the_pretrained_policy(finished_run):
    first, *others = lines(finished_run, "eval")
    assert (first["step"], first["episodes"]) == (0, 2)
    assert [line["step"] for line in others] == [60, 120]
    losses = [np.mean(line["bc_loss"]) for line in lines(finished_run, "pretrain")]
    assert losses[-1] < 0.5 * losses[0]


def test_first_episodes_are_acted_by_the_pretrained_policy(finished_run):
    loaded, state = load_run(finished_run, None), arrays(finished_run)
    fns = make_compiled_fns(loaded.config, api.get_env_spec("probe/point"))
    # Two episodes of 20 steps; each has a row more for its last observation.
    obs, action = (state[f"replay/{name}"][:, :, :20] for name in ("obs", "action"))
    for step in range(20):
        keys = seed_keys((0, 1), ACT)
        args = (np.ones((2, 1), bool), keys, np.int32(step), True)
        expected, _ = fns.act_pretrained(loaded.learner, fns.init_plan(2, 1), obs[:, :, step], *args)
        np.testing.assert_allclose(action[:, :, step], expected, atol=1e-5)


def test_resumed_run_is_bitwise_identical(finished_run, tmp_path):
    with killed_at(100):
        cdred.train(run_config(tmp_path / "run", **SETTINGS), quiet=True)
    cdred.train(run_config(tmp_path / "run", **SETTINGS), quiet=True)
    assert_same_arrays(arrays(finished_run), arrays(tmp_path / "run"))
    assert metric_lines(finished_run) == metric_lines(tmp_path / "run")


def test_run_stopped_in_pretraining_starts_it_again(finished_run, tmp_path, monkeypatch):
    log = pretraining._log
    monkeypatch.setattr(pretraining, "_log", lambda *args: (log(*args), os.kill(os.getpid(), signal.SIGTERM)))
    with pytest.raises(Interrupted, match="stopped in pretraining"):
        cdred.train(run_config(tmp_path / "run", **SETTINGS), quiet=True)
    monkeypatch.undo()
    cdred.train(run_config(tmp_path / "run", **SETTINGS), quiet=True)
    assert_same_arrays(arrays(finished_run), arrays(tmp_path / "run"))


def test_seed_is_independent_of_other_seeds(finished_run, tmp_path):
    cdred.train(run_config(tmp_path / "single", **SETTINGS | {"seeds": (1,)}), quiet=True)
    vmapped, single = arrays(finished_run), arrays(tmp_path / "single")
    for name in single:
        if name.startswith(("learner/pretrained", "replay/obs")):
            np.testing.assert_allclose(vmapped[name][1], single[name][0], rtol=1e-3, atol=1e-4, err_msg=name)


def test_selected_episodes_end_where_demonstrations_end(finished_run):
    """On this task all agents approach the same goal, so that some episodes pass the judge."""
    state, diagnostics = arrays(finished_run), lines(finished_run, "diagnostics")[-1]
    selected, final = state["replay/selected"], state["replay/episode_step"] == 20
    assert selected.any()
    assert not selected[~final].any()
    rate = selected.sum(axis=(1, 2)) / final.sum(axis=(1, 2))
    np.testing.assert_allclose(diagnostics["selection_rate"], rate)
    assert np.max(lines(finished_run, "train")[-1]["self_imitation_loss"]) > 0


def test_agent_that_is_kept_is_the_one_that_the_judge_prefers(finished_run):
    (line,) = lines(finished_run, "selection")
    passed = np.array([line[f"{name}_passed"] for name in CANDIDATES])
    assert line["chosen"] == passed.argmax(axis=0).tolist()
    assert arrays(finished_run)["learner/pretrained/acting"].tolist() == line["chosen"]
    result = json.loads((finished_run / "result.json").read_text())
    assert result["acting"] == [CANDIDATES[index] for index in line["chosen"]]


@pytest.mark.parametrize(("last", "passed"), [([0.5, 3.0, 3.0], True), ([3.0, 3.0, 3.0], False)])
def test_episode_passes_if_one_of_its_last_states_is_near(last, passed):
    """The first state of an episode is beyond its last five."""
    run = SimpleNamespace(envs=SimpleNamespace(shape=(1, 1)), config=SimpleNamespace(seeds=(0,)))
    distances = iter([0.0, 3.0, 3.0, *last, *last, 9.0, 9.0])
    run.fns = SimpleNamespace(judge_distance=lambda *_: np.array([[next(distances)]]))
    judge = SimpleNamespace(threshold=np.array([1.0]), window=5)
    episodes = selection.JudgedEpisodes(run, SimpleNamespace(pretrained=SimpleNamespace(judge=judge)))
    for step in range(6):
        done = np.array([[step == 5]])
        episodes(np.zeros((1, 1, 2), np.float32), done, done)
    assert episodes.passed == [[passed]]
    # An episode that does not count, and does not reach into the next one.
    episodes(np.zeros((1, 1, 2), np.float32), np.array([[True]]), np.array([[False]]))
    assert episodes.passed == [[passed]]


def test_planner_given_to_an_evaluation_replaces_the_choice(finished_run):
    assert load_run(finished_run, "policy").learner.pretrained.acting.tolist() == [0, 0]
    kept = load_run(finished_run, None).learner.pretrained.acting
    assert kept.tolist() == lines(finished_run, "selection")[0]["chosen"]


def test_pretraining_on_the_device_is_equivalent(tmp_path):
    changes = {"pretrain": replace(SETTINGS["pretrain"], selection_episodes=0, noise_std=0.2), "seeds": (0,)}
    changes["self_imitation"] = SETTINGS["self_imitation"]
    for name, vectorization in (("device", "sync"), ("host", "thread")):
        cdred.train(device_config(tmp_path / name, vectorization=vectorization, **changes), quiet=True)
    device, host = arrays(tmp_path / "device"), arrays(tmp_path / "host")
    for name in device:
        if name.startswith(("replay/", "learner/")):
            np.testing.assert_allclose(device[name], host[name], rtol=1e-3, atol=1e-4, err_msg=name)


def test_self_imitation_needs_pretraining(tmp_path):
    with pytest.raises(UserError, match=r"--self-imitation\.coef needs --pretrain\.updates"):
        cdred.train(run_config(tmp_path / "run", self_imitation=SelfImitationConfig(coef=1.0)), quiet=True)


def test_baselines_pretrain_alike(finished_run, tmp_path):
    """BC of the same network on the same demonstrations is the same for every method on a world model."""
    changes = SETTINGS | {"steps": 40, "self_imitation": SelfImitationConfig(), "algo": "gail"}
    changes["pretrain"] = replace(SETTINGS["pretrain"], selection_episodes=0)
    cdred.train(run_config(tmp_path / "gail", **changes), quiet=True)
    ours, theirs = arrays(finished_run), arrays(tmp_path / "gail")
    names = [name for name in ours if name.startswith("learner/pretrained/actor")]
    assert names
    for name in names:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
