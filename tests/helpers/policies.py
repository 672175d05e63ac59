"""Agents with random networks, and their exported policies."""

import io
import json
import zipfile
from dataclasses import replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np

import cdred
from cdred.algos.base import Algorithm
from cdred.algos.factory import make_algorithm
from cdred.config import RunConfig
from cdred.export.layers import policy_layers
from cdred.export.metadata import describe_policy
from cdred.export.npz_file import write_npz
from cdred.export.numpy_policy import Layer, NumpyPolicy
from cdred.export.stablehlo_file import write_stablehlo
from cdred.train.agent import Agent
from cdred.types import EnvSpec

ASYMMETRIC = EnvSpec("gym/Thrust-v0", (5,), 2, 100, action_low=(-0.5, 0.0), action_high=(3.0, 0.4))


class RandomPolicy(NamedTuple):
    """An agent that acts by its policy, its parts, and what an export has of it."""

    agent: Agent
    config: RunConfig
    algorithm: Algorithm
    learner: Any
    layers: list[Layer]
    metadata: dict[str, Any]


def random_policy(spec=ASYMMETRIC, *, acting="policy", scale=0.3, **settings) -> RandomPolicy:
    """Make an agent of the debug preset with other `settings`; its networks have random biases, too."""
    config = replace(cdred.preset("debug"), task=spec.task, planner="policy", **settings)
    algorithm, rng = make_algorithm(config, spec), np.random.default_rng(0)

    def noisy(network):
        return jax.tree.map(lambda x: x + scale * rng.normal(size=x.shape).astype(np.float32), network)

    learner = algorithm.init(jax.random.key(0))
    size = int(np.prod(spec.obs_shape))
    learner = algorithm.set_obs_stats(learner, jnp.linspace(-3.0, 3.0, size), jnp.linspace(0.01, 2.0, size))
    actor = (lambda s: (s.policy.encoder, s.policy.policy)) if config.algo == "bc" else (lambda s: s.model.actor)
    learner = eqx.tree_at(actor, learner, noisy(actor(learner)))
    if algorithm.pretraining:
        kept = learner.pretrained
        index = jnp.array(("agent", "policy", "pretrained policy").index(acting))
        learner = eqx.tree_at(lambda s: (s.pretrained.actor, s.pretrained.acting), learner, (noisy(kept.actor), index))
    layers = policy_layers(learner, spec, pretrained=acting == "pretrained policy")
    metadata = describe_policy(config, spec, 3, 500, acting)
    return RandomPolicy(Agent(algorithm, learner, spec), config, algorithm, learner, layers, metadata)


def file_content(policy, to):
    """Return the bytes of the file of an exported policy."""
    from cdred.export.onnx_file import write_onnx

    file = io.BytesIO()
    {"npz": write_npz, "onnx": write_onnx, "stablehlo": write_stablehlo}[to](file, policy.layers, policy.metadata)
    return file.getvalue()


def load_exported(content, to):
    """Return an exported policy's function of a flat batch, and its metadata, as an engineer would load them."""
    if to == "npz":
        policy = NumpyPolicy(io.BytesIO(content))
        return policy, policy.metadata
    if to == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        metadata = {key: _parsed(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
        return lambda obs: session.run(None, split(obs, metadata["inputs"]))[0], metadata
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        function = jax.jit(jax.export.deserialize(bytearray(archive.read("jax_export.bin"))).call)
        metadata = json.loads(archive.read("metadata.json"))
    if len(metadata["inputs"]) == 1:
        return lambda obs: np.asarray(function(obs)), metadata
    return lambda obs: np.asarray(function(split(obs, metadata["inputs"]))), metadata


def split(obs, inputs):
    """Split a batch of joined observations into their parts by name."""
    ends = np.cumsum([int(np.prod(part["shape"])) for part in inputs])
    parts = np.split(obs.reshape(len(obs), -1), ends[:-1], axis=1)
    return {part["name"]: x.reshape(-1, *part["shape"]) for part, x in zip(inputs, parts, strict=True)}


def _parsed(value):
    try:
        return json.loads(value)
    except ValueError:
        return value
