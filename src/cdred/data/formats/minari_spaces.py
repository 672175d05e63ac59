"""Spaces in the metadata of Minari datasets."""

import json
from collections.abc import Iterator
from typing import Any

from cdred.errors import UserError


def parse_shapes(space: str, location: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the Box spaces in an `observation_space` of the metadata, JSON, by name.

    Raises:
        UserError: it is not a space as Minari writes it.
    """
    try:
        return dict(_box_shapes(json.loads(space), ""))
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{location} is not a space as Minari writes it: {error}") from error


def _box_shapes(space: dict[str, Any], name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    subspaces = space.get("subspaces")
    if subspaces is None:
        if "shape" in space:
            yield name or "observations", tuple(space["shape"])
        return
    items = subspaces.items() if isinstance(subspaces, dict) else enumerate(subspaces)
    for key, subspace in items:
        yield from _box_shapes(subspace, f"{name}/{key}" if name else str(key))
