"""The loop as one program, against the loop that block_length the same simulators from the host."""

import jax
import numpy as np
import pytest

import cdred
from cdred import api
from cdred.checkpoint import checkpoint
from cdred.demos.episodes import rollout
from cdred.demos.scripted import Level
from cdred.envs.failures import SimulatorError
from cdred.loggers.metrics import JsonlLogger
from cdred.train import loop
from cdred.train.setup import build_run
from runs import arrays, assert_same_arrays, by_toy, curves, on_device, stopped_at


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    cdred.train(on_device(out), quiet=True)
    return out


@pytest.fixture(scope="module")
def reference_run(tmp_path_factory):
    """The same by a method that compiles at once, where any would do."""
    return by_toy(on_device(tmp_path_factory.mktemp("reference_run") / "run"))


def assert_lives_the_same(one, other):
    """The same steps, stored alike, led to the same learner."""
    device, host = arrays(one), arrays(other)
    shared = [name for name in device if not name.startswith(("grid/", "eval_grid/"))]
    assert set(shared) == {name for name in host if not name.startswith(("grid/", "eval_grid/"))}
    for name in shared:
        np.testing.assert_allclose(device[name], host[name], rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(device["grid/state/episode"], host["grid/episode"])
    np.testing.assert_array_equal(device["grid/state/length"], host["grid/length"])


def test_one_program_does_what_the_hosts_loop_does(finished, tmp_path):
    cdred.train(on_device(tmp_path / "host", vectorization="thread"), quiet=True)
    assert_lives_the_same(finished, tmp_path / "host")
    mine, theirs = curves(finished), curves(tmp_path / "host")
    assert [(line["kind"], line["step"]) for line in mine] == [(line["kind"], line["step"]) for line in theirs]
    episodes = [[line["episode_return"] for line in lines if line["kind"] == "rollout"] for lines in (mine, theirs)]
    np.testing.assert_allclose(*episodes, rtol=1e-4)


def test_so_it_does_where_the_world_can_end(tmp_path):
    for name, vectorization in (("device", "sync"), ("host", "thread")):
        changes = {"vectorization": vectorization, "seeds": (0,), "steps": 120, "eval_every": 1000, "planner": "policy"}
        changes |= {"task": "jaxprobe/dying", "algo": "tdmpc2", "steps_per_update": 2, "updates_per_call": 10}
        cdred.train(on_device(tmp_path / name, **changes), quiet=True)
    assert_lives_the_same(tmp_path / "device", tmp_path / "host")
    learned = arrays(tmp_path / "device")
    assert learned["replay/absorbing"].any()
    assert learned["learner/updates"] == 60
    lengths = [line["episode_length"][0] for line in curves(tmp_path / "device") if line["kind"] == "rollout"]
    assert 0 < min(lengths) < max(lengths) <= 20


@pytest.mark.usefixtures("toy")
def test_a_seed_does_not_depend_on_its_company(reference_run, tmp_path):
    cdred.train(on_device(tmp_path / "run", seeds=(7, 1)), quiet=True)
    one, other = arrays(reference_run), arrays(tmp_path / "run")
    for name in one:
        if name.startswith(("replay/", "learner/", "plan/", "grid/state")):
            np.testing.assert_array_equal(one[name][1], other[name][1], err_msg=name)
    assert not np.array_equal(one["replay/obs"][0], other["replay/obs"][0])


@pytest.mark.slow
def test_seeds_side_by_side_are_seeds_one_by_one(finished, tmp_path):
    cdred.train(on_device(tmp_path / "alone", seeds=(1,)), quiet=True)
    beside, alone = arrays(finished), arrays(tmp_path / "alone")
    for name in alone:
        if name.startswith(("replay/", "learner/")):
            np.testing.assert_allclose(beside[name][1], alone[name][0], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.usefixtures("toy")
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(reference_run, tmp_path):
    # In the middle of an episode, of ten steps in each of two environments.
    with stopped_at(40, "stopped at step 60 of 80"):
        cdred.train(on_device(tmp_path / "run"), quiet=True)
    assert arrays(tmp_path / "run")["grid/state/length"].tolist() == [[10, 10], [10, 10]]
    cdred.train(on_device(tmp_path / "run"), quiet=True)
    assert_same_arrays(arrays(reference_run), arrays(tmp_path / "run"))
    assert curves(reference_run) == curves(tmp_path / "run")


@pytest.mark.usefixtures("toy")
def test_each_program_compiles_once(tmp_path):
    settings = on_device(tmp_path)
    demos = api.demonstrations(settings, api.get_env_spec(settings.task), lambda _: None)
    lines = JsonlLogger(tmp_path / "metrics.jsonl", -1)
    run = build_run(settings, demos, tmp_path, lines, lambda _: None)
    outcome = loop.train_loop(run)
    lines.close()
    assert outcome.steps == outcome.updates == 80
    assert run.scanned is not None
    assert (run.scanned.acting._cache_size(), run.scanned.idling._cache_size()) == (1, 1)


@pytest.mark.usefixtures("toy")
def test_a_world_that_only_leaves_the_numbers_ends_the_run_before_it_is_saved(tmp_path, monkeypatch):
    from cdred.envs.suites.jax_probes import JaxPoint

    def diverging(self, state, action):
        state, step = whole(self, state, action)
        return state, step._replace(reward=jax.numpy.where(state[0] > -2.0, jax.numpy.nan, 0.0))

    whole = JaxPoint.step
    env = JaxPoint()
    monkeypatch.setattr(JaxPoint, "step", diverging)
    monkeypatch.setattr("cdred.envs.suites.jax_probes.functional", lambda _name: env)
    monkeypatch.setattr(api, "random_level", lambda *_, **__: Level(0.0, 0.0, 0.0))
    monkeypatch.setattr(api, "demonstrations", lambda *_: None)
    with pytest.raises(SimulatorError, match=r"jaxprobe/point, seed 0, environment 0: .* episodes in a row broke"):
        cdred.train(on_device(tmp_path / "run", algo="tdmpc2", seeds=(0,)), quiet=True)
    assert checkpoint.latest(tmp_path / "run" / "checkpoints") is None


def test_evaluation_and_the_agent_alone_work_from_the_folder(finished):
    one, again = (cdred.evaluate(finished, episodes=3, say=lambda _: None) for _ in range(2))
    assert one == again
    assert (one["episodes"], len(one["return"])) == (4, 2)
    agent = cdred.load(finished)
    env = api.make("jaxprobe/point")
    assert len(rollout(env, 0, lambda obs, _: agent.act(obs))) == 20


def test_the_random_level_is_that_of_episodes_played_one_by_one():
    on_device = api.random_level("jaxprobe/point", 50)
    on_host = api.random_level("probe/point", 50)
    assert on_device.episode_return == pytest.approx(on_host.episode_return, rel=0.3)
