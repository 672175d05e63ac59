"""Seeds sharded over devices learn what they learn on one; XLA splits the CPU into several, in a process of its own."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

import cdred
from cdred.config import preset
from runs import arrays

TRAIN = """
import json, sys, jax
from dataclasses import replace
import cdred
from cdred.train.devices import seed_mesh
changes, devices = json.loads(sys.argv[1]), int(sys.argv[2])
changes["seeds"] = tuple(changes["seeds"])
assert seed_mesh(len(changes["seeds"])).size == len(jax.devices()) == devices
cdred.train(cdred.preset("debug"), quiet=True, **changes)
"""
SHORT = {
    "demos": "3",
    "steps": 40,
    "checkpoint_every": 20,
    "eval_every": 1000,
    "final_eval_episodes": 1,
    "video": False,
}


def split_cpu(devices):
    """Return XLA's flags with the CPU split into devices."""
    return f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"


@pytest.mark.parametrize(
    ("task", "algo", "devices"),
    [
        pytest.param("probe/point", "cdred", 8, marks=pytest.mark.slow),
        ("probe/point", "red-sac", 2),
        pytest.param("jaxprobe/point", "red-sac", 2, marks=pytest.mark.slow),
    ],
)
def test_sharded_run_equals_run_on_one_device(tmp_path, task, algo, devices):
    changes = SHORT | {"task": task, "algo": algo, "seeds": list(range(devices))}
    env = {
        "XLA_FLAGS": split_cpu(devices),
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
    }
    args = [json.dumps(changes | {"out": str(tmp_path / "many")}), str(devices)]
    subprocess.run([sys.executable, "-c", TRAIN, *args], env=os.environ | env, check=True)
    cdred.train(preset("debug"), quiet=True, **changes | {"out": str(tmp_path / "one"), "seeds": tuple(range(devices))})
    many, one = arrays(tmp_path / "many"), arrays(tmp_path / "one")
    assert many.keys() == one.keys()
    for name, values in one.items():
        np.testing.assert_allclose(many[name], values, rtol=1e-3, atol=1e-4, err_msg=name)
    assert int(one["learner/updates"].min()) == 40


def test_seed_mesh_divides_seeds_evenly():
    script = (
        "from cdred.train.devices import seed_mesh; print([m and m.size for m in map(seed_mesh, (1, 2, 3, 4, 5, 6))])"
    )
    env = {"XLA_FLAGS": split_cpu(4)}
    process = subprocess.run([sys.executable, "-c", script], env=os.environ | env, check=True, capture_output=True)
    assert process.stdout.decode().strip() == "[None, 2, 3, 4, None, 3]"
