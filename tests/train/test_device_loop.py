"""Runs with simulators in JAX, compared with runs that step the same simulators on the host."""

import jax
import numpy as np
import pytest

import cdred
from cdred import api
from cdred.checkpoint import checkpoint
from cdred.demos.episodes import rollout
from cdred.demos.reference_scores import ReferenceScore
from cdred.envs.failures import SimulatorError
from cdred.envs.registry import make
from cdred.loggers.metrics import JsonlLogger
from cdred.train import loop
from cdred.train.setup import build_run
from runs import arrays, assert_same_arrays, device_config, metric_lines, stopped_at, train_toy


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    cdred.train(device_config(out), quiet=True)
    return out


@pytest.fixture(scope="module")
def reference_run(tmp_path_factory):
    """Folder of the same run of the toy algorithm, which compiles at once."""
    return train_toy(device_config(tmp_path_factory.mktemp("reference") / "run"))


def assert_equivalent(device_run, host_run):
    """Check that both runs took the same steps and learned the same."""
    device, host = arrays(device_run), arrays(host_run)
    shared = [name for name in device if not name.startswith(("envs/", "eval_envs/"))]
    assert set(shared) == {name for name in host if not name.startswith(("envs/", "eval_envs/"))}
    for name in shared:
        np.testing.assert_allclose(device[name], host[name], rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(device["envs/state/episode"], host["envs/episode"])
    np.testing.assert_array_equal(device["envs/state/length"], host["envs/length"])


def test_device_loop_is_equivalent_to_host_loop(finished_run, tmp_path):
    cdred.train(device_config(tmp_path / "host", vectorization="thread"), quiet=True)
    assert_equivalent(finished_run, tmp_path / "host")
    device, host = metric_lines(finished_run), metric_lines(tmp_path / "host")
    assert [(line["kind"], line["step"]) for line in device] == [(line["kind"], line["step"]) for line in host]
    returns = [[line["episode_return"] for line in lines if line["kind"] == "rollout"] for lines in (device, host)]
    np.testing.assert_allclose(*returns, rtol=1e-4)


def test_device_loop_is_equivalent_in_an_episodic_task(tmp_path):
    for name, vectorization in (("device", "sync"), ("host", "thread")):
        changes = {"vectorization": vectorization, "seeds": (0,), "steps": 120, "eval_every": 1000, "planner": "policy"}
        changes |= {"task": "jaxprobe/dying", "algo": "tdmpc2", "steps_per_update": 2, "updates_per_call": 10}
        cdred.train(device_config(tmp_path / name, **changes), quiet=True)
    assert_equivalent(tmp_path / "device", tmp_path / "host")
    state = arrays(tmp_path / "device")
    assert state["replay/absorbing"].any()
    assert state["learner/updates"] == 60
    rollouts = [line for line in metric_lines(tmp_path / "device") if line["kind"] == "rollout"]
    lengths = [line["episode_length"][0] for line in rollouts]
    assert 0 < min(lengths) < max(lengths) <= 20


@pytest.mark.usefixtures("toy")
def test_seed_is_independent_of_other_seeds(reference_run, tmp_path):
    cdred.train(device_config(tmp_path / "run", seeds=(7, 1)), quiet=True)
    left, right = arrays(reference_run), arrays(tmp_path / "run")
    for name in left:
        if name.startswith(("replay/", "learner/", "plan/", "envs/state")):
            np.testing.assert_array_equal(left[name][1], right[name][1], err_msg=name)
    assert not np.array_equal(left["replay/obs"][0], right["replay/obs"][0])


@pytest.mark.slow
def test_vmapped_seed_equals_single_seed(finished_run, tmp_path):
    cdred.train(device_config(tmp_path / "single", seeds=(1,)), quiet=True)
    vmapped, single = arrays(finished_run), arrays(tmp_path / "single")
    for name in single:
        if name.startswith(("replay/", "learner/")):
            np.testing.assert_allclose(vmapped[name][1], single[name][0], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.usefixtures("toy")
def test_resumed_run_is_bitwise_identical(reference_run, tmp_path):
    # In the middle of an episode, after ten steps in each of two environments.
    with stopped_at(40, "stopped at step 60 of 80"):
        cdred.train(device_config(tmp_path / "run"), quiet=True)
    assert arrays(tmp_path / "run")["envs/state/length"].tolist() == [[10, 10], [10, 10]]
    cdred.train(device_config(tmp_path / "run"), quiet=True)
    assert_same_arrays(arrays(reference_run), arrays(tmp_path / "run"))
    assert metric_lines(reference_run) == metric_lines(tmp_path / "run")


@pytest.mark.usefixtures("toy")
def test_each_function_compiles_once(tmp_path):
    config = device_config(tmp_path)
    demos = api.resolve_demos(config, api.get_env_spec(config.task), lambda _: None)
    logger = JsonlLogger(tmp_path / "metrics.jsonl", -1)
    run = build_run(config, demos, tmp_path, logger, lambda _: None)
    result = loop.train_loop(run)
    logger.close()
    assert result.steps == result.updates == 80
    assert run.device_loop is not None
    functions = (run.device_loop.act_and_learn_fn, run.device_loop.random_rollout_fn)
    assert [function._cache_size() for function in functions] == [1, 1]


@pytest.mark.usefixtures("toy")
def test_simulator_that_always_diverges_ends_the_run_unsaved(tmp_path, monkeypatch):
    from cdred.envs.suites.jax_probes import JaxPoint

    def diverging(self, state, action):
        state, result = step(self, state, action)
        return state, result._replace(reward=jax.numpy.where(state[0] > -2.0, jax.numpy.nan, 0.0))

    step = JaxPoint.step
    env = JaxPoint()
    monkeypatch.setattr(JaxPoint, "step", diverging)
    monkeypatch.setattr("cdred.envs.suites.jax_probes.jax_env", lambda _name: env)
    monkeypatch.setattr(api, "random_score", lambda *_, **__: ReferenceScore(0.0, 0.0, 0.0))
    monkeypatch.setattr(api, "resolve_demos", lambda *_: None)
    with pytest.raises(SimulatorError, match=r"jaxprobe/point, seed 0, environment 0: .*consecutive episodes failed"):
        cdred.train(device_config(tmp_path / "run", algo="tdmpc2", seeds=(0,)), quiet=True)
    assert checkpoint.latest(tmp_path / "run" / "checkpoints") is None


def test_run_folder_suffices_to_evaluate_and_act(finished_run):
    first, second = (cdred.evaluate(finished_run, episodes=3, log=lambda _: None) for _ in range(2))
    assert first == second
    assert (first["episodes"], len(first["return"])) == (4, 2)
    agent = cdred.load(finished_run)
    env = make("jaxprobe/point")
    assert len(rollout(env, 0, lambda obs, _: agent.act(obs))) == 20


def test_random_score_on_device_equals_host():
    device_score = api.random_score("jaxprobe/point", 50)
    host_score = api.random_score("probe/point", 50)
    assert device_score.episode_return == pytest.approx(host_score.episode_return, rel=0.3)
