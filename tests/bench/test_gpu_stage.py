"""Stages of `benchmarks/gpu.sh`: what their JSON file has after failures, at the limit and after a kill."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from runs import run_config

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
LONG_S = 600.0


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """Stage that has as much time as it needs."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    from gpu_stage import Stage

    made = Stage("t", tmp_path / "out" / "t.json", LONG_S, {"preset": "debug"})
    yield made
    made.end()


def read(path):
    return json.loads(path.read_text())


def test_every_outcome_is_written_at_once_and_the_stage_goes_on(stage, tmp_path):
    seen = {}

    def publishing(publish):
        publish({"half": 1})
        seen.update(read(tmp_path / "out" / "t.json")["measurements"]["published"])
        return {"half": 1, "rest": None}

    def failing(publish):
        publish([1, 2])
        raise ValueError("no such device")

    assert stage.measure("published", publishing) == {"half": 1, "rest": None}
    assert stage.measure("failing", failing) is None
    assert stage.measure("too long", lambda _: 1, estimate_s=2 * LONG_S) is None
    document = read(tmp_path / "out" / "t.json")
    assert seen["status"] == "running"
    assert seen["result"] == {"half": 1}
    measured = document["measurements"]
    assert measured["published"]["status"] == "done"
    assert measured["published"]["result"] == {"half": 1, "rest": None}
    assert measured["failing"]["status"] == "failed"
    assert measured["failing"]["error"] == "ValueError: no such device"
    assert measured["failing"]["result"] == [1, 2]
    assert measured["too long"]["status"] == "skipped"
    assert "needs about 1200 s" in measured["too long"]["reason"]
    assert (document["preset"], document["ended"]) == ("debug", None)
    stage.end()
    assert read(tmp_path / "out" / "t.json")["ended"] == "complete"
    assert stage.duration("published") is not None
    assert stage.duration("failing") is stage.duration("absent") is None


# A stage with a finished measurement and one that never ends, in a process of its own.
ENDLESS = """
import sys, threading
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from gpu_stage import Stage

def endless(publish):
    publish({"curve": [1, 2]})
    print("published", flush=True)
    threading.Event().wait()

stage = Stage("t", Path(sys.argv[2]), float(sys.argv[3]))
stage.measure("first", lambda _: 7)
stage.measure("endless", endless)
"""


def endless_stage(path, limit_s):
    """Start the process and wait until its second measurement has published."""
    command = [sys.executable, "-c", ENDLESS, str(BENCHMARKS), str(path), str(limit_s)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line == "published\n":
            return process
    raise AssertionError("the process has ended early")


def test_killed_stage_has_written_what_was_finished(tmp_path):
    with endless_stage(tmp_path / "t.json", LONG_S) as process:
        process.send_signal(signal.SIGKILL)
    document = read(tmp_path / "t.json")
    assert document["ended"] is None
    assert document["measurements"]["first"] | {"started_s": 0, "seconds": 0} == {
        "status": "done",
        "started_s": 0,
        "seconds": 0,
        "result": 7,
    }
    assert document["measurements"]["endless"]["status"] == "running"
    assert document["measurements"]["endless"]["result"] == {"curve": [1, 2]}


def test_stage_ends_itself_at_its_limit(tmp_path):
    with endless_stage(tmp_path / "t.json", 1.0) as process:
        assert process.wait() == 0
    document = read(tmp_path / "t.json")
    assert document["ended"] == "at the limit"
    assert document["measurements"]["first"]["result"] == 7
    assert document["measurements"]["endless"]["status"] == "stopped at the limit"
    assert document["measurements"]["endless"]["result"] == {"curve": [1, 2]}


@pytest.mark.usefixtures("toy")
def test_training_ends_at_its_limit_with_curves_and_evaluation(stage, tmp_path, monkeypatch):
    import gpu_tasks

    # More steps than the test could wait for, and no seconds: stopped as soon as there is a line of metrics.
    config = run_config(tmp_path / "run", steps=10_000_000, buffer_size=1000, eval_every=40)
    monkeypatch.setattr(gpu_tasks, "POLL_S", 0.05)
    monkeypatch.setattr(gpu_tasks, "RESERVE_S", 0.0)
    gpu_tasks.train(stage, "run", config, 0.0, SimpleNamespace(eval_episodes=2))
    measured = read(tmp_path / "out" / "t.json")["measurements"]["run"]
    assert measured["status"] == "done", measured
    result = measured["result"]
    assert result["finished"] is False
    assert result["config"]["steps"] == 10_000_000
    assert result["curves"][0]["kind"] == "reference"
    assert all(line["kind"] != "rollout" for line in result["curves"])
    assert result["final"]["steps"] < 10_000_000
    assert len(result["final"]["return"]) == len(config.seeds)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.usefixtures("toy")
def test_training_within_its_limit_has_the_result_of_the_run(stage, tmp_path, monkeypatch):
    import gpu_tasks

    config = run_config(tmp_path / "run", steps=120, eval_every=40)
    monkeypatch.setattr(gpu_tasks, "RESERVE_S", 0.0)
    gpu_tasks.train(stage, "run", config, LONG_S, SimpleNamespace(eval_episodes=2))
    result = read(tmp_path / "out" / "t.json")["measurements"]["run"]["result"]
    assert result["finished"] is True
    assert result["final"] == read(tmp_path / "run" / "result.json")["eval"]
    steps = [line["step"] for line in result["curves"] if line["kind"] == "eval"]
    assert steps[-1] == 120
    assert len(steps) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((), "usage:"), (("e", "out"), "usage:"), (("a", "out"), "common.tar.xz is missing: run make gpu-wheels")],
)
def test_unusable_command_is_refused(arguments, message, tmp_path):
    # A copy, because the archives may be there.
    script = tmp_path / "benchmarks" / "gpu.sh"
    script.parent.mkdir()
    script.write_text((BENCHMARKS / "gpu.sh").read_text())
    done = subprocess.run(["bash", str(script), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr
