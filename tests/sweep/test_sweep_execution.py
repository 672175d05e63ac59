"""The execution of a sweep: what is skipped, resumed, reported and exported, with runs of a toy algorithm."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

import cdred
from cdred.cli import sweep as cli
from cdred.cli.main import main
from cdred.errors import DivergenceError, UserError
from cdred.report.statistics import iqm
from cdred.sweep import process
from cdred.sweep.collect import collect
from cdred.sweep.events import read_events, record
from cdred.sweep.plan import plan_runs
from cdred.sweep.process import MAX_RESTARTS, RunProcess, gpu_memory, wait_until_unlocked
from cdred.sweep.sweep_file import read_sweep
from cdred.train.interrupt import lock_folder, lock_owner
from runs import killed_at, metric_lines

COMMON = {"preset": "debug", "demos": 3, "video": False, "pretrain": {"updates": 0}}
ENDS = ("csv", "json")
TREE = {"out": "out", "tasks": ["probe/point"], "methods": ["cdred", "gail"], "seed_groups": [[0, 1], [2]]}


class HereBackend:
    """Trains runs in this process; `before` is called with each of them, and may raise."""

    def __init__(self, before=str):
        self.started, self._before, self._ended = [], before, []

    def start(self, runs):
        for run in runs:
            self.started.append(run.name)
            run.folder.mkdir(parents=True, exist_ok=True)
            record(run.folder, "started")
            try:
                self._before(run)
                cdred.train(run.config, quiet=True)
            except (UserError, DivergenceError) as error:
                record(run.folder, "failed", error=str(error))
            self._ended.append((run, ""))

    def ended(self):
        ended, self._ended = self._ended, []
        return ended

    def stop(self):
        return "stopped"

    def close(self):
        pass


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(TREE | {"common": COMMON}))
    return tmp_path


def sweep(monkeypatch, *arguments, before=str):
    """Run `cdred sweep` in this process; return its exit code and the names of the runs that it started."""
    backend = HereBackend(before)
    monkeypatch.setattr(cli, "LocalBackend", lambda _: backend)
    return main(["sweep", "sweep.yaml", *arguments]), backend.started


def planned():
    return plan_runs(read_sweep(Path("sweep.yaml")))


@pytest.mark.usefixtures("toy")
def test_second_call_does_only_what_is_missing(monkeypatch, capsys):
    runs = planned()
    cdred.train(runs[1].config, quiet=True)
    with killed_at(120):
        cdred.train(runs[2].config, quiet=True)
    assert main(["sweep", "sweep.yaml", "--dry-run"]) == 0
    states = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert states[:4] == ["missing", "finished", "resumable", "missing"]
    assert sweep(monkeypatch) == (0, [runs[0].name, runs[2].name, runs[3].name])
    output = capsys.readouterr().out
    assert f"[3/3] {runs[3].name}: finished, success " in output
    assert "| probe/point | success |" in output
    assert sweep(monkeypatch) == (0, [])
    # Resumed, not repeated.
    steps = [line["step"] for line in metric_lines(runs[2].folder) if line["kind"] == "eval"]
    assert steps == [100, 200]


@pytest.mark.usefixtures("toy")
def test_results_are_exported(monkeypatch):
    assert sweep(monkeypatch)[0] == 0
    results = Path("out/results")
    assert {str(path.relative_to(results)) for path in results.rglob("*.*")} == {
        "table.md",
        "aggregate.json",
        "aggregate.png",
        *(
            f"probe/point/{name}.{end}"
            for name in ("cdred", "gail", "cdred-seeds-2", "gail-seeds-2")
            for end in ("csv", "json")
        ),
    }
    rows = list(csv.DictReader((results / "probe/point/gail.csv").open()))
    assert [(row["step"], row["seed"]) for row in rows] == [("100", "0"), ("100", "1"), ("200", "0"), ("200", "1")]
    document = json.loads((results / "probe/point/gail.json").read_text())
    assert document.keys() == {"config", "result", "command"}
    assert [float(row["return"]) for row in rows[2:]] == pytest.approx(document["result"]["eval"]["return"])
    assert document["result"] == json.loads(Path("out/probe/point/gail/seeds-0-1/result.json").read_text())
    assert document["command"].startswith("cdred train probe/point --algo gail --preset debug --seeds 0 1 ")
    statistics = json.loads((results / "aggregate.json").read_text())
    assert statistics["tasks"] == ["probe/point"]
    success = [
        rate
        for seeds in ("0-1", "2")
        for rate in json.loads(Path(f"out/probe/point/gail/seeds-{seeds}/result.json").read_text())["eval"]["success"]
    ]
    assert statistics["methods"]["gail"]["seeds"] == len(success) == 3
    assert statistics["methods"]["gail"]["iqm"] == iqm(success)


@pytest.mark.usefixtures("toy")
def test_failed_run_does_not_stop_the_others_and_is_tried_again(monkeypatch, capsys):
    def diverge(run):
        if run.label == "cdred" and run.config.seeds == (0, 1):
            raise DivergenceError("seed 0 diverged: loss is inf")

    code, started = sweep(monkeypatch, "--results", "elsewhere", before=diverge)
    assert (code, len(started)) == (1, 4)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "failed: probe/point cdred seeds 0 1: seed 0 diverged: loss is inf"
    assert next(line for line in lines if line.startswith("| probe/point")).count("(1/2)") == 1
    assert not Path("elsewhere/probe/point/cdred.csv").exists()
    assert Path("elsewhere/probe/point/cdred-seeds-2.csv").exists()
    assert sweep(monkeypatch, "--results", "elsewhere") == (0, started[:1])
    assert Path("elsewhere/probe/point/cdred.csv").exists()


@pytest.mark.usefixtures("toy")
def test_folder_with_other_settings_is_refused_before_any_run(monkeypatch, capsys):
    runs = planned()
    cdred.train(runs[3].config, quiet=True)
    other = COMMON | {"optim": {"tau": 0.3}}
    Path("sweep.yaml").write_text(yaml.safe_dump(TREE | {"common": other}))
    assert sweep(monkeypatch) == (2, [])
    message = capsys.readouterr().err
    assert runs[3].name in message
    assert "another setting: optim.tau" in message


@pytest.mark.usefixtures("toy")
def test_second_sweep_of_the_same_folder_is_refused(monkeypatch, capsys):
    with lock_folder(Path("out")):
        assert sweep(monkeypatch) == (2, [])
    assert "is in use by process" in capsys.readouterr().err


@pytest.mark.usefixtures("toy")
def test_signal_ends_the_sweep_after_collecting(monkeypatch, capsys):
    def interrupt(run):
        if run.name == "probe/point gail seeds 0 1":
            os.kill(os.getpid(), signal.SIGTERM)
            raise UserError("stopped")

    backend = HereBackend(interrupt)
    monkeypatch.setattr(backend, "ended", list)
    monkeypatch.setattr(cli, "LocalBackend", lambda _: backend)
    assert main(["sweep", "sweep.yaml"]) == 143
    assert "the same command continues the sweep" in capsys.readouterr().err
    assert Path("out/results/probe/point/cdred.csv").exists()


@pytest.mark.usefixtures("toy")
def test_aggregate_of_methods_without_a_common_task_is_removed(tmp_path):
    """It would be that of an earlier state of the sweep."""
    for run in planned()[:1]:
        cdred.train(run.config, quiet=True)
    collect(planned(), tmp_path / "results")
    assert (tmp_path / "results" / "aggregate.png").exists()
    collect(planned()[1:2], tmp_path / "results")
    assert not (tmp_path / "results" / "aggregate.png").exists()
    assert not (tmp_path / "results" / "aggregate.json").exists()


# Stands in for `cdred.sweep.worker`: saves the checkpoints 1, 2, ..., and ends as the argument of the run says.
WORKER = """
import json, os, signal, sys, time
from pathlib import Path
folder, settings = Path(sys.argv[1]), json.loads(sys.stdin.readline())
with (folder / "starts").open("a") as file:
    file.write("x")
if settings["save"]:
    steps = [int(path.name) for path in (folder / "checkpoints").glob("*")]
    (folder / "checkpoints" / str(max(steps, default=0) + 1)).mkdir(parents=True)
if len((folder / "starts").read_text()) <= settings["kills"]:
    os.kill(os.getpid(), signal.SIGKILL)
if settings["wait"]:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    (folder / "ready").touch()
    time.sleep(60)
sys.exit(settings["code"])
"""


@pytest.fixture
def run_process(tmp_path, monkeypatch):
    (tmp_path / "worker.py").write_text(WORKER)
    monkeypatch.setattr(process, "WORKER", (str(tmp_path / "worker.py"),))
    return lambda **settings: RunProcess({"save": True, "kills": 0, "wait": False, "code": 0} | settings, tmp_path, {})


@pytest.mark.parametrize(
    ("settings", "code", "starts"),
    [
        ({}, 0, 1),
        ({"code": 2}, 2, 1),
        ({"kills": 6}, 0, 7),
        ({"kills": 2, "save": False}, 0, 3),
        ({"kills": 99, "save": False}, -signal.SIGKILL, MAX_RESTARTS + 1),
    ],
)
def test_killed_process_is_replaced_while_it_makes_progress(settings, code, starts, run_process, tmp_path):
    assert run_process(**settings).run() == code
    assert len((tmp_path / "starts").read_text()) == starts


def test_stopped_process_is_not_replaced(run_process, tmp_path):
    run = run_process(wait=True)
    codes = []
    thread = threading.Thread(target=lambda: codes.append(run.run()))
    thread.start()
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    run.stop()
    thread.join()
    assert codes == [143]
    assert run.run() is None
    assert (tmp_path / "starts").read_text() == "x"


def test_locked_folder_is_waited_for(tmp_path):
    assert lock_owner(tmp_path) is None
    with lock_folder(tmp_path):
        assert lock_owner(tmp_path) == f"process {os.getpid()}"
        begin = time.monotonic()
        wait_until_unlocked(tmp_path, 0.5)
        assert time.monotonic() - begin >= 0.5
    wait_until_unlocked(tmp_path, 1e9)


def test_partly_written_event_is_ignored(tmp_path):
    assert read_events(tmp_path) == []
    record(tmp_path, "started")
    with (tmp_path / "sweep.jsonl").open("a") as file:
        file.write('{"event": "fin')
    assert [event["event"] for event in read_events(tmp_path)] == ["started"]


def test_runs_that_share_a_gpu_share_its_memory():
    assert gpu_memory(0.5) == {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.450"}
    assert gpu_memory(1) == gpu_memory(0) == {}


def test_processes_that_only_wait_import_no_jax():
    """Ray's workers and SLURM's jobs: the run is trained in a process of its own."""
    code = "import sys, cdred.sweep.process, cdred.sweep.slurm_task; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
