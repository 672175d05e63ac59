"""A long run takes no more of the machine at its end than when it was warm."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "endurance.py"


@pytest.mark.slow
def test_memory_and_open_files_stay_as_they_were_when_warm(tmp_path):
    figures = tmp_path / "figures.json"
    subprocess.run([sys.executable, SCRIPT, "--steps", "100000", "--json", figures], check=True)
    told = json.loads(figures.read_text())
    late = [one for one in told["samples"] if one["steps"] >= 20_000]
    # Nothing is kept but for what one log line to the next needs.
    for name in ("open_files", "device_arrays", "device_mib"):
        assert max(one[name] for one in late) <= late[0][name] * 1.01
    assert max(one["rss_mib"] for one in late) < late[0]["rss_mib"] + 20
    # A log line or a batch of episodes each has its line, and no line is longer than another.
    first, last = late[0], late[-1]
    assert last["metrics_kib"] / first["metrics_kib"] == pytest.approx(last["steps"] / first["steps"], rel=0.2)
