"""Exported policies act as their agents do, in every format."""

import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from cdred.algos.pretrain import PretrainConfig
from cdred.errors import UserError
from cdred.export import numpy_policy
from cdred.export.layers import policy_layers
from cdred.export.numpy_policy import FORMAT, NumpyPolicy
from cdred.models.world_model import ModelConfig
from policies import ASYMMETRIC, file_content, load_exported, random_policy
from toy import ToyState

pytest.importorskip("onnxruntime", reason="the extra `export`")
FORMATS = ("npz", "onnx", "stablehlo")
SMALL = ModelConfig(latent_dim=16, encoder_hidden_dims=(16,), hidden_dims=(16, 16), num_critics=2, num_bins=21)
PAPER_LIKE = replace(SMALL, normalize_obs=False, encoder_layer_norm=True)
CASES = {
    "smooth encoder": (ASYMMETRIC, {}),
    "raw observations": (ASYMMETRIC, {"model": PAPER_LIKE}),
    "bc": (ASYMMETRIC, {"algo": "bc"}),
    "bc without hidden layers": (ASYMMETRIC, {"algo": "bc", "model": replace(SMALL, hidden_dims=())}),
    "pretrained": (ASYMMETRIC, {"acting": "pretrained policy", "pretrain": PretrainConfig(updates=1)}),
    "trained": (ASYMMETRIC, {"pretrain": PretrainConfig(updates=1)}),
    "absorbing state": (replace(ASYMMETRIC, can_terminate=True), {"algo": "cdred-sac"}),
    "named": (replace(ASYMMETRIC, obs_parts=(("action", 2), ("arm/0", 3))), {"algo": "bc"}),
    "several axes": (replace(ASYMMETRIC, obs_shape=(2, 3)), {"algo": "bc"}),
}


def observations(shape, num, seed=0):
    return np.random.default_rng(seed).normal(scale=3.0, size=(num, *shape)).astype(np.float32)


@pytest.mark.parametrize("case", CASES)
def test_exported_policies_act_as_the_agent(case):
    spec, settings = CASES[case]
    policy = random_policy(spec, **settings)
    obs = observations(spec.obs_shape, 7)
    expected = policy.agent.act(obs)
    assert np.ptp(expected, axis=0).min() > 0.01, "the actions do not depend on the observation"
    # Near and far beyond the limits of the normaliser.
    extreme = obs * np.float32(10.0) ** np.array([1, 2, 4, 8, 16, 30, 37], np.float32).reshape(
        -1, *[1] * (obs.ndim - 1)
    )
    expected_extreme = policy.agent.act(extreme)
    for to in FORMATS:
        act, metadata = load_exported(file_content(policy, to), to)
        np.testing.assert_allclose(act(obs), expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(act(extreme), expected_extreme, rtol=0, atol=1e-5)
        np.testing.assert_allclose(act(obs[2:3]), expected[2:3], rtol=0, atol=1e-5)
        assert act(obs).dtype == np.float32
        assert {"format": FORMAT, "version": 1} | metadata == policy.metadata


@pytest.mark.parametrize("to", FORMATS)
def test_actions_stay_within_the_bounds(to):
    """0.1 rounds up and 0.7 down in float32."""
    low, high = (-0.1, -0.7), (0.1, 0.7)
    policy = random_policy(replace(ASYMMETRIC, action_low=low, action_high=high), algo="bc", scale=30.0)
    act, _ = load_exported(file_content(policy, to), to)
    actions = act(observations((5,), 50)).astype(np.float64)
    assert (actions >= low).all()
    assert (actions <= high).all()
    # The networks saturate.
    np.testing.assert_allclose(actions.min(axis=0), low, rtol=1e-6)
    np.testing.assert_allclose(actions.max(axis=0), high, rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_observation_that_is_not_finite_has_no_action(value):
    policy = random_policy(algo="bc")
    obs = observations((5,), 3)
    obs[1, 4] = value
    for to in ("onnx", "stablehlo"):
        actions = load_exported(file_content(policy, to), to)[0](obs)
        assert np.isnan(actions[1]).all()
        assert np.isfinite(actions[[0, 2]]).all()
    with pytest.raises(ValueError, match="the observation is not finite"):
        load_exported(file_content(policy, "npz"), "npz")[0](obs)


def test_metadata_describe_the_policy():
    spec = replace(ASYMMETRIC, obs_parts=(("arm", 2), ("goal", 3)), action_repeat=2, control_timestep=0.05)
    policy = random_policy(spec, acting="pretrained policy", pretrain=PretrainConfig(updates=1))
    for to in FORMATS:
        metadata = load_exported(file_content(policy, to), to)[1]
        assert metadata["inputs"] == [{"name": "arm", "shape": [2]}, {"name": "goal", "shape": [3]}]
        assert (metadata["task"], metadata["algo"], metadata["seed"]) == ("gym/Thrust-v0", "cdred", 3)
        assert (metadata["steps"], metadata["action_repeat"], metadata["control_timestep"]) == (500, 2, 0.05)
        assert (metadata["action_low"], metadata["action_high"]) == ([-0.5, 0.0], [3.0, 0.4])
        assert (metadata["policy"], metadata["run_acts_by"]) == ("pretrained policy", "pretrained policy")
        assert metadata["cdred_version"]


def test_onnx_has_an_input_for_each_part():
    import onnxruntime

    policy = random_policy(*CASES["named"][:1], algo="bc")
    session = onnxruntime.InferenceSession(file_content(policy, "onnx"), providers=["CPUExecutionProvider"])
    assert [(x.name, x.shape) for x in session.get_inputs()] == [("action", ["batch", 2]), ("arm/0", ["batch", 3])]
    assert [(x.name, x.shape) for x in session.get_outputs()] == [("action_", ["batch", 2])]


RUN_WITHOUT_JAX = """
import sys
import numpy as np
import onnxruntime
from numpy_policy import NumpyPolicy
obs = np.load("obs.npy")
session = onnxruntime.InferenceSession("policy.onnx", providers=["CPUExecutionProvider"])
np.save("onnx.npy", session.run(["action"], {"obs": obs})[0])
np.save("npz.npy", NumpyPolicy("policy.npz")(obs))
assert not {"jax", "cdred"} & set(sys.modules), "imported"
"""


def test_files_act_in_a_process_without_jax_and_cdred(tmp_path):
    policy, obs = random_policy(algo="bc"), observations((5,), 4)
    for to in ("onnx", "npz"):
        (tmp_path / f"policy.{to}").write_bytes(file_content(policy, to))
    np.save(tmp_path / "obs.npy", obs)
    shutil.copy(numpy_policy.__file__, tmp_path)
    subprocess.run([sys.executable, "-c", RUN_WITHOUT_JAX], cwd=tmp_path, check=True, env={})
    for to in ("onnx", "npz"):
        np.testing.assert_allclose(np.load(tmp_path / f"{to}.npy"), policy.agent.act(obs), atol=1e-5)


def test_numpy_policy_takes_named_parts_and_single_observations():
    policy = NumpyPolicy(io.BytesIO(file_content(random_policy(CASES["named"][0], algo="bc"), "npz")))
    obs = observations((5,), 3)
    expected = policy(obs)
    named = {"arm/0": obs[:, 2:], "action": obs[:, :2]}
    np.testing.assert_array_equal(policy(named), expected)
    single = policy({name: part[1] for name, part in named.items()})
    assert single.shape == (2,)
    np.testing.assert_allclose(single, expected[1], atol=1e-6)
    np.testing.assert_allclose(policy(obs[1].tolist()), expected[1], atol=1e-6)


@pytest.mark.parametrize(
    ("obs", "message"),
    [
        (np.zeros(4), r"shape \(5,\) \(or a batch\), got \(4,\)"),
        (np.zeros((2, 2, 5)), r"got \(2, 2, 5\)"),
        ({"action": np.zeros(2)}, r"of \['action', 'arm/0'\], got \['action'\]"),
        ({"action": np.zeros(2), "arm/0": np.zeros(3), "x": np.zeros(1)}, "got .*'x'"),
        ({"action": np.zeros(3), "arm/0": np.zeros(2)}, r"'action' of shape \(2,\) \(or a batch\), got \(3,\)"),
    ],
)
def test_numpy_policy_refuses_other_observations(obs, message):
    policy = NumpyPolicy(io.BytesIO(file_content(random_policy(CASES["named"][0], algo="bc"), "npz")))
    with pytest.raises(ValueError, match=message):
        policy(obs)


def _described(change):
    """Return a policy's arrays with a changed description."""
    with np.load(io.BytesIO(file_content(random_policy(algo="bc"), "npz"))) as file:
        arrays = dict(file)
    description = json.loads(str(arrays["description"]))
    change(description)
    return arrays | {"description": np.array(json.dumps(description))}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (lambda: {"obs": np.zeros(3)}, "is not a policy"),
        (lambda: {"description": np.array(["{}"], object)}, "is not a policy .*allow_pickle"),
        (lambda: _described(lambda tree: tree.update(version=2)), r"format \('cdred-policy', 2\), this module reads"),
        (lambda: _described(lambda tree: tree["layers"][0].update(operation="relu")), "unknown operation 'relu'"),
        (lambda: _described(lambda tree: tree["layers"][0]["arrays"].update(mean="gone")), "is not a policy.*gone"),
    ],
    ids=["other arrays", "pickle", "version", "operation", "missing array"],
)
def test_numpy_policy_refuses_other_files(arrays, message, tmp_path):
    np.savez(tmp_path / "x.npz", **arrays())
    with pytest.raises(ValueError, match=message):
        NumpyPolicy(tmp_path / "x.npz")


def test_numpy_policy_refuses_what_is_no_archive(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"x\.npz is not a policy of `cdred export --to npz`"):
        NumpyPolicy(tmp_path / "x.npz")


def test_unknown_networks_are_refused():
    with pytest.raises(UserError, match="the policy of ToyState cannot be exported"):
        policy_layers(ToyState(np.zeros(2), np.zeros(())), ASYMMETRIC, pretrained=False)


def test_policies_of_images_are_refused():
    with pytest.raises(UserError, match="policies of camera images cannot be exported, and probe/x has them"):
        policy_layers(None, replace(ASYMMETRIC, task="probe/x", image_size=32), pretrained=False)
