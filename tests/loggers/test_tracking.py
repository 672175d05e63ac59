"""Threads of trackers: what they get, failures, and what is kept over a resumption."""

import time

import jax.numpy as jnp
import numpy as np
import pytest

from cdred.loggers import tracking
from cdred.loggers.metrics import JsonlLogger, read_lines
from cdred.loggers.trackers import TrackedRun
from cdred.loggers.tracking import TrackerLogger, TrackerState, rows_of
from tracked import Hanging, Recorder


class Session:
    """One session of a run with trackers."""

    def __init__(self, folder, trackers, resume_step=None):
        self.messages, self.folder = [], folder
        self.file = JsonlLogger(folder / "metrics.jsonl")
        run = TrackedRun("", "task", folder, {"steps": 100}, resume_step)
        self.logger = TrackerLogger(trackers, run, (0, 1), self.messages.append, self.file)

    def finish(self, result=None):
        self.logger.finish(result)
        self.file.close()


def test_rows_have_the_values_of_each_seed_and_their_means():
    metrics = {
        "loss": jnp.array([1.0, 3.0]),
        "success": np.array([True, False]),
        "speed": 5,
        "nan": [1.0, float("nan")],
        "infinite": [float("inf"), 1.0],
        "partly": [2.0, None],
        "unknown": None,
        "text": "word",
        "other": [1.0, 2.0, 3.0],
    }
    rows = rows_of(metrics, "train", (0, 7))
    assert rows.keys() == {"seed-0", "seed-7", "mean"}
    first = {"train/loss": 1.0, "train/success": 1.0, "train/nan": 1.0, "train/infinite": np.inf, "train/partly": 2.0}
    assert rows["seed-0"] == first
    assert rows["seed-7"] == {
        "train/loss": 3.0,
        "train/success": 0.0,
        "train/nan": pytest.approx(np.nan, nan_ok=True),
        "train/infinite": 1.0,
    }
    # An unknown value is no zero: it has no mean either.
    assert rows["mean"] == {
        "train/loss": 2.0,
        "train/success": 0.5,
        "train/speed": 5.0,
        "train/nan": pytest.approx(np.nan, nan_ok=True),
        "train/infinite": np.inf,
    }
    assert all(type(value) is float for values in rows.values() for value in values.values())
    assert rows_of({"unknown": None}, "train", (0, 1)) == {}


def test_tracker_gets_everything_in_order_in_one_thread(tmp_path):
    recorder = Recorder()
    session = Session(tmp_path, {"Recorder": recorder})
    for update in (1, 2, 3):
        session.logger.log(0, {"loss": float(update)}, "pretrain")
    for step in (20, 40):
        session.logger.log(step, {"loss": [1.0, step]}, "train")
        session.logger.log(step, {"return": [0.0, 2.0]}, "eval")
    session.finish({"steps": 40})
    # Of the reports of pretraining, which have the same step, the last one.
    assert recorder.curves() == {
        ("mean", "pretrain/loss"): [(0, 3.0)],
        ("seed-0", "train/loss"): [(20, 1.0), (40, 1.0)],
        ("seed-1", "train/loss"): [(20, 20.0), (40, 40.0)],
        ("mean", "train/loss"): [(20, 10.5), (40, 20.5)],
        ("seed-0", "eval/return"): [(20, 0.0), (40, 0.0)],
        ("seed-1", "eval/return"): [(20, 2.0), (40, 2.0)],
        ("mean", "eval/return"): [(20, 1.0), (40, 1.0)],
    }
    assert (recorder.results, recorder.threads) == ([{"steps": 40}], {"tracker Recorder"})
    assert session.messages == ["recorder: task"]
    assert session.logger.status() == {"Recorder": "complete"}
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.parametrize("method", ["start", "log", "finish"])
def test_failed_tracker_is_reported_once_and_others_go_on(tmp_path, method):
    failing, working = Recorder(fails=method), Recorder()
    session = Session(tmp_path, {"bad": failing, "good": working})
    for step in range(20, 120, 20):
        session.logger.log(step, {"loss": 1.0}, "train")
        time.sleep(0.02)  # until the thread has failed
    session.finish({})
    warnings = [text for text in session.messages if text.startswith("warning")]
    assert len(warnings) == 1
    assert f"ConnectionError: no network in {method}. The run goes on without it." in warnings[0]
    (line,) = read_lines(tmp_path / "metrics.jsonl")
    assert (line["kind"], line["tracker"]) == ("tracker", "bad")
    assert line["error"] == f"ConnectionError: no network in {method}"
    status = session.logger.status()
    assert status["good"] == "complete"
    assert status["bad"] == f"switched off at step {line['step']}: ConnectionError: no network in {method}"
    assert len(working.reports) == 5
    assert len(failing.reports) == (5 if method == "finish" else 0)


def test_tracker_that_hangs_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "FINISH_SECONDS", 0.2)
    hanging, working = Hanging(), Recorder()
    session = Session(tmp_path, {"hanging": hanging, "working": working})
    session.logger.log(20, {"loss": 1.0}, "train")
    session.finish({})
    hanging.released.set()
    assert session.logger.status() == {
        "hanging": "switched off at step 20: it did not finish within 0.2 s",
        "working": "complete",
    }


def test_tracker_that_does_not_keep_up_is_switched_off(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "MAX_WAITING", 3)
    hanging = Hanging()
    session = Session(tmp_path, {"hanging": hanging})
    for step in range(10):
        session.logger.log(step, {"loss": 1.0}, "train")
    status = session.logger.status()["hanging"]
    session.finish({})
    hanging.released.set()
    assert "it does not keep up: 3 reports are waiting" in status
    assert len([text for text in session.messages if text.startswith("warning")]) == 1


def log_steps(session, *steps):
    for step in steps:
        session.logger.log(step, {"loss": float(step)}, "train")
    session.finish()


@pytest.mark.parametrize(("rewinds", "repeated"), [(False, []), (True, [60, 80])])
def test_resumed_run_continues_with_its_id_and_without_steps_twice(tmp_path, rewinds, repeated):
    first, second = Recorder(), Recorder()
    second.rewinds = rewinds
    log_steps(Session(tmp_path, {"name": first}), 20, 40, 60, 80)
    session = Session(tmp_path, {"name": second}, resume_step=40)
    # The evaluation at the resumed step was not made before.
    session.logger.log(40, {"return": 1.0}, "eval")
    log_steps(session, 60, 80, 100)
    assert first.runs[0].id == second.runs[0].id != ""
    assert (first.runs[0].resume_step, second.runs[0].resume_step) == (None, 40)
    curves = second.curves()
    assert [step for step, _ in curves["mean", "train/loss"]] == [*repeated, 100]
    assert curves["mean", "eval/return"] == [(40, 1.0)]


def test_run_that_begins_in_the_folder_of_an_earlier_one_gets_another_id(tmp_path):
    first, second = Recorder(), Recorder()
    log_steps(Session(tmp_path, {"name": first}), 20, 40)
    log_steps(Session(tmp_path, {"name": second}), 20, 40)
    assert first.runs[0].id != second.runs[0].id
    assert len(second.reports) == 2


@pytest.mark.parametrize("text", ["", "[]", '{"id": "../../etc", "logged": {}}', '{"id": "0123456789ab"}', '{"id": 3}'])
def test_damaged_state_gives_a_new_id(tmp_path, text):
    (tmp_path / "name.json").write_text(text)
    state = TrackerState.read(tmp_path / "name.json", 40)
    assert len(state.id) == 12
    assert state.id != "0123456789ab"
    assert state.logged == {}


def test_state_is_read_as_it_was_written(tmp_path):
    written = TrackerState(tmp_path / "trackers" / "name.json", logged={"train": 40})
    written.write()
    assert TrackerState.read(written.path, 40) == written
