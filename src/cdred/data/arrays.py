"""From arrays as files hold them to a trajectory, shared by the readers."""

from collections.abc import Mapping

import numpy as np

from cdred.errors import UserError


def required(arrays: Mapping[str, object], key: str, where: str) -> object:
    """`arrays[key]`.

    Raises:
        UserError: there is no such key.
    """
    if key not in arrays:
        raise UserError(f"{where}: no '{key}' in it (there are: {', '.join(sorted(arrays))}).")
    return arrays[key]


def as_float32(values: object, key: str, where: str) -> np.ndarray:
    """`values` as float32.

    Raises:
        UserError: they are not numbers.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise UserError(f"{where}: '{key}' holds {array.dtype}, expected numbers in a plain array.")
    with np.errstate(over="ignore"):
        # What float32 cannot hold becomes infinite here and is reported as such by the validation.
        return array.astype(np.float32)


def as_bool(values: object, key: str, where: str) -> np.ndarray:
    """`values` as truth values.

    Raises:
        UserError: they are neither truth values nor numbers.
    """
    return as_float32(values, key, where) != 0
