"""Jobs of SLURM: what is given to `sbatch`, and the jobs of an earlier call, with stand-ins of SLURM's commands."""

import importlib.util
import json
import os
import re
from pathlib import Path

import pytest
import yaml

from cdred.cli.main import main
from cdred.errors import UserError
from cdred.sweep.plan import plan_runs
from cdred.sweep.slurm_jobs import SlurmBackend, SlurmOptions
from cdred.sweep.sweep_file import read_sweep

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("submitit") is None, reason="the extra `slurm`: make test-clusters"
)
SBATCH = """#!/bin/sh
cp "$1" "$FAKE_SLURM/script-$(ls "$FAKE_SLURM" | grep -c script)"
echo "Submitted batch job $((100 + $(ls "$FAKE_SLURM" | grep -c script)))"
"""
# The states of all jobs are in a file.
SACCT = """#!/bin/sh
cat "$FAKE_SLURM/sacct"
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Folder of the scripts that were submitted, with a sweep of three runs in the working directory."""
    commands, fake = tmp_path / "bin", tmp_path / "slurm"
    commands.mkdir()
    fake.mkdir()
    for name, text in {"sbatch": SBATCH, "sacct": SACCT, "srun": "#!/bin/sh\n"}.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(fake))
    monkeypatch.setenv("SUBMITIT_PREEMPT_SIGNAL", "TERM")
    monkeypatch.chdir(tmp_path)
    tree = {"out": "out", "tasks": ["probe/point"], "methods": ["bc"], "seed_groups": [[0], [1], [2]]}
    Path("sweep.yaml").write_text(yaml.safe_dump(tree))
    return fake


def backend(**options):
    return SlurmBackend(SlurmOptions(**options), Path("out/slurm").absolute(), cpus=4, gpus=1)


def runs():
    return plan_runs(read_sweep(Path("sweep.yaml")))


def test_runs_are_submitted_as_one_array_with_the_options(slurm):
    jobs = backend(partition="gpu", account="lab", minutes=90, memory_gb=16, parallel=2)
    jobs.start(runs())
    (script,) = slurm.iterdir()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", script.read_text(), re.M))
    expected = {"partition": "gpu", "account": "lab", "time": "90", "mem": "16GB", "array": "0-2%2", "nodes": "1"}
    expected |= {"cpus-per-task": "4", "gpus-per-node": "1", "ntasks-per-node": "1"}
    assert {name: options[name] for name in expected} == expected
    assert "qos" not in options
    # Two minutes before the time limit.
    assert re.fullmatch(r"\w+@120", options["signal"])
    numbers = json.loads(Path("out/slurm/jobs.json").read_text())
    assert numbers == {str(run.folder): f"101_{index}" for index, run in enumerate(runs())}
    assert jobs.stop() == "the jobs go on: 101"


def test_jobs_of_an_earlier_call_are_not_submitted_again(slurm):
    backend().start(runs()[:2])
    rows = ["JobID|State|NodeList", "101_0|RUNNING|node1", "101_1|FAILED|node2"]
    (slurm / "sacct").write_text("\n".join(rows) + "\n")
    later = backend()
    later.start(runs())
    numbers = json.loads(Path("out/slurm/jobs.json").read_text())
    assert numbers == {str(run.folder): number for run, number in zip(runs(), ("101_0", "102_0", "102_1"), strict=True)}


def test_fraction_of_a_gpu_and_a_missing_slurm_are_refused(tmp_path, monkeypatch, capsys):
    with pytest.raises(UserError, match="whole GPUs only"):
        SlurmBackend(SlurmOptions(), tmp_path, cpus=1, gpus=0.5)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    tree = {"out": "out", "tasks": ["probe/point"], "methods": ["bc"], "seed_groups": [[0]]}
    Path("sweep.yaml").write_text(yaml.safe_dump(tree))
    assert main(["sweep", "sweep.yaml", "--on", "slurm"]) == 2
    assert "`sbatch` and `srun`" in capsys.readouterr().err
