"""Runs killed without warning resume from the last checkpoint as if uninterrupted; a full disk gives a clear error."""

import json
import os
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from cdred.checkpoint import checkpoint
from forked_runs import ForkServer
from runs import arrays, assert_same_arrays, metric_lines

TIMEOUT = 300


@pytest.fixture(scope="module")
def server():
    env = os.environ | {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir, "JAX_PLATFORMS": "cpu"}
    env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    server = ForkServer(env)
    yield server
    server.close()


def train_args(out: Path, **changes: object) -> list[str]:
    """Make the arguments of a run that saves every 20 steps, without pretraining, which every process would compile."""
    settings = {"preset": "debug", "demos": 3, "checkpoint-every": 20, "eval-every": 60, "pretrain.updates": 0}
    settings |= {"out": out} | changes
    return ["train", "probe/point", "--no-video", *(arg for k, v in settings.items() for arg in (f"--{k}", str(v)))]


def train(server: ForkServer, out: Path, **changes: object) -> Path:
    server.start(train_args(out, **changes), out.with_suffix(".log"))
    assert server.wait() == 0, out.with_suffix(".log").read_text()
    return out


def latest_name(out: Path) -> str:
    folder = checkpoint.latest(out / "checkpoints")
    return folder.name if folder else ""


def kill_during_training(server: ForkServer, out: Path, delay: float, **changes: object) -> bool:
    """Start or resume, wait for a checkpoint and `delay` seconds, then kill; return False if the run had finished."""
    before, deadline = latest_name(out), time.monotonic() + TIMEOUT
    process = server.start(train_args(out, **changes), out.with_suffix(".log"))
    while latest_name(out) == before and not (out / "result.json").exists():
        assert time.monotonic() < deadline, out.with_suffix(".log").read_text()
        time.sleep(0.002)
    time.sleep(delay)
    os.kill(process, signal.SIGKILL)
    return server.wait() == -signal.SIGKILL and not (out / "result.json").exists()


@pytest.fixture(scope="module")
def whole(server, tmp_path_factory):
    """Folder of an uninterrupted run of 400 steps; read-only."""
    return train(server, tmp_path_factory.mktemp("whole") / "run", steps=400)


@pytest.mark.parametrize(
    ("kills", "steps"), [(3, 400), pytest.param(30, 2400, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)  # fmt: skip
def test_run_killed_at_random_times_equals_uninterrupted_run(server, whole, tmp_path, kills, steps):
    expected = whole if steps == 400 else train(server, tmp_path / "whole", steps=steps)
    generator, killed = np.random.default_rng(kills), 0
    for _ in range(kills):
        killed += kill_during_training(server, tmp_path / "run", generator.uniform(0.0, 0.2), steps=steps)
    assert killed == kills
    train(server, tmp_path / "run", steps=steps)
    assert_same_runs(expected, tmp_path / "run")


def assert_same_runs(left: Path, right: Path) -> None:
    assert_same_arrays(arrays(left), arrays(right))
    assert metric_lines(left) == metric_lines(right)
    best = [checkpoint.best(run / "checkpoints") for run in (left, right)]
    assert best[0].name == best[1].name
    assert_same_arrays(*map(checkpoint.load_arrays, best))
    # Two checkpoints and the best one; a kill leaves nothing else.
    assert [len(list((run / "checkpoints").iterdir())) for run in (left, right)] == [3, 3]
    results = [json.loads((run / "result.json").read_text()) for run in (left, right)]
    assert len({json.dumps(result | {"wall_seconds": 0}) for result in results}) == 1


def test_best_checkpoint_is_that_of_the_best_evaluation(server, whole, tmp_path):
    evaluations = [line for line in metric_lines(whole) if line["kind"] == "eval"]
    scores = [(np.mean(line["success"]), np.mean(line["episode_return"]), line["step"]) for line in evaluations]
    # The first one of equal scores.
    *score, step = max(scores, key=lambda values: (*values[:2], -values[2]))
    folder = checkpoint.best(whole / "checkpoints")
    meta = checkpoint._read_index(folder)["meta"]
    assert int(folder.name[-9:]) == step
    assert meta["score"] == pytest.approx(score)
    result = tmp_path / "eval.json"
    server.start(["eval", str(whole), "--best", "--episodes", "2", "--json", str(result)], tmp_path / "eval.log")
    assert server.wait() == 0, (tmp_path / "eval.log").read_text()
    assert json.loads(result.read_text())["steps"] == step


def test_refused_checkpoint_ends_the_command_with_two_lines(server, tmp_path):
    """A limit on file sizes stands in for a full disk: the system refuses in the middle of a file."""
    log = tmp_path / "run.log"
    args = train_args(tmp_path / "run", steps=200)
    server.start(args, log, max_file_bytes=100_000)
    assert server.wait() == 2, log.read_text()
    output = log.read_text()
    assert "Traceback" not in output
    error = f"cdred: {tmp_path / 'run' / 'checkpoints'}: cannot be written to (File too large).\nIt takes 0.1 MiB"
    assert error in output
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []
