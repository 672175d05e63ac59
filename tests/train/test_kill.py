"""Killed without warning, a real run goes on from its last save as if nothing had been; starved of disk, it says so."""

import json
import os
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from cdred.checkpoint import checkpoint
from forked_runs import Forks
from runs import arrays, assert_same_arrays, curves

PATIENCE = 300


@pytest.fixture(scope="module")
def forks():
    env = os.environ | {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir, "JAX_PLATFORMS": "cpu"}
    env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    server = Forks(env)
    yield server
    server.close()


def words(out: Path, **changes: object) -> list[str]:
    """A run that saves every 20 steps."""
    settings = {"preset": "debug", "demos": 3, "video": False, "checkpoint-every": 20, "eval-every": 60, "out": out}
    return ["train", "probe/point", *(word for k, v in (settings | changes).items() for word in (f"--{k}", str(v)))]


def trained(forks: Forks, out: Path, **changes: object) -> Path:
    forks.start(words(out, **changes), out.with_suffix(".log"))
    assert forks.wait() == 0, out.with_suffix(".log").read_text()
    return out


def newest(out: Path) -> str:
    folder = checkpoint.latest(out / "checkpoints")
    return folder.name if folder else ""


def kill_while_it_trains(forks: Forks, out: Path, delay: float, **changes: object) -> bool:
    """Begin or resume, wait for the next save, then for `delay` seconds, and kill; False if it was finished first."""
    before, deadline = newest(out), time.monotonic() + PATIENCE
    process = forks.start(words(out, **changes), out.with_suffix(".log"))
    while newest(out) == before and not (out / "result.json").exists():
        assert time.monotonic() < deadline, out.with_suffix(".log").read_text()
        time.sleep(0.002)
    time.sleep(delay)
    os.kill(process, signal.SIGKILL)
    return forks.wait() == -signal.SIGKILL and not (out / "result.json").exists()


@pytest.mark.parametrize(
    ("kills", "steps"), [(5, 400), pytest.param(30, 2400, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)  # fmt: skip
def test_a_run_killed_at_random_instants_ends_as_one_that_was_not(forks, tmp_path, kills, steps):
    whole = trained(forks, tmp_path / "whole", steps=steps)
    generator, killed = np.random.default_rng(kills), 0
    for _ in range(kills):
        killed += kill_while_it_trains(forks, tmp_path / "run", generator.uniform(0.0, 0.2), steps=steps)
    assert killed == kills
    trained(forks, tmp_path / "run", steps=steps)
    assert_same_runs(whole, tmp_path / "run")


def assert_same_runs(one: Path, other: Path) -> None:
    assert_same_arrays(arrays(one), arrays(other))
    assert curves(one) == curves(other)
    kept = [checkpoint.best(run / "checkpoints") for run in (one, other)]
    assert kept[0].name == kept[1].name
    assert_same_arrays(*map(checkpoint.load_arrays, kept))
    # Two checkpoints, the best, and nothing that a kill has left.
    assert [len(list((run / "checkpoints").iterdir())) for run in (one, other)] == [3, 3]
    results = [json.loads((run / "result.json").read_text()) for run in (one, other)]
    assert len({json.dumps(result | {"wall_seconds": 0}) for result in results}) == 1


def test_the_best_agents_are_those_of_the_best_evaluation(forks, tmp_path):
    run = trained(forks, tmp_path / "run", steps=200)
    evaluations = [line for line in curves(run) if line["kind"] == "eval"]
    scores = [(np.mean(line["success"]), np.mean(line["episode_return"]), line["step"]) for line in evaluations]
    # The first of equals.
    *score, step = max(scores, key=lambda one: (*one[:2], -one[2]))
    folder = checkpoint.best(run / "checkpoints")
    meta = checkpoint._read_index(folder)["meta"]
    assert int(folder.name[-9:]) == step
    assert meta["score"] == pytest.approx(score)
    result = tmp_path / "eval.json"
    forks.start(["eval", str(run), "--best", "--episodes", "2", "--json", str(result)], tmp_path / "eval.log")
    assert forks.wait() == 0, (tmp_path / "eval.log").read_text()
    assert json.loads(result.read_text())["steps"] == step


def test_a_run_whose_checkpoint_the_system_refuses_ends_with_its_code_and_two_lines(forks, tmp_path):
    """A limit on the size of files stands in for a full disk: the system itself refuses, in the middle of a file."""
    log = tmp_path / "run.log"
    forks.start(words(tmp_path / "run", steps=200), log, largest_file=100_000)
    assert forks.wait() == 2, log.read_text()
    said = log.read_text()
    assert "Traceback" not in said
    assert (
        f"cdred: {tmp_path / 'run' / 'checkpoints'}: cannot be written to (File too large).\nIt takes 0.1 MiB" in said
    )
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []
