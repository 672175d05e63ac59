"""The example `run_exported.py` acts in an environment with an exported policy, in a process without JAX."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import cdred
from cdred.envs.registry import get_env_spec
from policies import file_content, random_policy

EXAMPLE = Path(__file__).parents[2] / "examples" / "run_exported.py"
# Also checks what the example imports.
RUN = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
assert "jax" not in sys.modules
"""


def run_example(path, *options):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(Path(cdred.__file__).parents[1]), str(path.parent)))}
    command = [sys.executable, "-c", RUN, str(EXAMPLE), str(path), "--steps", "20", "--rate", "100", *options]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("to", ["onnx", "npz"])
def test_example_acts_at_a_rate(to, tmp_path):
    if to == "onnx":
        pytest.importorskip("onnxruntime", reason="the extra `export`")
    path = tmp_path / f"policy.{to}"
    path.write_bytes(file_content(random_policy(get_env_spec("gym/Pendulum-v1"), algo="bc"), to))
    process = run_example(path)
    assert process.returncode == 0, process.stderr
    assert "policy of gym/Pendulum-v1: 20 steps at 100 Hz" in process.stdout


def test_example_acts_in_an_environment_that_a_module_registers(tmp_path):
    spec = replace(get_env_spec("gym/Pendulum-v1"), task="gym/Own-v0")
    path = tmp_path / "policy.npz"
    path.write_bytes(file_content(random_policy(spec, algo="bc"), "npz"))
    (tmp_path / "own_pendulum.py").write_text(
        "import gymnasium\n"
        'gymnasium.register("Own-v0", "gymnasium.envs.classic_control.pendulum:PendulumEnv", max_episode_steps=200)\n'
    )
    assert "Own" in run_example(path).stderr
    process = run_example(path, "--import", "own_pendulum")
    assert process.returncode == 0, process.stderr
    assert "policy of gym/Own-v0: 20 steps at 100 Hz" in process.stdout


def test_example_refuses_tasks_of_other_suites(tmp_path):
    path = tmp_path / "policy.npz"
    path.write_bytes(file_content(random_policy(get_env_spec("probe/point"), algo="bc"), "npz"))
    process = run_example(path)
    assert process.returncode == 1
    assert process.stderr.startswith("probe/point is not one of Gymnasium's environments")
