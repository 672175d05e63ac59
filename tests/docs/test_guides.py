"""The examples of the guides, executed as they stand in the pages."""

import csv
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cdred
from cdred.algos import factory
from cdred.data.formats import registry as formats
from cdred.demos.scripted import collect_scripted
from cdred.envs import registry as suites
from cdred.envs.vector_env import VectorEnv
from cdred.errors import UserError
from cdred.train import setup
from doc_pages import code_blocks
from runs import run_config

DOCS = Path(__file__).parents[2] / "docs"
# Rows of a run of two seeds.
NAMES = ("seed-0", "seed-1", "mean")


def execute(page):
    """Run all Python blocks of a page in one namespace."""
    namespace = {"__name__": page.removesuffix(".md")}
    for block in code_blocks(DOCS / page, "python"):
        exec(block, namespace)
    return namespace


@pytest.fixture
def line_suite(tmp_path, monkeypatch):
    """Suite `line` of the guide, as a module of its own."""
    (block,) = code_blocks(DOCS / "add_a_suite.md", "python")
    (tmp_path / "line_suite.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(suites.SUITES, "line", suites.Suite("line_suite"))
    yield
    sys.modules.pop("line_suite", None)


def test_method_example_is_ordered_by_its_reward(capsys):
    names = execute("add_a_method.md")
    assert "reward loss" in capsys.readouterr().out
    assert all(np.isfinite(value) for value in names["metrics"].values())
    agent, state, batch = names["agent"], names["state"], names["Batch"](names["expert"], names["own"])
    update = names["jax"].jit(agent.update)
    for step in range(400):
        state, metrics = update(state, batch, names["jax"].random.key(step))
    # The discriminator is fitted to these two batches.
    assert metrics["reward_expert"] > metrics["reward_agent"] + 0.1


@pytest.mark.slow
def test_method_example_trains(monkeypatch, tmp_path):
    names = execute("add_a_method.md")
    method = names["LSAIL"](names["LSAILConfig"](hidden_dims=(16, 16)))
    monkeypatch.setattr(factory, "make_method", lambda _: method)
    # Not the algorithms that the tests share, which have methods of their own.
    monkeypatch.setattr(setup, "make_algorithm", factory.make_algorithm)
    config = replace(cdred.preset("debug"), task="probe/point", demos="3", steps=40, planner="policy", video=False)
    result = cdred.train(replace(config, out=str(tmp_path / "run")), quiet=True)
    assert np.isfinite(result["eval"]["return"]).all()


@pytest.mark.usefixtures("line_suite")
def test_suite_example_is_determined_by_seed_and_actions():
    actions = np.random.default_rng(0).uniform(-1, 1, (10, 2, 1, 1)).astype(np.float32)
    with VectorEnv("line/reach", (0, 1)) as envs, VectorEnv("line/reach", (0, 1)) as restored:
        envs.reset()
        for action in actions[:5]:
            envs.step(action)
        restored.restore(envs.snapshot())
        for action in actions[5:]:
            np.testing.assert_array_equal(envs.step(action).obs, restored.step(action).obs)


@pytest.mark.usefixtures("line_suite")
def test_suite_example_records_demonstrations():
    demos = collect_scripted("line/reach", 4)
    assert [len(trajectory) for trajectory in demos] == [25] * 4
    assert all(trajectory.success_at_end for trajectory in demos)


def write_csv(path, demos):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["episode", *(f"obs_{i}" for i in range(4)), "action_0", "action_1", "reward"])
        for number, trajectory in enumerate(demos):
            for t, obs in enumerate(trajectory.obs):
                rest = [*trajectory.action[t], trajectory.reward[t]] if t < len(trajectory) else ["", "", ""]
                writer.writerow([number, *obs, *rest])


def test_format_example_reads_what_was_written(monkeypatch, tmp_path):
    names = execute("add_a_format.md")
    new = formats.Format("CSV", "a .csv file with a column episode", names["is_csv"], names["read_csv"])
    monkeypatch.setattr(formats, "FORMATS", (*formats.FORMATS, new))
    demos = collect_scripted("probe/point", 3)
    write_csv(tmp_path / "demos.csv", demos)
    loaded = cdred.load_demos(tmp_path / "demos.csv")
    assert len(loaded) == 3
    for trajectory, expected in zip(loaded, demos, strict=True):
        np.testing.assert_allclose(trajectory.obs, expected.obs, rtol=1e-6)
        np.testing.assert_allclose(trajectory.action, expected.action, rtol=1e-6)
        np.testing.assert_allclose(trajectory.reward, expected.reward, rtol=1e-6)
        assert trajectory.truncated


def test_format_example_reports_missing_actions(tmp_path):
    path = tmp_path / "demos.csv"
    path.write_text("episode,obs_0,action_0,reward\n0,1,,0\n0,2,,\n")
    with pytest.raises(UserError, match="episode 0: a row before the last one has no action"):
        execute("add_a_format.md")["read_csv"](path)


@pytest.mark.usefixtures("toy")
def test_tracker_example_writes_the_evaluations_and_stops(tmp_path, capsys):
    names = execute("trackers.md")
    names["stop_when_solved"] = lambda record: record.step == 100
    settings = {"config": run_config(tmp_path / "run"), "quiet": True}
    assert names["train_until_solved"](**settings) is None
    assert "stopped by a callback at step 100 of 200" in capsys.readouterr().out
    assert names["train_until_solved"](**settings)["trackers"] == {"CsvTracker": "complete"}
    rows = list(csv.reader((tmp_path / "run" / "evaluations.csv").open()))
    assert [(row[0], row[1]) for row in rows] == [(step, row) for step in ("100", "200") for row in NAMES]


@pytest.mark.parametrize(("success", "stops"), [((0.9, 1.0), True), ((0.8, 1.0), False), (None, False)])
def test_callback_example_stops_when_all_seeds_succeed(success, stops, tmp_path):
    record = cdred.EvaluationRecord(100, 200, (0, 1), (1.0, 2.0), success, tmp_path)
    assert execute("trackers.md")["stop_when_solved"](record) is stops
