"""Runs whose simulators break: they go on, count what they lost, or stop with the state saved."""

import json
import os
import signal
import time

import jax
import numpy as np
import pytest

import cdred
import failing_env
from cdred import api
from cdred.checkpoint import checkpoint
from cdred.cli.main import main
from cdred.demos.episodes import Simulator, rollout
from cdred.demos.record_agent import episodes as recorded
from cdred.demos.scripted import collect_scripted, random_level
from cdred.envs.failures import SimulatorError
from cdred.envs.suites import probes
from cdred.envs.vector_env import VectorEnv, episode_seed
from cdred.errors import UserError
from cdred.train.evaluate import evaluate
from failing_env import Faulty, plan_faults
from runs import arrays, assert_same_arrays, config, curves, on_device, stopped_at
from toy import Toy, learn_by

pytestmark = pytest.mark.usefixtures("toy")


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Puts a simulator with faults in the place of `probe/point`, and says which."""
    monkeypatch.setenv(failing_env.FILE, str(tmp_path / "faults"))
    monkeypatch.setitem(probes._PROBES, "point", Faulty)
    plan_faults(tmp_path / "faults")
    return lambda *faults: plan_faults(tmp_path / "faults", *faults)


def test_a_run_whose_worker_is_killed_equals_an_undisturbed_one_bit_for_bit(reference_run, tmp_path, monkeypatch):
    whole, killed = VectorEnv.step, []

    def step(grid, action):
        # In the middle of an episode, of a block, and of learning.
        if grid.stream == "train" and grid.snapshot()["episode"][0, 0] == 5 and len(killed) == 0:
            killed.append(grid._crew._workers[0].pid)
            os.kill(killed[0], signal.SIGKILL)
        return whole(grid, action)

    monkeypatch.setattr(VectorEnv, "step", step)
    cdred.train(config(tmp_path / "run", vectorization="process"), quiet=True)
    assert len(killed) == 1
    assert_same_arrays(arrays(reference_run), arrays(tmp_path / "run"))
    assert curves(reference_run) == curves(tmp_path / "run")


def test_what_breaks_once_in_a_run_leaves_no_trace_in_it(reference_run, plan, tmp_path, capsys):
    plan((1, 0, 3, 7, "nan", True))
    cdred.train(config(tmp_path / "run"))
    assert_same_arrays(arrays(reference_run), arrays(tmp_path / "run"))
    assert curves(reference_run) == curves(tmp_path / "run")
    assert "probe/point, seed 1, environment 0: made anew and brought back, nothing is lost" in capsys.readouterr().out


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A run in which two training episodes and one evaluation episode broke, and what it said."""
    folder, said = tmp_path_factory.mktemp("broken"), []
    faults = [(1, 0, 0, 7, "raise"), (1, 0, 4, 1, "nan"), (0, 0, 0, 4, "raise", False, "eval")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(failing_env.FILE, str(folder / "faults"))
        patch.setitem(probes._PROBES, "point", Faulty)
        patch.setattr(api._Silent, "message", lambda _self, text: said.append(text))
        learn_by(patch, Toy())
        plan_faults(folder / "faults", *faults)
        cdred.train(config(folder / "run"), quiet=True)
    return folder / "run", faults, said


def test_a_run_goes_on_where_an_episode_breaks_and_counts_and_shows_it(broken):
    run, _, said = broken
    result = json.loads((run / "result.json").read_text())
    assert result["steps"] == result["updates"] == 200
    counted = [line.get("failed_episodes") for line in curves(run) if line["kind"] == "train"]
    assert counted[0] == [0, 1]
    assert counted[-1] == [0, 2]
    shown = [text for text in said if "given up" in text]
    assert [text.split(": ")[1] for text in shown] == [
        "its episode 0 is given up at step 7",
        "its episode 4 is given up at step 1",
        # In the first evaluation.
        "its episode 0 is given up at step 4",
    ]
    assert [text.split(", ")[1] for text in shown] == ["seed 1", "seed 1", "seed 0"]


def test_an_undisturbed_run_says_nothing_of_broken_episodes(reference_run):
    assert not any("broken" in key for line in curves(reference_run) for key in line)
    assert "failed_episodes" not in json.loads((reference_run / "result.json").read_text())["eval"]


def test_nothing_of_a_broken_decision_is_in_the_replay_and_no_segment_spans_it(broken, reference_run):
    saved, whole = arrays(broken[0]), arrays(reference_run)
    assert all(np.isfinite(saved[f"replay/{name}"]).all() for name in ("obs", "action", "reward"))
    # Seed 1: six good steps of the first episode and the observation that they led to, then the second episode.
    assert saved["replay/time"][1, 0, :9].tolist() == [*range(7), 0, 1]
    np.testing.assert_array_equal(saved["replay/obs"][1, 0, :7], whole["replay/obs"][1, 0, :7])
    second = probes.Point().reset(episode_seed(1, "train", 0, 1))
    np.testing.assert_array_equal(saved["replay/obs"][1, 0, 7], second)
    # The other seed has reference_run what it would have.
    np.testing.assert_array_equal(saved["replay/obs"][0], whole["replay/obs"][0])
    # 200 steps, two of them void; the episode that broke at once has no row.
    episodes = np.flatnonzero(saved["replay/time"][1, 0] == 0)
    lengths = [int(saved["replay/time"][1, 0, end - 1]) for end in episodes[1:]]
    assert lengths == [6, *[20] * 9]
    assert saved["grid/broken"].tolist() == [[0], [2]]


def test_episode_statistics_leave_broken_episodes_out(broken):
    ended = [line for line in curves(broken[0]) if line["kind"] == "rollout" and line["success"][1] is not None]
    # Seed 1 has its first whole episode 7 + 20 steps after the start.
    assert [line["step"] for line in ended][:3] == [27, 47, 67]


def test_an_evaluation_runs_other_episodes_for_those_that_broke(broken):
    evaluations = [line for line in curves(broken[0]) if line["kind"] == "eval"]
    assert evaluations[0]["failed_episodes"] == [1, 0]
    assert "failed_episodes" not in evaluations[1]
    assert {line["episodes"] for line in evaluations} == {1, 2}


def test_a_run_in_which_episodes_broke_is_resumed_bit_for_bit(broken, tmp_path, monkeypatch):
    run, faults, _ = broken
    monkeypatch.setenv(failing_env.FILE, str(tmp_path / "faults"))
    monkeypatch.setitem(probes._PROBES, "point", Faulty)
    plan_faults(tmp_path / "faults", *faults)
    # Between the two of them, in the middle of an episode of seed 1.
    with stopped_at(40):
        cdred.train(config(tmp_path / "run"), quiet=True)
    cdred.train(config(tmp_path / "run"), quiet=True)
    assert_same_arrays(arrays(run), arrays(tmp_path / "run"))
    assert curves(run) == curves(tmp_path / "run")


def test_a_run_whose_simulator_only_breaks_stops_saved_and_goes_on_when_it_is_mended(
    reference_run, plan, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    # From the middle of the fourth block on, after the checkpoint at 100, nothing works any more.
    number = 150 // 20
    plan((0, 0, number, 5, "raise"), *((0, 0, number + 1 + i, 1, "raise") for i in range(3)))
    words = ["train", "probe/point", "--preset", "debug", "--demos", "3", "--seeds", "0", "1", "--video", "False"]
    words += ["--out", str(tmp_path / "run")]
    assert main(words) == 2
    said = capsys.readouterr().err
    lines = said.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("cdred: probe/point, seed 0, environment 0: 3 episodes in a row broke without one step")
    assert "ZeroDivisionError: the wheel" in lines[0]
    assert lines[1] == "Mend the simulator, then give the same command again."
    assert lines[2] == f"The run then goes on from step 140, saved in {tmp_path / 'run'}."
    assert checkpoint.latest(tmp_path / "run" / "checkpoints").name == "000000140"
    plan()
    assert main(words) == 0
    assert_same_arrays(arrays(reference_run), arrays(tmp_path / "run"))
    assert curves(reference_run) == curves(tmp_path / "run")


def test_a_simulator_that_never_works_stops_a_run_before_it_begins(plan, tmp_path):
    plan((None, 0, None, 3, "raise"))
    with pytest.raises(SimulatorError, match=r"probe/point: 10 episodes in a row broke, the last by ZeroDivisionError"):
        cdred.train(config(tmp_path / "run", algo="tdmpc2"), quiet=True)
    assert checkpoint.latest(tmp_path / "run" / "checkpoints") is None


def test_the_time_limit_of_a_decision_may_be_raised_for_a_run_that_was_stopped_by_it(reference_run):
    assert cdred.train(config(reference_run, env_step_timeout=600.0), quiet=True)["steps"] == 200
    with pytest.raises(UserError, match="--env-step-timeout must be above 0"):
        cdred.train(config(reference_run, env_step_timeout=0.0), quiet=True)


def acting():
    def act(_learner, plan, obs, *_):
        obs = np.asarray(obs)
        return np.clip(10.0 * (obs[..., 2:] - obs[..., :2]), -1.0, 1.0).astype(np.float32), plan

    return type("Goer", (), {"act": staticmethod(act), "init_plan": lambda *_: None})()


def test_an_evaluation_is_that_of_the_episodes_that_did_not_break(plan):
    plan((3, 0, 0, 4, "raise", False, "eval"), (3, 0, 2, 9, "nan", False, "eval"))
    sound = [episode_seed(3, "eval", 0, episode) for episode in (1, 3, 4)]
    act = acting().act
    alone = [rollout(probes.Point(), seed, lambda obs, _: act(None, None, obs)[0]).episode_return for seed in sound]
    with VectorEnv("probe/point", [3], 1, "eval", say=lambda _: None) as grid:
        result = evaluate(acting(), None, grid, None, 3)
    np.testing.assert_allclose(result.episode_return, [np.mean(alone)], rtol=1e-6)
    assert (result.episodes, result.failed_episodes.tolist()) == (3, [2])
    assert result.episode_length.tolist() == [20.0]


def test_recorded_episodes_are_those_that_did_not_break(plan):
    plan((3, 0, 0, 4, "raise", False, "demos"), (3, 1, 1, 20, "nan", False, "demos"))
    with VectorEnv("probe/point", [3], 2, "demos", say=lambda _: None) as grid:
        several = [one for one, _ in zip(recorded(acting(), None, grid), range(5), strict=False)]
    assert [len(one) for one in several] == [20] * 5
    broke = {episode_seed(3, "demos", 0, 0), episode_seed(3, "demos", 1, 1)}
    assert not broke & {one.seed for one in several}
    env = probes.Point()
    for one in several:
        seen = [env.reset(one.seed), *(env.step(action).obs for action in one.action)]
        np.testing.assert_array_equal(one.obs, np.stack(seen))


def test_levels_and_demonstrations_leave_broken_episodes_out(plan):
    whole, chance = collect_scripted("probe/point", 4), random_level("probe/point", 6)
    rows = [(0, 0, 1, 6, "raise", False, "demos"), (0, 0, 2, 6, "raise", True, "demos")]
    plan(*rows, (0, 0, 0, 6, "nan", True, "random"))
    said = []
    with pytest.warns(RuntimeWarning) as warnings:
        fewer = collect_scripted("probe/point", 3)
    assert sum("is given up" in str(one.message) for one in warnings) == 1
    assert [one.seed for one in fewer] == [whole[i].seed for i in (0, 2, 3)]
    assert fewer.provenance["attempts"] == 3
    assert random_level("probe/point", 6, say=said.append) == chance
    assert len(said) == 1
    assert "is tried again: FloatingPointError" in said[0]
    plan((0, 0, 0, 6, "nan", False, "random"))
    assert random_level("probe/point", 6, say=said.append) != chance


def test_random_episodes_are_lived_apart_where_workers_are(monkeypatch):
    """So that a simulator that ends its process does not end the run's."""
    chance = random_level("probe/point", 6)
    whole, said, killed = Simulator._episode, [], []

    def episode(simulator, *arguments, **options):
        if not killed:
            killed.append(simulator.env._worker.pid)
            os.kill(killed[0], signal.SIGKILL)
        return whole(simulator, *arguments, **options)

    monkeypatch.setattr(Simulator, "_episode", episode)
    assert random_level("probe/point", 6, vectorization="process", say=said.append) == chance
    assert "was ended by signal 9" in said[0]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("no EGL\nat all"), "no video: RuntimeError: no EGL (test_simulator_faults.py:"),
        (UserError("probe/point has no picture."), "no video: probe/point has no picture."),
    ],
)
def test_what_cannot_be_filmed_is_told_in_a_line_and_fails_nothing(reference_run, monkeypatch, error, line):
    def render(_self):
        raise error

    said = []
    monkeypatch.setattr(probes.Point, "render", render)
    api._film(reference_run, None, said.append)
    assert len(said) == 1
    assert said[0].startswith(line)
    assert "\n" not in said[0]
    assert not list((reference_run / "videos").glob("*"))


def test_a_clock_that_jumps_disturbs_nothing(reference_run, tmp_path, monkeypatch):
    real, jumps = time.time, iter(range(10**9))
    # Hours back and forth at every look.
    monkeypatch.setattr(time, "time", lambda: real() + 7200.0 * (-1) ** next(jumps))
    result = cdred.train(config(tmp_path / "run"), quiet=True)
    assert_same_arrays(arrays(reference_run), arrays(tmp_path / "run"))
    assert curves(reference_run) == curves(tmp_path / "run")
    assert 0 < result["wall_seconds"] < 3600
    lines = [json.loads(text) for text in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    paced = [line for line in lines if line["kind"] == "train"]
    assert paced
    assert np.ptp(np.diff([line["time"] for line in lines])) > 7200
    for line in paced:
        assert 0 < line["steps_per_second"] < 1e9
        assert 0 <= line["eta_seconds"] < 3600
    assert all(0 <= line["seconds"] < 3600 for line in lines if line["kind"] == "eval")


@pytest.fixture
def strange(monkeypatch):
    """A world in JAX that leaves the numbers in one step of thirty or so, wherever its point goes."""
    from cdred.envs.suites.jax_probes import JaxPoint

    whole = JaxPoint.step

    def diverging(self, state, action):
        state, step = whole(self, state, action)
        return state, step._replace(
            reward=jax.numpy.where(jax.numpy.abs(jax.numpy.sin(300 * state[0])) < 0.05, jax.numpy.nan, step.reward)
        )

    env = JaxPoint()
    monkeypatch.setattr(JaxPoint, "step", diverging)
    monkeypatch.setattr("cdred.envs.suites.jax_probes.functional", lambda _name: env)


@pytest.mark.usefixtures("strange")
def test_episodes_that_leave_the_numbers_on_the_device_are_given_up_as_on_the_host(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cdred.train(on_device(tmp_path / "device"))
    said = capsys.readouterr().out
    cdred.train(on_device(tmp_path / "host", vectorization="thread"), quiet=True)
    device, host = arrays(tmp_path / "device"), arrays(tmp_path / "host")
    broken = device["grid/state/strikes/broken"]
    assert broken.sum() > 0
    np.testing.assert_array_equal(broken, host["grid/broken"])
    np.testing.assert_array_equal(device["replay/time"], host["replay/time"])
    for name in ("obs", "action", "reward"):
        assert np.isfinite(device[f"replay/{name}"]).all()
        np.testing.assert_allclose(device[f"replay/{name}"], host[f"replay/{name}"], rtol=1e-4, atol=1e-5)
    mine, theirs = curves(tmp_path / "device"), curves(tmp_path / "host")
    shared = ("kind", "step", "failed_episodes", "episodes")
    assert [[line.get(key) for key in shared] for line in mine] == [
        [line.get(key) for key in shared] for line in theirs
    ]
    told = [line["failed_episodes"] for line in mine if line["kind"] == "train" and "failed_episodes" in line]
    assert told[-1] == broken.sum(axis=1).tolist()
    assert "an episode is given up: an observation or a reward that is not finite" in said


@pytest.mark.usefixtures("strange")
def test_such_a_run_is_resumed_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cdred.train(on_device(tmp_path / "whole"), quiet=True)
    with stopped_at(40):
        cdred.train(on_device(tmp_path / "run"), quiet=True)
    cdred.train(on_device(tmp_path / "run"), quiet=True)
    assert_same_arrays(arrays(tmp_path / "whole"), arrays(tmp_path / "run"))
    assert curves(tmp_path / "whole") == curves(tmp_path / "run")
