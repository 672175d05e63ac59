"""Reading keeps one copy of the data in memory."""

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
# Freed memory is returned to the system at once: the amount that Arrow's pool and malloc arenas retain varies.
PLAIN_MEMORY = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
EPISODES, STEPS, SIZE = 64, 1024, 256  # 64 MiB of observations as float32

# Reads each file in a child process and prints the size of the result and the peak memory used for it.
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
    """Return demonstrations with many steps."""
    generator = np.random.default_rng(0)

    def trajectory():
        obs = generator.random((STEPS + 1, SIZE), np.float32)
        return Trajectory(obs, np.zeros((STEPS, 4), np.float32), np.zeros(STEPS, np.float32), False, True)

    return DemoDataset("", tuple(trajectory() for _ in range(EPISODES)))


def write_d4rl(dataset, path):
    steps = EPISODES * STEPS
    with h5py.File(path, "w") as file:
        file["observations"] = np.concatenate([trajectory.obs[:-1] for trajectory in dataset])
        file["next_observations"] = np.concatenate([trajectory.obs[1:] for trajectory in dataset])
        file["actions"] = np.zeros((steps, 4), np.float32)
        file["rewards"] = np.zeros(steps, np.float32)
        file["terminals"] = np.zeros(steps, bool)
        file["timeouts"] = np.arange(steps) % STEPS == STEPS - 1


def write_robomimic(dataset, path):
    with h5py.File(path, "w") as file:
        for index, trajectory in enumerate(dataset):
            group = file.create_group(f"data/demo_{index}")
            group["obs/state"], group["next_obs/state"] = trajectory.obs[:-1], trajectory.obs[1:]
            group["actions"] = trajectory.action


def write_npz(dataset, path):
    obs = np.stack([trajectory.obs for trajectory in dataset]).astype(np.float64)
    np.savez(path, obs=obs, action=np.stack([trajectory.action for trajectory in dataset]))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_reading_keeps_one_copy_in_memory(large, tmp_path, monkeypatch):
    # Quantiles of that many numbers take seconds and are not needed here.
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
