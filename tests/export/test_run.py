"""Export of a run: which policy it is, where it is written, what is refused."""

import shutil
import sys

import jax
import numpy as np
import pytest

import cdred
from cdred.algos.pretrain import PretrainConfig
from cdred.cli.main import main
from cdred.config import PrecisionConfig
from cdred.envs.registry import make
from cdred.errors import UserError
from cdred.export import run as export_run
from cdred.export.numpy_policy import NumpyPolicy
from cdred.run_folder import LoadedRun
from policies import load_exported, random_policy

POINT = make("probe/point").spec


def real_observations(seed=0):
    """Observations of an episode of random actions."""
    env, rng = make("probe/point"), np.random.default_rng(seed)
    return np.stack([env.reset(seed), *[env.step(rng.uniform(-1, 1, 2)).obs for _ in range(10)]])


def test_policy_of_a_run_that_plans_is_exported_with_a_message(finished_run, tmp_path):
    messages, obs = [], real_observations()
    path = cdred.export(finished_run, "npz", tmp_path / "new" / "policy.npz", seed=1, log=messages.append)
    assert "acts by its planner, which is not exported" in messages[0]
    assert messages[-1].startswith("policy of seed 1 at step ")
    policy = NumpyPolicy(path)
    assert (policy.metadata["policy"], policy.metadata["run_acts_by"]) == ("policy", "planner")
    assert (policy.metadata["seed"], policy.metadata["task"]) == (1, "probe/point")
    expected = cdred.load(finished_run, seed=1, planner="policy").act(obs)
    np.testing.assert_allclose(policy(obs), expected, atol=1e-5)
    other = cdred.load(finished_run, seed=0, planner="policy").act(obs)
    assert np.abs(expected - other).max() > 1e-3


@pytest.mark.parametrize("to", ["onnx", "stablehlo", "npz"])
def test_command_writes_each_format(to, bc_run, tmp_path, capsys):
    if to == "onnx":
        pytest.importorskip("onnxruntime", reason="the extra `export`")
    path, obs = tmp_path / f"policy.{to}", real_observations()
    assert main(["export", str(bc_run / "run"), "--to", to, "--out", str(path)]) == 0
    printed = capsys.readouterr().out
    assert str(path) in printed
    assert "planner" not in printed
    act, metadata = load_exported(path.read_bytes(), to)
    assert metadata["steps"] == 40
    np.testing.assert_allclose(act(obs), cdred.load(bc_run / "run").act(obs), atol=1e-5)


def test_unfinished_run_is_exported_from_its_last_checkpoint(bc_run, tmp_path):
    """As by `cdred.load`. The default name is that of the seed."""
    run = shutil.copytree(bc_run / "run", tmp_path / "run")
    (run / "result.json").unlink()
    path = cdred.export(run, "npz", log=lambda _: None)
    assert path == run / "policy-seed0.npz"
    assert NumpyPolicy(path).metadata["steps"] == 40
    with pytest.raises(UserError, match=r"policy-seed0\.npz exists already"):
        cdred.export(run, "npz")


@pytest.mark.parametrize("acting", ["agent", "policy", "pretrained policy"])
def test_what_was_chosen_to_act_is_exported(acting, tmp_path, monkeypatch):
    chosen = random_policy(POINT, acting=acting, pretrain=PretrainConfig(updates=1))
    learner = jax.tree.map(lambda x: x[None], chosen.learner)
    monkeypatch.setattr(export_run, "load_run", lambda *_: LoadedRun(chosen.config, learner, {}, 500))
    obs = real_observations()
    path = cdred.export("run", "npz", tmp_path / "policy.npz", log=lambda _: None)
    np.testing.assert_allclose(NumpyPolicy(path)(obs), chosen.agent.act(obs), atol=1e-5)
    expected = "pretrained policy" if acting == "pretrained policy" else "policy"
    assert NumpyPolicy(path).metadata["policy"] == expected


def test_rounded_precision_is_told(tmp_path, monkeypatch):
    rounded = random_policy(POINT, algo="bc", precision=PrecisionConfig(model="bfloat16"))
    learner, messages = jax.tree.map(lambda x: x[None], rounded.learner), []
    monkeypatch.setattr(export_run, "load_run", lambda *_: LoadedRun(rounded.config, learner, {}, 500))
    path = cdred.export("run", "npz", tmp_path / "policy.npz", log=messages.append)
    assert "bfloat16" in messages[0]
    assert NumpyPolicy(path).metadata["trained_precision"] == "bfloat16"
    obs = real_observations()
    difference = np.abs(NumpyPolicy(path)(obs) - rounded.agent.act(obs)).max()
    assert 0 < difference < 0.1


def test_missing_package_names_the_extra(bc_run, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "cdred.export.onnx_file", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"pip install 'cdred\[export\]'"):
        cdred.export(bc_run / "run", "onnx", tmp_path / "policy.onnx")
    assert not list(tmp_path.iterdir())


def test_run_without_that_seed_is_refused(bc_run, tmp_path):
    with pytest.raises(UserError, match=r"this run has the seeds \[0\], not 7"):
        cdred.export(bc_run / "run", "npz", tmp_path / "policy.npz", seed=7)
    assert not list(tmp_path.iterdir())
