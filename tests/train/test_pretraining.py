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
from cdred.algos.pretrain import CANDIDATES, MIN_DETECTED, PretrainConfig
from cdred.config_file import read_config
from cdred.envs.vector_env import VectorEnv
from cdred.errors import Interrupted, UserError
from cdred.run_folder import load_run
from cdred.train import pretraining, selection
from cdred.train.keys import ACT, seed_keys
from cdred.train.metrics import drop_inapplicable
from cdred.train.setup import make_compiled_fns
from cdred.types import EnvSpec
from runs import arrays, assert_same_arrays, device_config, killed_at, metric_lines, run_config

SETTINGS = {
    "pretrain": PretrainConfig(
        updates=200,
        steps=40,
        noise_std=0.0,
        selection_episodes=2,
        success_window=5,
        success_tolerance=1.0,
        self_imitation_coef=1.0,
    ),
    "steps": 120,
    "eval_every": 60,
    "checkpoint_every": 40,
}


@pytest.fixture(scope="module", autouse=True)
def every_detector_is_reliable():
    """The probe's goals differ too much for its demonstrations to detect each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "MIN_DETECTED", 0.0)
        yield


@pytest.fixture(scope="module")
def first_episodes():
    """Numbers of the first episodes of evaluations that do not continue with the next one, as they are called."""
    numbers, skip_to = [], VectorEnv.skip_to
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VectorEnv, "skip_to", lambda envs, number: (numbers.append(number), skip_to(envs, number)))
        yield numbers


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory, first_episodes):
    out = tmp_path_factory.mktemp("pretrained") / "run"
    first_episodes.clear()
    cdred.train(run_config(out, **SETTINGS), quiet=True)
    # The pretrained policy acts in episodes 0 and 1, the agent at step 60 in episode 2, each candidate in 3 and 4.
    assert first_episodes == [0, 3, 3, 3, 0]
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
    """On this task all agents approach the same goal, so that some successes are detected."""
    state, diagnostics = arrays(finished_run), lines(finished_run, "diagnostics")[-1]
    selected, final = state["replay/selected"], state["replay/episode_step"] == 20
    assert selected.any()
    assert not selected[~final].any()
    rate = selected.sum(axis=(1, 2)) / final.sum(axis=(1, 2))
    np.testing.assert_allclose(diagnostics["detected_success"], rate)
    assert np.max(lines(finished_run, "train")[-1]["self_imitation_loss"]) > 0


def test_evaluation_of_a_finished_run_is_in_unseen_episodes(finished_run, first_episodes):
    first_episodes.clear()
    cdred.evaluate(finished_run, episodes=1, log=lambda _: None)
    assert first_episodes == [5]


def choose(success, episodes):
    return selection.choose_candidate(success, selection.standard_error(success, episodes)).tolist()


def test_chosen_candidate_acts(finished_run):
    (line,) = lines(finished_run, "selection")
    success = np.array([line[f"{name}_detected_success"] for name in CANDIDATES])
    episodes = read_config(finished_run / "config.yaml").pretrain.selection_episodes
    # Logged with nine digits.
    assert line["standard_error"] == [float(f"{e:.9g}") for e in selection.standard_error(success, episodes)]
    assert line["chosen"] == choose(success, episodes)
    assert arrays(finished_run)["learner/pretrained/acting"].tolist() == line["chosen"]
    result = json.loads((finished_run / "result.json").read_text())
    assert result["acting"] == [CANDIDATES[index] for index in line["chosen"]]


@pytest.mark.parametrize(("nearest", "success"), [(0.5, True), (2.0, False)])
@pytest.mark.parametrize("step", [0, 3, 5])
def test_success_is_detected_if_one_state_of_the_episode_is_near(nearest, success, step):
    run = SimpleNamespace(envs=SimpleNamespace(shape=(1, 1)), config=SimpleNamespace(seeds=(0,)))
    distances = np.full(12, 3.0)
    distances[[step, 6 + step]] = nearest, 0.5
    values = iter(distances)
    run.fns = SimpleNamespace(distance_from_ends=lambda *_: np.array([[next(values)]]))
    detector = SimpleNamespace(threshold=np.array([1.0]))
    episodes = selection.DetectedSuccesses(run, SimpleNamespace(pretrained=SimpleNamespace(detector=detector)))
    # The second episode does not count, and the first one does not reach into it.
    for t in range(12):
        done = np.array([[t % 6 == 5]])
        episodes(np.zeros((1, 1, 2), np.float32), done, done & (t < 6))
    assert episodes.success == [[success]]


def test_planner_given_to_an_evaluation_replaces_the_choice(finished_run):
    assert load_run(finished_run, "policy").learner.pretrained.acting.tolist() == [0, 0]
    kept = load_run(finished_run, None).learner.pretrained.acting
    assert kept.tolist() == lines(finished_run, "selection")[0]["chosen"]


def test_pretraining_on_the_device_is_equivalent(tmp_path):
    changes = {"pretrain": replace(SETTINGS["pretrain"], selection_episodes=0, noise_std=0.2), "seeds": (0,)}
    for name, vectorization in (("device", "sync"), ("host", "thread")):
        cdred.train(device_config(tmp_path / name, vectorization=vectorization, **changes), quiet=True)
    device, host = arrays(tmp_path / "device"), arrays(tmp_path / "host")
    for name in device:
        if name.startswith(("replay/", "learner/")):
            np.testing.assert_allclose(device[name], host[name], rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.parametrize(("option", "value"), [("self_imitation_coef", 1.0), ("propose_actions", True)])
def test_options_that_need_pretraining_are_refused_without(tmp_path, option, value):
    name = option.replace("_", "-")
    with pytest.raises(UserError, match=rf"--pretrain\.{name} needs --pretrain\.updates"):
        cdred.train(run_config(tmp_path / "run", pretrain=PretrainConfig(**{option: value})), quiet=True)


@pytest.mark.parametrize("changes", [{"planner": "policy"}, {"algo": "iqlearn-sac"}, {"algo": "bc"}])
def test_proposed_actions_are_refused_without_a_planner(tmp_path, changes):
    pretrain = PretrainConfig(updates=1, propose_actions=True)
    with pytest.raises(UserError, match=r"propose-actions needs --planner mppi and an algorithm with a world model"):
        cdred.train(run_config(tmp_path / "run", pretrain=pretrain, **changes), quiet=True)


@pytest.mark.parametrize("changes", [{"planner": "policy"}, {"algo": "iqlearn-sac"}, {"algo": "bc"}])
def test_collecting_by_the_policy_is_refused_without_a_planner(tmp_path, changes):
    with pytest.raises(
        UserError, match=r"collect-with policy needs --planner mppi and an algorithm with a world model"
    ):
        cdred.train(run_config(tmp_path / "run", collect_with="policy", **changes), quiet=True)


@pytest.mark.parametrize("has_success", [True, False])
def test_precision_is_reported_only_where_the_task_reports_success(finished_run, has_success):
    run = SimpleNamespace(envs=SimpleNamespace(spec=EnvSpec("probe/fake", (3,), 2, 100, has_success=has_success)))
    values = {"detected_success": [0.5], "detector_precision": [0.0], "detector_recall": [0.0]}
    assert values.keys() <= lines(finished_run, "diagnostics")[-1].keys()
    assert set(drop_inapplicable(run, values)) == (set(values) if has_success else {"detected_success"})


@pytest.mark.parametrize(
    ("agent", "policy", "pretrained", "chosen"),
    [
        (9, 2, 4, "agent"),
        (7, 8, 2, "policy"),
        (2, 3, 4, "pretrained"),
        (5, 5, 5, "pretrained"),
        (5, 5, 2, "agent"),
        (0, 0, 0, "agent"),
        # One standard error of 10 episodes: 2.2 successes near one half, 1.5 near 0 and 1, never less than 1.
        (7, 6, 6, "pretrained"),
        (4, 6, 4, "pretrained"),
        (4, 7, 4, "policy"),
        (10, 9, 8, "agent"),
        (10, 9, 9, "pretrained"),
        (2, 0, 0, "agent"),
        (0, 1, 0, "pretrained"),
    ],
)
def test_pretrained_policy_is_replaced_by_a_lead_beyond_chance(agent, policy, pretrained, chosen):
    rates = np.array([[agent, 1], [policy, 8], [pretrained, 1]]) / 10
    assert [CANDIDATES[index] for index in choose(rates, 10)] == [chosen, "policy"]


def test_smaller_lead_counts_in_more_episodes():
    rates = np.array([[0.6], [0.2], [0.5]])
    acting = [choose(rates, episodes)[0] for episodes in (10, 30, 100)]
    assert [CANDIDATES[index] for index in acting] == ["pretrained", "pretrained", "agent"]


@pytest.mark.parametrize(("successes", "chosen"), [((1, 0, 0), "agent"), ((1, 1, 1), "pretrained")])
def test_choice_by_one_episode(successes, chosen):
    assert CANDIDATES[choose(np.array(successes, float)[:, None], 1)[0]] == chosen


@pytest.mark.parametrize(("detected", "chosen"), [([1.0, 0.5], [2, 2]), ([1.0, 0.4], [2, 0]), ([0.4, 0.0], None)])
def test_agent_acts_as_trained_where_successes_cannot_be_detected(monkeypatch, detected, chosen):
    """The pretrained policy has the most detected successes of both seeds."""
    monkeypatch.setattr(selection, "MIN_DETECTED", MIN_DETECTED)
    rates = {0: [0.0, 0.0], 1: [0.2, 0.2], 2: [0.8, 0.8]}
    detect = lambda _run, _state, index, _first: SimpleNamespace(success=np.array(rates[index])[:, None])  # noqa: E731
    monkeypatch.setattr(selection, "_detect", detect)
    logged, messages = [], []
    run = SimpleNamespace(
        log=messages.append,
        logger=SimpleNamespace(log=lambda _step, metrics, kind: logged.append((metrics, kind))),
        fns=SimpleNamespace(set_acting=lambda learner, _index: learner, algorithm=SimpleNamespace(pretraining=None)),
        eval_envs=SimpleNamespace(snapshot=dict, next_episode=2, shape=(2, 1)),
        config=SimpleNamespace(pretrain=SimpleNamespace(selection_episodes=2), final_eval_episodes=2),
    )
    learner = SimpleNamespace(pretrained=SimpleNamespace(demos_detected=np.array(detected)))
    state = SimpleNamespace(learner=learner, steps=5, replace=lambda **_: "chosen")
    assert selection.select_agent(run, state) == (state if chosen is None else "chosen")
    if chosen is None:
        assert "demonstrations do not end where others end" in messages[0]
    else:
        assert logged[0][0]["chosen"] == chosen
