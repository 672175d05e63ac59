"""Policy of `cdred export --to npz` in NumPy. This file needs nothing else of cdred, and can be copied to a robot.

    policy = NumpyPolicy("policy.npz")
    action = policy(obs)

The layers are functions of `[..., n]` arrays of NumPy or, with `xp=jax.numpy`, of JAX.
"""

import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

FORMAT, VERSION = "cdred-policy", 1
# Name of an operation, and its arrays and numbers by name.
Layer = tuple[str, dict[str, Any]]


def normalize(xp: Any, x: Any, mean: Any, std: Any, limit: float) -> Any:
    """Compute (x - mean) / std, clipped to [-limit, limit]."""
    return xp.clip((x - mean) / std, -limit, limit)


def linear(xp: Any, x: Any, weight: Any, bias: Any) -> Any:
    """Compute x W + b."""
    return xp.matmul(x, weight) + bias


def layer_norm(xp: Any, x: Any, scale: Any, shift: Any, eps: float) -> Any:
    """Normalise by mean and standard deviation of the components, then scale and shift."""
    centred = x - xp.mean(x, axis=-1, keepdims=True)
    return centred / xp.sqrt(xp.mean(centred * centred, axis=-1, keepdims=True) + eps) * scale + shift


def mish(xp: Any, x: Any) -> Any:
    """Compute x tanh(log(1 + e)) with e = exp(x)."""
    # Beyond 20 the quotient is 1 in float32, and the square of e stays finite.
    e = xp.exp(xp.minimum(x, 20.0))
    n = e * (e + 2.0)
    return x * (n / (n + 2.0))


def simnorm(xp: Any, x: Any, group: int) -> Any:
    """Compute a softmax within each group of `group` components."""
    groups = x.reshape(*x.shape[:-1], -1, group)
    e = xp.exp(groups - xp.max(groups, axis=-1, keepdims=True))
    return (e / xp.sum(e, axis=-1, keepdims=True)).reshape(x.shape)


def tanh(xp: Any, x: Any) -> Any:
    """Compute the hyperbolic tangent."""
    return xp.tanh(x)


def to_bounds(xp: Any, x: Any, center: Any, half_range: Any, low: Any, high: Any) -> Any:
    """Map [-1, 1] to [low, high]."""
    return xp.clip(center + half_range * x, low, high)


OPERATIONS = {f.__name__: f for f in (normalize, linear, layer_norm, mish, simnorm, tanh, to_bounds)}


def apply_layers(layers: Sequence[Layer], x: Any, xp: Any = np) -> Any:
    """Apply layers in order."""
    for operation, parameters in layers:
        x = OPERATIONS[operation](xp, x, **parameters)
    return x


class NumpyPolicy:
    """Policy that maps raw observations to actions in the environment's units.

    Attributes:
        metadata: task, inputs, bounds of actions and where the policy comes from.
        layers: operations with their arrays.

    Args:
        path: a file written by `cdred export --to npz`.

    Raises:
        ValueError: the file is none of these, or of another version.
        OSError: the file cannot be read.
    """

    def __init__(self, path: Any):
        try:
            arrays = _read_arrays(path)
            self.metadata = json.loads(str(arrays["description"]))
            found = self.metadata.pop("format"), self.metadata.pop("version")
            self.layers = [_load_layer(layer, arrays) for layer in self.metadata.pop("layers")]
        except (zipfile.BadZipFile, KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{path} is not a policy of `cdred export --to npz`: {error}") from error
        if found != (FORMAT, VERSION):
            raise ValueError(f"{path} has format {found}, this module reads {(FORMAT, VERSION)}.")

    def __call__(self, obs: Any) -> np.ndarray:
        """Compute the actions of raw observations.

        Args:
            obs: an observation of the shape in `metadata["inputs"]`, or a batch `[B, ...]`. Named parts are a dict of
                all of them, or one array in which they are joined in the order of `metadata["inputs"]`.

        Returns:
            The action `[A]`, or actions `[B, A]`, float32, within the environment's bounds.

        Raises:
            ValueError: an observation has another shape or names, or is not finite.
        """
        x = self._join(obs) if isinstance(obs, Mapping) else np.asarray(obs, np.float32)
        inputs = self.metadata["inputs"]
        shape = tuple(inputs[0]["shape"]) if len(inputs) == 1 else (sum(part["shape"][0] for part in inputs),)
        if x.shape != shape and x.shape[1:] != shape:
            raise ValueError(f"expected an observation of shape {shape} (or a batch), got {x.shape}.")
        if not np.isfinite(x).all():
            raise ValueError("the observation is not finite.")
        with np.errstate(over="ignore"):  # of values that are clipped
            return apply_layers(self.layers, x.reshape(*x.shape[: x.ndim - len(shape)], -1))

    def _join(self, obs: Mapping[str, Any]) -> np.ndarray:
        shapes = {part["name"]: tuple(part["shape"]) for part in self.metadata["inputs"]}
        if set(obs) != set(shapes):
            raise ValueError(f"expected an observation of {list(shapes)}, got {list(obs)}.")
        parts = [np.asarray(obs[name], np.float32) for name in shapes]
        for part, (name, shape) in zip(parts, shapes.items(), strict=True):
            if part.shape != shape and part.shape[1:] != shape:
                raise ValueError(f"expected '{name}' of shape {shape} (or a batch), got {part.shape}.")
        return np.concatenate(parts, axis=-1)


def _read_arrays(path: Any) -> dict[str, np.ndarray]:
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as file:
                arrays[name.removesuffix(".npy")] = np.lib.format.read_array(file, allow_pickle=False)
    return arrays


def _load_layer(layer: dict[str, Any], arrays: dict[str, np.ndarray]) -> Layer:
    """Return a layer with its arrays; the description has their names in the file."""
    operation = layer["operation"]
    if operation not in OPERATIONS:
        raise ValueError(f"unknown operation {operation!r}")
    return operation, layer["numbers"] | {key: arrays[name] for key, name in layer["arrays"].items()}
