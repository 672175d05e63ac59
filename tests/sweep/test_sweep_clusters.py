"""Sweeps in real processes, on a Ray cluster of two nodes and as jobs of submitit, that lose workers, drivers, nodes.

All of them have to finish with the results of a sweep that was not disturbed.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
import yaml

from cdred.checkpoint import checkpoint
from cdred.sweep.events import read_events
from runs import arrays, assert_same_arrays, metric_lines

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra `ray`: make test-clusters")
needs_submitit = pytest.mark.skipif(
    importlib.util.find_spec("submitit") is None, reason="the extra `slurm`: make test-clusters"
)
TIMEOUT = 1200
COMMON = {"preset": "debug", "demos": 3, "video": False, "pretrain": {"updates": 0}, "steps": 800}
COMMON |= {"checkpoint_every": 100, "eval_every": 400}
RUNS = [f"probe/point/bc/seeds-{seed}" for seed in (0, 1)]


@pytest.fixture(scope="module", autouse=True)
def env():
    """Environment of all processes: compiled functions are shared, and nothing is said about the use of Ray."""
    variables = {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir, "JAX_PLATFORMS": "cpu"}
    variables |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


def write_sweep(folder):
    seed_groups = [[0], [1]]
    tree = {"out": str(folder / "out"), "tasks": ["probe/point"], "methods": ["bc"], "common": COMMON}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(tree | {"seed_groups": seed_groups}))


def start(folder, *options):
    """Start `cdred sweep` with its output in a log."""
    with (folder / "log").open("a") as log:
        command = [sys.executable, "-m", "cdred", "sweep", str(folder / "sweep.yaml"), *options]
        return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder)


def finish(folder, *options):
    process = start(folder, *options)
    assert process.wait(TIMEOUT) == 0, (folder / "log").read_text()


def wait_for(folder, condition):
    deadline = time.monotonic() + TIMEOUT
    while not (value := condition()):
        assert time.monotonic() < deadline, (folder / "log").read_text()
        time.sleep(0.01)
    return value


def saved(folder, run):
    """Return the last checkpoint of a run, unless it has finished."""
    path = folder / "out" / run
    assert not (path / "result.json").exists(), "it finished before it could be killed"
    latest = checkpoint.latest(path / "checkpoints")
    return latest and latest.name


def starts(folder, run):
    """Return the process of each start of a run."""
    return [event["process"] for event in read_events(folder / "out" / run) if event["event"] == "started"]


def run_below(folder, ancestor):
    """Return a run whose process descends from another one, such as the raylet of a Ray node; None if there is none."""
    return next((run for run in RUNS for pid in starts(folder, run)[-1:] if ancestor in ancestors(pid)), None)


def ancestors(pid):
    """Yield the parent of a process, its parent, and so on, while they exist."""
    while pid and (stat := Path(f"/proc/{pid}/stat")).exists():
        # After the name of the program, which may have parentheses, its state and its parent follow.
        pid = int(stat.read_text().rpartition(")")[2].split()[1])
        yield pid


def assert_same_sweeps(left, right):
    for run in RUNS:
        assert_same_arrays(arrays(left / "out" / run), arrays(right / "out" / run))
        assert metric_lines(left / "out" / run) == metric_lines(right / "out" / run)
    results = [json.loads((folder / "out/results/aggregate.json").read_text()) for folder in (left, right)]
    assert results[0] == results[1]
    for name in ("bc.csv", "bc-seeds-1.csv"):
        files = [folder / "out/results/probe/point" / name for folder in (left, right)]
        assert files[0].read_text() == files[1].read_text()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Folder of a sweep that was not disturbed; read-only."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_sweep(folder)
    finish(folder)
    assert [len(starts(folder, run)) for run in RUNS] == [1, 1]
    return folder


def test_local_sweep_survives_a_killed_worker_a_killed_driver_and_a_stop(undisturbed, tmp_path):
    write_sweep(tmp_path)
    driver = start(tmp_path)
    wait_for(tmp_path, lambda: saved(tmp_path, RUNS[0]))
    os.kill(starts(tmp_path, RUNS[0])[-1], signal.SIGKILL)
    wait_for(tmp_path, lambda: len(starts(tmp_path, RUNS[0])) == 2)
    before = saved(tmp_path, RUNS[0])
    wait_for(tmp_path, lambda: saved(tmp_path, RUNS[0]) != before)
    worker = starts(tmp_path, RUNS[0])[-1]
    driver.kill()
    # The worker notices, saves and ends.
    wait_for(tmp_path, lambda: read_events(tmp_path / "out" / RUNS[0])[-1]["event"] == "stopped")
    wait_for(tmp_path, lambda: not Path(f"/proc/{worker}").exists())
    driver = start(tmp_path)
    wait_for(tmp_path, lambda: saved(tmp_path, RUNS[1]))
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(TIMEOUT) == 143
    assert read_events(tmp_path / "out" / RUNS[1])[-1]["event"] == "stopped"
    assert "the runs have saved their states; the same command continues" in (tmp_path / "log").read_text()
    finish(tmp_path)
    assert_same_sweeps(undisturbed, tmp_path)


@pytest.fixture
def cluster():
    """Ray cluster of two nodes of one core each, on this machine; yields it and the node that is not the head."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield cluster, node
    cluster.shutdown()


@needs_ray
def test_sweep_on_ray_survives_a_killed_node_and_a_killed_driver(undisturbed, cluster, tmp_path):
    write_sweep(tmp_path)
    nodes, node = cluster
    options = ("--on", "ray", "--ray-address", nodes.address)
    driver = start(tmp_path, *options)
    raylet = node.all_processes["raylet"][0].process.pid
    run = wait_for(tmp_path, lambda: run_below(tmp_path, raylet))
    wait_for(tmp_path, lambda: saved(tmp_path, run))
    nodes.remove_node(node, allow_graceful=False)
    # It is restarted on the other node.
    wait_for(tmp_path, lambda: len(starts(tmp_path, run)) == 2)
    driver.kill()
    driver.wait()
    finish(tmp_path, *options)
    assert_same_sweeps(undisturbed, tmp_path)


@needs_ray
def test_sweep_starts_a_ray_cluster_and_stops_on_sigterm(undisturbed, tmp_path):
    write_sweep(tmp_path)
    driver = start(tmp_path, "--on", "ray")
    wait_for(tmp_path, lambda: saved(tmp_path, RUNS[0]))
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(TIMEOUT) == 143
    assert read_events(tmp_path / "out" / RUNS[0])[-1]["event"] == "stopped"
    finish(tmp_path, "--on", "ray")
    assert_same_sweeps(undisturbed, tmp_path)


@needs_submitit
def test_slurm_job_requeues_itself_on_sigterm(undisturbed, tmp_path):
    write_sweep(tmp_path)
    driver = start(tmp_path, "--on", "slurm", "--slurm.cluster", "local")
    wait_for(tmp_path, lambda: saved(tmp_path, RUNS[0]))
    numbers = json.loads((tmp_path / "out/slurm/jobs.json").read_text())
    os.kill(int(numbers[str(tmp_path / "out" / RUNS[0])]), signal.SIGTERM)
    wait_for(tmp_path, lambda: len(starts(tmp_path, RUNS[0])) == 2)
    assert driver.wait(TIMEOUT) == 0, (tmp_path / "log").read_text()
    events = [event["event"] for event in read_events(tmp_path / "out" / RUNS[0])]
    assert events == ["started", "stopped", "started", "finished"]
    assert_same_sweeps(undisturbed, tmp_path)
