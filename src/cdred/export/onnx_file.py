"""Policy as an ONNX model of opset 17, built layer by layer.

jax2onnx 0.17.1, a converter of JAX functions, does not convert these networks with JAX 0.10 (its rule for `jnp.dot`
under `vmap` fails), and would install 36 packages. The policy needs nine operations.
"""

import json
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cdred.export.numpy_policy import Layer

# The newest that onnxruntime 1.12 (2022) and later read.
OPSET, IR_VERSION = 17, 8
BATCH, ACTION = "batch", "action"


def write_onnx(file: BinaryIO, layers: list[Layer], metadata: dict[str, Any]) -> None:
    """Write a model with an input `[batch, ...]` of float32 for each part of an observation, and one output.

    The output is named `action`, or `action_` if a part of the observation has that name. An observation that is not
    finite has an action of NaN. `metadata_props` has the metadata: text as it is, other values in JSON.
    """
    graph = _Graph(metadata["inputs"])
    for operation, parameters in layers:
        getattr(graph, operation)(**parameters)
    model = graph.model(len(metadata["action_low"]))
    model.producer_name, model.producer_version = "cdred", metadata["cdred_version"]
    text = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    helper.set_model_props(model, text)
    onnx.checker.check_model(model)
    file.write(model.SerializeToString())


class _Graph:
    """Chain of nodes; each method but `model` appends the nodes of one operation of `numpy_policy`.

    Args:
        inputs: names and shapes of the parts of an observation.
    """

    def __init__(self, inputs: list[dict[str, Any]]):
        self._nodes, self._initializers, self._names = [], [], {part["name"] for part in inputs}
        self._inputs = [
            helper.make_tensor_value_info(part["name"], TensorProto.FLOAT, [BATCH, *part["shape"]]) for part in inputs
        ]
        flat = [self._node("Flatten", [part["name"]]) if len(part["shape"]) != 1 else part["name"] for part in inputs]
        self._obs = self._x = self._node("Concat", flat, axis=1) if len(flat) > 1 else flat[0]

    def model(self, action_dim: int) -> onnx.ModelProto:
        """Return the model; its output is the last result."""
        # 0 for a finite observation, else NaN: the clipping before it would make an action of any number.
        zeros = self._node("Mul", [self._obs, self._constant("zero", np.float32(0.0))])
        not_finite = self._node("ReduceSum", [zeros, self._constant("axis", np.array([1]))], keepdims=1)
        action = self._unique(ACTION)
        self._nodes.append(helper.make_node("Add", [self._x, not_finite], [action]))
        output = helper.make_tensor_value_info(action, TensorProto.FLOAT, [BATCH, action_dim])
        graph = helper.make_graph(self._nodes, "policy", self._inputs, [output], self._initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)

    def normalize(self, mean: np.ndarray, std: np.ndarray, limit: float) -> None:
        self._append("Sub", mean=mean)
        self._append("Div", std=std)
        self._append("Clip", min=np.float32(-limit), max=np.float32(limit))

    def linear(self, weight: np.ndarray, bias: np.ndarray) -> None:
        self._append("Gemm", weight=weight, bias=bias)

    def layer_norm(self, scale: np.ndarray, shift: np.ndarray, eps: float) -> None:
        self._append("LayerNormalization", {"axis": -1, "epsilon": eps}, scale=scale, shift=shift)

    def mish(self) -> None:
        # `Mish` is of opset 18.
        self._x = self._node("Mul", [self._x, self._node("Tanh", [self._node("Softplus", [self._x])])])

    def simnorm(self, group: int) -> None:
        # In a shape, 0 stands for the size of the batch.
        self._append("Reshape", shape=np.array([0, -1, group]))
        self._append("Softmax", {"axis": -1})
        self._x = self._node("Flatten", [self._x], axis=1)

    def tanh(self) -> None:
        self._append("Tanh")

    def to_bounds(self, center: np.ndarray, half_range: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
        self._append("Mul", half_range=half_range)
        self._append("Add", center=center)
        self._append("Max", low=low)
        self._append("Min", high=high)

    def _append(self, operator: str, attributes: dict[str, Any] | None = None, **constants: Any) -> None:
        """Append a node that takes the last result and constants."""
        operands = [self._constant(name, value) for name, value in constants.items()]
        self._x = self._node(operator, [self._x, *operands], **(attributes or {}))

    def _node(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        output = self._unique(f"{operator.lower()}_{len(self._nodes)}")
        self._nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def _constant(self, name: str, value: Any) -> str:
        name = self._unique(f"{name}_{len(self._initializers)}")
        self._initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _unique(self, name: str) -> str:
        """Return `name`, with underscores if it is taken, as by a part of the observation."""
        while name in self._names:
            name += "_"
        self._names.add(name)
        return name
