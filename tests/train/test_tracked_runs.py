"""Runs with trackers: their content is that of metrics.jsonl, also of resumed runs; no failure ends a run."""

import json
import sys
from importlib.util import find_spec

import pytest

import cdred
from cdred.config_file import read_config
from cdred.errors import UserError
from cdred.loggers.metrics import read_lines
from runs import arrays, assert_same_arrays, killed_at, metric_lines, run_config, stopped_at
from tracked import Recorder, assert_same_curves, expected_curves, tensorboard_curves, wandb_curves, without_times

pytestmark = pytest.mark.usefixtures("toy")


def train(out, *trackers, **changes):
    return cdred.train(run_config(out), trackers=trackers, quiet=True, **changes)


@pytest.mark.parametrize("interrupted", [killed_at, stopped_at])
def test_resumed_run_has_each_step_once_in_every_tracker(reference_run, tmp_path, monkeypatch, interrupted):
    monkeypatch.setenv("WANDB_MODE", "offline")
    names = ["tensorboard", *(["wandb"] if find_spec("wandb") else [])]
    recorders = [Recorder(), Recorder()]
    # The checkpoint before step 140 is at 100: what follows is logged again.
    with interrupted(140):
        train(tmp_path / "run", *names, recorders[0])
    train(tmp_path / "run", *names, recorders[1])
    assert metric_lines(tmp_path / "run") == metric_lines(reference_run)
    expected = expected_curves(tmp_path / "run")
    assert ("seed-1", "eval/episode_return") in expected
    assert_same_curves(without_times(tensorboard_curves(tmp_path / "run" / "tensorboard")), expected)
    both = Recorder()
    both.reports = [*recorders[0].reports, *recorders[1].reports]
    assert_same_curves(without_times(both.curves()), expected)
    assert recorders[0].runs[0].id == recorders[1].runs[0].id
    assert recorders[0].results == [None]
    assert recorders[1].results[0]["steps"] == 200
    if "wandb" in names:
        curves, ids = wandb_curves(tmp_path / "run")
        assert_same_curves(without_times(curves), expected)
        assert len(ids) == 1


@pytest.mark.parametrize("method", ["start", "log", "finish"])
def test_failing_tracker_changes_nothing_but_its_own_status(reference_run, tmp_path, method, capsys):
    result = cdred.train(run_config(tmp_path / "run"), trackers=[Recorder(fails=method)])
    assert_same_arrays(arrays(reference_run), arrays(tmp_path / "run"))
    lines = metric_lines(tmp_path / "run")
    failures = [line for line in lines if line["kind"] == "tracker"]
    assert [line for line in lines if line not in failures] == metric_lines(reference_run)
    assert [line["tracker"] for line in failures] == ["Recorder"]
    assert f"ConnectionError: no network in {method}" in result["trackers"]["Recorder"]
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == result
    output = " ".join(capsys.readouterr().out.split())
    assert output.count("warning: tracker Recorder is switched off") == 1


def test_tensorboard_folder_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").write_text("a file")
    result = train(tmp_path / "run", "tensorboard")
    assert result["steps"] == 200
    assert "Error" in result["trackers"]["tensorboard"]


def test_trackers_do_not_decide_about_a_run(tmp_path, capsys):
    with stopped_at(140):
        train(tmp_path / "run", "tensorboard")
    recorder = Recorder()
    result = train(tmp_path / "run", recorder)
    assert result["trackers"] == {"Recorder": "complete"}
    # What was before it was added is not logged, but for the scores of expert and random agent.
    assert {step for step, _ in recorder.reports} == {0, 180, 200}
    assert recorder.runs[0].resume_step == 160
    later = Recorder()
    assert train(tmp_path / "run", "tensorboard", later) == result
    assert later.runs == []
    assert read_config(tmp_path / "run" / "config.yaml").trackers == ("tensorboard",)
    assert cdred.train(run_config(tmp_path / "run"), trackers="tensorboard") == result
    assert "has a finished run: nothing is logged to trackers" in capsys.readouterr().out


def test_tracker_gets_the_settings_of_the_run(tmp_path):
    recorder = Recorder()
    train(tmp_path / "run", recorder, steps=40)
    (run,) = recorder.runs
    assert (run.name, run.folder, run.resume_step) == ("probe-point-cdred-debug", tmp_path / "run", None)
    assert (run.config["steps"], run.config["mppi"]["horizon"]) == (40, run_config("x").mppi.horizon)
    assert "out" not in run.config
    assert recorder.results[0]["eval"]["episodes"] == 2


def test_unusable_trackers_are_refused_before_anything_is_written(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"got 'tb'\. Did you mean tensorboard\?"):
        train(tmp_path / "run", "tb")
    with pytest.raises(UserError, match="--trackers must be different names"):
        train(tmp_path / "run", "wandb", "wandb")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"--track wandb needs wandb, .*pip install 'cdred\[wandb\]'"):
        train(tmp_path / "run", "wandb")
    assert not (tmp_path / "run").exists()


def evaluations(run):
    return [line["step"] for line in read_lines(run / "metrics.jsonl") if line["kind"] == "eval"]


def test_callbacks_get_every_evaluation_once_and_stop_the_run(reference_run, tmp_path):
    run, records, others = tmp_path / "run", [], []

    def stop_at_first(record):
        records.append(record)
        return record.step == 100

    callbacks = [stop_at_first, others.append]
    with pytest.raises(cdred.Stopped, match=r"at step 100 of 200, saved in .*run; the same call resumes the run"):
        train(run, callbacks=callbacks)
    assert not (run / "result.json").exists()
    result = train(run, callbacks=callbacks)
    assert [record.step for record in records] == [100, 200] == evaluations(run)
    assert others == records
    lines = [line for line in read_lines(run / "metrics.jsonl") if line["kind"] == "eval"]
    for record, line in zip(records, lines, strict=True):
        assert record.episode_return == pytest.approx(line["episode_return"])
        assert record.success == pytest.approx(line["success"])
        assert (record.total_steps, record.seeds, record.folder) == (200, (0, 1), run)
    assert list(records[1].episode_return) == result["eval"]["return"]
    # Stopped and resumed, it is the run without callbacks.
    assert_same_arrays(arrays(reference_run), arrays(run))
    assert metric_lines(reference_run) == metric_lines(run)
    # Of a finished run, there is nothing to evaluate.
    train(run, callbacks=callbacks)
    assert len(records) == 2


def test_final_evaluation_stops_nothing(tmp_path):
    records = []
    assert train(tmp_path / "run", steps=40, callbacks=[lambda record: not records.append(record)])["steps"] == 40
    assert [record.step for record in records] == [40]


def test_error_of_a_callback_ends_the_run_which_resumes(reference_run, tmp_path):
    def fail(record):
        raise RuntimeError(f"at {record.step}")

    with pytest.raises(RuntimeError, match="at 100"):
        train(tmp_path / "run", callbacks=[fail])
    steps = []
    train(tmp_path / "run", callbacks=[lambda record: steps.append(record.step)])
    assert steps == [100, 200]
    assert metric_lines(reference_run) == metric_lines(tmp_path / "run")


def test_wrong_callbacks_are_refused(tmp_path):
    for wrong in (print, ["print"]):
        with pytest.raises(UserError, match="callbacks should be a list of functions"):
            train(tmp_path / "run", callbacks=wrong)
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="a callback should return True to stop the run, or None, got 'stop'"):
        train(tmp_path / "run", callbacks=[lambda _: "stop"])
