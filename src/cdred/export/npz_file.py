"""Policy as NumPy arrays with a description of the layers in JSON, which `numpy_policy.NumpyPolicy` reads."""

import json
from typing import Any, BinaryIO

import numpy as np

from cdred.export.numpy_policy import Layer


def write_npz(file: BinaryIO, layers: list[Layer], metadata: dict[str, Any]) -> None:
    """Write the arrays of all layers, `<layer>.<name>`, and `description`: metadata and layers with their arrays'
    names."""
    arrays, described = {}, []
    for index, (operation, parameters) in enumerate(layers):
        names = {key: f"{index}.{key}" for key, value in parameters.items() if isinstance(value, np.ndarray)}
        numbers = {key: value for key, value in parameters.items() if key not in names}
        described.append({"operation": operation, "arrays": names, "numbers": numbers})
        arrays |= {name: parameters[key] for key, name in names.items()}
    np.savez(file, allow_pickle=False, description=np.array(json.dumps(metadata | {"layers": described})), **arrays)
