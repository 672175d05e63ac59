"""A long run uses constant memory and constant open files after its start."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "endurance.py"


@pytest.mark.slow
def test_memory_and_open_files_are_constant_after_warmup(tmp_path):
    path = tmp_path / "endurance.json"
    subprocess.run([sys.executable, SCRIPT, "--steps", "100000", "--json", path], check=True)
    samples = [sample for sample in json.loads(path.read_text())["samples"] if sample["steps"] >= 20_000]
    first, last = samples[0], samples[-1]
    # Metrics between two log lines are the only data that accumulate.
    for name in ("open_files", "device_arrays", "device_mib"):
        assert max(sample[name] for sample in samples) <= first[name] * 1.01
    assert max(sample["rss_mib"] for sample in samples) < first["rss_mib"] + 20
    # The metrics file grows by lines of equal length, at a constant number per step.
    assert last["metrics_kib"] / first["metrics_kib"] == pytest.approx(last["steps"] / first["steps"], rel=0.2)
