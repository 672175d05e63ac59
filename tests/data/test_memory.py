"""That what is read is in memory once."""

import json
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from cdred.data.formats.lerobot_write import save_lerobot
from cdred.data.formats.minari import save_minari
from cdred.types import DemoDataset, Trajectory

MIB = 2**20
# What is freed goes back to the system at once: what Arrow's pool and the arenas hold back differs from call to call.
PLAIN_MEMORY = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
EPISODES, STEPS, SIZE = 64, 1024, 256  # 64 MiB of observations as float32

# Reads each file in a child of its own and prints by how much its memory peaked above what the result needs.
PROGRAM = """
import json, os, resource, sys
from cdred.data.demonstrations import load_demos
import h5py, pyarrow.dataset, pyarrow.parquet

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

for path in sys.argv[1:]:
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        before = resident()
        dataset = load_demos(path)
        held = sum(one.obs.nbytes + one.action.nbytes for one in dataset)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
        print(json.dumps([held, peak]), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.fixture(scope="module")
def large():
    """Observations of a great many steps."""
    generator = np.random.default_rng(0)

    def trajectory():
        obs = generator.random((STEPS + 1, SIZE), np.float32)
        return Trajectory(obs, np.zeros((STEPS, 4), np.float32), np.zeros(STEPS, np.float32), False, True)

    return DemoDataset("", tuple(trajectory() for _ in range(EPISODES)))


def write_d4rl(dataset, path):
    steps = EPISODES * STEPS
    with h5py.File(path, "w") as file:
        file["observations"] = np.concatenate([one.obs[:-1] for one in dataset])
        file["next_observations"] = np.concatenate([one.obs[1:] for one in dataset])
        file["actions"] = np.zeros((steps, 4), np.float32)
        file["rewards"] = np.zeros(steps, np.float32)
        file["terminals"] = np.zeros(steps, bool)
        file["timeouts"] = np.arange(steps) % STEPS == STEPS - 1


def write_robomimic(dataset, path):
    with h5py.File(path, "w") as file:
        for index, one in enumerate(dataset):
            group = file.create_group(f"data/demo_{index}")
            group["obs/state"], group["next_obs/state"] = one.obs[:-1], one.obs[1:]
            group["actions"] = one.action


def write_npz(dataset, path):
    obs = np.stack([one.obs for one in dataset]).astype(np.float64)
    np.savez(path, obs=obs, action=np.stack([one.action for one in dataset]))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_reading_takes_little_more_memory_than_the_result(large, tmp_path, monkeypatch):
    # Quantiles of that many numbers take seconds, and nobody reads them here.
    monkeypatch.setattr("cdred.data.formats.lerobot_write._stats", lambda *_: {})
    writers = {
        "minari": save_minari,
        "lerobot": save_lerobot,
        "d4rl.hdf5": write_d4rl,
        "robomimic.hdf5": write_robomimic,
        "double.npz": write_npz,
    }
    paths = [tmp_path / name for name in writers]
    for path, write in zip(paths, writers.values(), strict=True):
        write(large, path)
    read = [sys.executable, "-c", PROGRAM, *paths]
    out = subprocess.run(read, capture_output=True, text=True, check=True, env=os.environ | PLAIN_MEMORY).stdout
    measured = dict(zip(writers, map(json.loads, out.splitlines()), strict=True))
    for name, (held, peak) in measured.items():
        assert held > 64 * MIB, name
        # A second copy would make it 2; Arrow keeps some 25 MiB whatever it reads.
        assert peak < 1.25 * held + 40 * MIB, f"{name}: {peak / MIB:.0f} MiB at most for {held / MIB:.0f} MiB"
