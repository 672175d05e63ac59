"""Runs with failing simulators: they recover, count failed episodes, or stop with their state saved."""

import json
import os
import signal
import time
from itertools import islice

import jax
import numpy as np
import pytest

import cdred
import failing_env
from cdred import api
from cdred.checkpoint import checkpoint
from cdred.cli.main import main
from cdred.demos.episodes import RestartingEnv, rollout
from cdred.demos.record_agent import agent_episodes
from cdred.demos.reference_scores import random_score
from cdred.demos.scripted import collect_scripted
from cdred.envs.failures import SimulatorError
from cdred.envs.seeding import episode_seed
from cdred.envs.suites import probes
from cdred.envs.vector_env import VectorEnv
from cdred.errors import UserError
from cdred.loggers.terminal import NullLogger
from cdred.train.evaluate import evaluate
from failing_env import FailingPoint, plan_failures
from runs import arrays, assert_same_arrays, device_config, metric_lines, run_config, stopped_at
from toy import Toy, use_toy

pytestmark = pytest.mark.usefixtures("toy")


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Replaces `probe/point` by a failing simulator; called with its failures."""
    monkeypatch.setenv(failing_env.FILE_VARIABLE, str(tmp_path / "failures"))
    monkeypatch.setitem(probes._PROBES, "point", FailingPoint)
    plan_failures(tmp_path / "failures")
    return lambda *failures: plan_failures(tmp_path / "failures", *failures)


def ignore(_text):
    pass


def test_run_with_killed_process_equals_undisturbed_run(reference_run, tmp_path, monkeypatch):
    original, killed = VectorEnv.step, []

    def step(envs, action):
        # Within an episode and within a block of steps.
        if envs.stream == "train" and envs.snapshot()["episode"][0, 0] == 5 and len(killed) == 0:
            killed.append(envs._executor._servers[0].pid)
            os.kill(killed[0], signal.SIGKILL)
        return original(envs, action)

    monkeypatch.setattr(VectorEnv, "step", step)
    cdred.train(run_config(tmp_path / "run", vectorization="process"), quiet=True)
    assert len(killed) == 1
    assert_same_arrays(arrays(reference_run), arrays(tmp_path / "run"))
    assert metric_lines(reference_run) == metric_lines(tmp_path / "run")


def test_run_with_recovered_failure_equals_undisturbed_run(reference_run, plan, tmp_path, capsys):
    plan((1, 0, 3, 7, "nan", True))
    cdred.train(run_config(tmp_path / "run"))
    assert_same_arrays(arrays(reference_run), arrays(tmp_path / "run"))
    assert metric_lines(reference_run) == metric_lines(tmp_path / "run")
    message = "probe/point, seed 1, environment 0: simulator recreated, episode replayed, nothing lost"
    assert message in capsys.readouterr().out


@pytest.fixture(scope="module")
def failed_run(tmp_path_factory):
    """Run in which two training episodes and one evaluation episode failed, its failures and its log."""
    folder, log = tmp_path_factory.mktemp("failed"), []
    failures = [(1, 0, 0, 7, "raise"), (1, 0, 4, 1, "nan"), (0, 0, 0, 4, "raise", False, "eval")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(failing_env.FILE_VARIABLE, str(folder / "failures"))
        patch.setitem(probes._PROBES, "point", FailingPoint)
        patch.setattr(NullLogger, "message", lambda _self, text: log.append(text))
        use_toy(patch, Toy())
        plan_failures(folder / "failures", *failures)
        cdred.train(run_config(folder / "run"), quiet=True)
    return folder / "run", failures, log


def test_run_counts_and_logs_failed_episodes(failed_run):
    run, _, log = failed_run
    result = json.loads((run / "result.json").read_text())
    assert result["steps"] == result["updates"] == 200
    counts = [line.get("failed_episodes") for line in metric_lines(run) if line["kind"] == "train"]
    assert counts[0] == [0, 1]
    assert counts[-1] == [0, 2]
    aborted = [text for text in log if "aborted" in text]
    assert [text.split(": ")[1] for text in aborted] == [
        "episode 0 aborted at step 7",
        "episode 4 aborted at step 1",
        # In both evaluations, which begin at the first episode.
        "episode 0 aborted at step 4",
        "episode 0 aborted at step 4",
    ]
    assert [text.split(", ")[1] for text in aborted] == ["seed 1", "seed 1", "seed 0", "seed 0"]


def test_undisturbed_run_reports_no_failed_episodes(reference_run):
    assert not any("failed" in key for line in metric_lines(reference_run) for key in line)
    assert "failed_episodes" not in json.loads((reference_run / "result.json").read_text())["eval"]


def test_replay_buffer_excludes_invalid_steps(failed_run, reference_run):
    saved, undisturbed = arrays(failed_run[0]), arrays(reference_run)
    assert all(np.isfinite(saved[f"replay/{name}"]).all() for name in ("obs", "action", "reward"))
    # Seed 1: six valid steps of the first episode and its last observation, then the second episode.
    assert saved["replay/episode_step"][1, 0, :9].tolist() == [*range(7), 0, 1]
    np.testing.assert_array_equal(saved["replay/obs"][1, 0, :7], undisturbed["replay/obs"][1, 0, :7])
    second = probes.Point().reset(episode_seed(1, "train", 0, 1))
    np.testing.assert_array_equal(saved["replay/obs"][1, 0, 7], second)
    # Seed 0 has the same rows as in the undisturbed run.
    np.testing.assert_array_equal(saved["replay/obs"][0], undisturbed["replay/obs"][0])
    # 200 steps, two of them invalid; the episode that failed at its first step has no row.
    episodes = np.flatnonzero(saved["replay/episode_step"][1, 0] == 0)
    lengths = [int(saved["replay/episode_step"][1, 0, end - 1]) for end in episodes[1:]]
    assert lengths == [6, *[20] * 9]
    assert saved["envs/failures_total"].tolist() == [[0], [2]]


def test_episode_statistics_exclude_failed_episodes(failed_run):
    finished = [
        line for line in metric_lines(failed_run[0]) if line["kind"] == "rollout" and line["success"][1] is not None
    ]
    # The first complete episode of seed 1 ends 7 + 20 steps after the start.
    assert [line["step"] for line in finished][:3] == [27, 47, 67]


def test_evaluation_replaces_failed_episodes(failed_run):
    evaluations = [line for line in metric_lines(failed_run[0]) if line["kind"] == "eval"]
    assert [line["failed_episodes"] for line in evaluations] == [[1, 0], [1, 0]]
    assert {line["episodes"] for line in evaluations} == {1, 2}


def test_run_with_failed_episodes_resumes_identically(failed_run, tmp_path, monkeypatch):
    run, failures, _ = failed_run
    monkeypatch.setenv(failing_env.FILE_VARIABLE, str(tmp_path / "failures"))
    monkeypatch.setitem(probes._PROBES, "point", FailingPoint)
    plan_failures(tmp_path / "failures", *failures)
    # Between the two failures, within an episode of seed 1.
    with stopped_at(40):
        cdred.train(run_config(tmp_path / "run"), quiet=True)
    cdred.train(run_config(tmp_path / "run"), quiet=True)
    assert_same_arrays(arrays(run), arrays(tmp_path / "run"))
    assert metric_lines(run) == metric_lines(tmp_path / "run")


def test_run_stopped_by_failures_is_saved_and_resumes(reference_run, plan, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    # Every step fails from the middle of a block on, after the checkpoint at 100.
    number = 150 // 20
    plan((0, 0, number, 5, "raise"), *((0, 0, number + 1 + i, 1, "raise") for i in range(3)))
    words = ["train", "probe/point", "--preset", "debug", "--demos", "3", "--seeds", "0", "1", "--no-video"]
    words += ["--out", str(tmp_path / "run")]
    assert main(words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(
        "cdred: probe/point, seed 0, environment 0: 3 consecutive episodes failed without a completed step"
    )
    assert "ZeroDivisionError: the wheel" in lines[0]
    assert lines[1] == "Fix the simulator, then run the same command again."
    assert lines[2] == f"The state at step 140 is saved in {tmp_path / 'run'}; run the same command to resume."
    assert checkpoint.latest(tmp_path / "run" / "checkpoints").name == "000000140"
    plan()
    assert main(words) == 0
    assert_same_arrays(arrays(reference_run), arrays(tmp_path / "run"))
    assert metric_lines(reference_run) == metric_lines(tmp_path / "run")


def test_run_does_not_start_if_every_episode_fails(plan, tmp_path):
    plan((None, 0, None, 3, "raise"))
    with pytest.raises(
        SimulatorError, match=r"probe/point: 10 consecutive episodes failed; last failure: ZeroDivisionError"
    ):
        cdred.train(run_config(tmp_path / "run", algo="tdmpc2"), quiet=True)
    assert checkpoint.latest(tmp_path / "run" / "checkpoints") is None


def test_step_timeout_can_be_changed_on_resume(reference_run):
    assert cdred.train(run_config(reference_run, env_step_timeout=600.0), quiet=True)["steps"] == 200
    with pytest.raises(UserError, match="--env-step-timeout should be greater than 0"):
        cdred.train(run_config(reference_run, env_step_timeout=0.0), quiet=True)


class PointActor:
    """Moves to the goal of `probe/point`."""

    def init_plan(self, _num_seeds, _num_envs):
        return None

    def act(self, _learner, plan, obs, *_):
        obs = np.asarray(obs)
        return np.clip(10.0 * (obs[..., 2:] - obs[..., :2]), -1.0, 1.0).astype(np.float32), plan


def test_evaluation_averages_over_valid_episodes(plan):
    plan((3, 0, 0, 4, "raise", False, "eval"), (3, 0, 2, 9, "nan", False, "eval"))
    valid = [episode_seed(3, "eval", 0, episode) for episode in (1, 3, 4)]
    policy = lambda obs, _success: PointActor().act(None, None, obs)[0]  # noqa: E731
    returns = [rollout(probes.Point(), seed, policy).episode_return for seed in valid]
    with VectorEnv("probe/point", [3], 1, "eval", log=ignore) as envs:
        result = evaluate(PointActor(), None, envs, None, 3)
    np.testing.assert_allclose(result.episode_return, [np.mean(returns)], rtol=1e-6)
    assert (result.episodes, result.failed_episodes.tolist()) == (3, [2])
    assert result.episode_length.tolist() == [20.0]


def test_recording_skips_failed_episodes(plan):
    plan((3, 0, 0, 4, "raise", False, "demos"), (3, 1, 1, 20, "nan", False, "demos"))
    with VectorEnv("probe/point", [3], 2, "demos", log=ignore) as envs:
        episodes = list(islice(agent_episodes(PointActor(), None, envs), 5))
    assert [len(episode) for episode in episodes] == [20] * 5
    failed = {episode_seed(3, "demos", 0, 0), episode_seed(3, "demos", 1, 1)}
    assert not failed & {episode.seed for episode in episodes}
    env = probes.Point()
    for episode in episodes:
        observations = [env.reset(episode.seed), *(env.step(action).obs for action in episode.action)]
        np.testing.assert_array_equal(episode.obs, np.stack(observations))


def test_scores_and_demonstrations_skip_failed_episodes(plan):
    undisturbed, score = collect_scripted("probe/point", 4), random_score("probe/point", 6)
    rows = [(0, 0, 1, 6, "raise", False, "demos"), (0, 0, 2, 6, "raise", True, "demos")]
    plan(*rows, (0, 0, 0, 6, "nan", True, "random"))
    log = []
    with pytest.warns(RuntimeWarning) as warnings:
        demos = collect_scripted("probe/point", 3)
    assert sum("aborted" in str(warning.message) for warning in warnings) == 1
    assert [demo.seed for demo in demos] == [undisturbed[i].seed for i in (0, 2, 3)]
    assert demos.provenance["attempts"] == 3
    assert random_score("probe/point", 6, log=log.append) == score
    assert len(log) == 1
    assert "failed, retrying: FloatingPointError" in log[0]
    plan((0, 0, 0, 6, "nan", False, "random"))
    assert random_score("probe/point", 6, log=log.append) != score


def test_random_score_runs_in_another_process(monkeypatch):
    """A simulator that ends its process must not end the run."""
    score = random_score("probe/point", 6)
    original, log, killed = RestartingEnv._episode, [], []

    def episode(env, *arguments, **options):
        if not killed:
            killed.append(env.env._server.pid)
            os.kill(killed[0], signal.SIGKILL)
        return original(env, *arguments, **options)

    monkeypatch.setattr(RestartingEnv, "_episode", episode)
    assert random_score("probe/point", 6, vectorization="process", log=log.append) == score
    assert "was killed by signal 9" in log[0]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("no EGL\nat all"), "no video: RuntimeError: no EGL (test_simulator_faults.py:"),
        (UserError("probe/point cannot be rendered."), "no video: probe/point cannot be rendered."),
    ],
)
def test_failed_video_is_logged_in_one_line(reference_run, monkeypatch, error, line):
    def render(_self):
        raise error

    log = []
    monkeypatch.setattr(probes.Point, "render", render)
    api._write_video(reference_run, None, log.append)
    assert len(log) == 1
    assert log[0].startswith(line)
    assert "\n" not in log[0]
    assert not list((reference_run / "videos").glob("*"))


def test_run_is_unaffected_by_system_clock_changes(reference_run, tmp_path, monkeypatch):
    real, jumps = time.time, iter(range(10**9))
    # Two hours forwards or backwards at every call.
    monkeypatch.setattr(time, "time", lambda: real() + 7200.0 * (-1) ** next(jumps))
    result = cdred.train(run_config(tmp_path / "run"), quiet=True)
    assert_same_arrays(arrays(reference_run), arrays(tmp_path / "run"))
    assert metric_lines(reference_run) == metric_lines(tmp_path / "run")
    assert 0 < result["wall_seconds"] < 3600
    lines = [json.loads(text) for text in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    paced = [line for line in lines if line["kind"] == "train"]
    assert paced
    assert np.ptp(np.diff([line["time"] for line in lines])) > 7200
    measured = [line for line in paced if line["steps_per_second"] is not None]
    assert measured
    for line in measured:
        assert 0 < line["steps_per_second"] < 1e9
        assert 0 <= line["min_eta_seconds"] < 3600
        assert line["eta_seconds"] is None or line["min_eta_seconds"] <= line["eta_seconds"] < 3600
    assert all(0 <= line["seconds"] < 3600 for line in lines if line["kind"] == "eval")


@pytest.fixture
def non_finite_env(monkeypatch):
    """`jaxprobe/point` with a NaN reward in about one step of thirty."""
    from cdred.envs.suites.jax_probes import JaxPoint

    original = JaxPoint.step

    def diverging(self, state, action):
        state, step = original(self, state, action)
        return state, step._replace(
            reward=jax.numpy.where(jax.numpy.abs(jax.numpy.sin(300 * state[0])) < 0.05, jax.numpy.nan, step.reward)
        )

    env = JaxPoint()
    monkeypatch.setattr(JaxPoint, "step", diverging)
    monkeypatch.setattr("cdred.envs.suites.jax_probes.jax_env", lambda _name: env)


@pytest.mark.usefixtures("non_finite_env")
def test_non_finite_steps_abort_episodes_as_on_host(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cdred.train(device_config(tmp_path / "device"))
    output = capsys.readouterr().out
    cdred.train(device_config(tmp_path / "host", vectorization="thread"), quiet=True)
    device, host = arrays(tmp_path / "device"), arrays(tmp_path / "host")
    failures = device["envs/state/failures/total"]
    assert failures.sum() > 0
    np.testing.assert_array_equal(failures, host["envs/failures_total"])
    np.testing.assert_array_equal(device["replay/episode_step"], host["replay/episode_step"])
    for name in ("obs", "action", "reward"):
        assert np.isfinite(device[f"replay/{name}"]).all()
        np.testing.assert_allclose(device[f"replay/{name}"], host[f"replay/{name}"], rtol=1e-4, atol=1e-5)
    device_lines, host_lines = metric_lines(tmp_path / "device"), metric_lines(tmp_path / "host")
    keys = ("kind", "step", "failed_episodes", "episodes")
    assert [[line.get(key) for key in keys] for line in device_lines] == [
        [line.get(key) for key in keys] for line in host_lines
    ]
    counts = [line["failed_episodes"] for line in device_lines if line["kind"] == "train" and "failed_episodes" in line]
    assert counts[-1] == failures.sum(axis=1).tolist()
    assert "episode aborted: non-finite observation or reward" in output


@pytest.mark.usefixtures("non_finite_env")
def test_run_with_non_finite_steps_resumes_identically(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cdred.train(device_config(tmp_path / "uninterrupted"), quiet=True)
    with stopped_at(40):
        cdred.train(device_config(tmp_path / "run"), quiet=True)
    cdred.train(device_config(tmp_path / "run"), quiet=True)
    assert_same_arrays(arrays(tmp_path / "uninterrupted"), arrays(tmp_path / "run"))
    assert metric_lines(tmp_path / "uninterrupted") == metric_lines(tmp_path / "run")
