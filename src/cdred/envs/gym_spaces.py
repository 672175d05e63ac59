"""Gymnasium's spaces: which are supported, and how an observation of nested spaces becomes one vector and an image."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Space, Tuple
from gymnasium.spaces.utils import flatdim
from gymnasium.wrappers import FlattenObservation
from jaxtyping import Float32

from cdred.errors import UserError

WRAPPERS = {
    "action": "TransformAction, which maps a Box to the actions that it takes",
    "observation": "FlattenObservation, which makes a one-hot vector of a Discrete observation",
}


class ObsBox(NamedTuple):
    """Box of an observation space: the keys and indices that lead to it, none where it is the whole space."""

    path: tuple[Any, ...]
    shape: tuple[int, ...]

    @property
    def width(self) -> int:
        return int(np.prod(self.shape, dtype=int))

    def read(self, task: str, obs: Any) -> Float32[np.ndarray, " width"]:
        """Return this part of `obs` as a vector.

        Raises:
            ValueError: there is no such part, or its shape differs from that of the space.
        """
        return np.asarray(self.read_array(task, obs), np.float32).reshape(-1)

    def read_array(self, task: str, obs: Any) -> np.ndarray:
        """Return this part of `obs`.

        Raises:
            ValueError: as `read`.
        """
        part = f"part '{join_name(self.path)}' of its observation" if self.path else "observation"
        try:
            for key in self.path:
                obs = obs[key]
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"{task}: the environment returned no {part}, which its observation space has") from error
        if np.shape(obs) != self.shape:
            raise ValueError(
                f"{task}: the environment returned shape {np.shape(obs)} for the {part}, expected {self.shape} as in "
                "its observation space"
            )
        return np.asarray(obs)


def require_box(task: str, role: str, space: Space, part: str = "") -> Box:
    """Return `space` unchanged.

    Args:
        task: name of the task, for the message.
        role: `action` or `observation`.
        space: the space.
        part: name of the part of the observation space that it is; empty for a whole space.

    Raises:
        UserError: it is not a Box, is an observation of an image, or holds actions that are integers.
    """
    whole = f"its {role} space"
    subject = f"{task}: part '{part}' of {whole}" if part else f"{task}: {whole}"
    if not isinstance(space, Box):
        raise UserError(
            f"{subject} is {space}; only continuous (Box) spaces are supported: wrap the environment, "
            f"e.g. in gymnasium.wrappers.{WRAPPERS[role]}."
        )
    if role == "action" and not np.issubdtype(space.dtype, np.floating):
        raise UserError(
            f"{subject} is a Box of {space.dtype}; actions are continuous, and would be rounded: wrap the environment, "
            f"e.g. in gymnasium.wrappers.{WRAPPERS[role]}."
        )
    if role == "observation" and is_image(space):
        raise UserError(
            f"{subject} is an image, Box{space.shape} of {space.dtype}: observe it with --obs pixels, or both it and "
            "the other parts with --obs both, or select the others (gymnasium.wrappers.FilterObservation)."
        )
    return space


def is_image(box: Box) -> bool:
    """Return True for three dimensions or more, and for two of bytes."""
    return len(box.shape) >= 3 or (len(box.shape) == 2 and box.dtype == np.uint8)


def split_images(task: str, space: Space) -> tuple[tuple[ObsBox, ...], ObsBox | None]:
    """Return the Box spaces of an observation space that make up the vector, as `obs_boxes`, and its image, if any.

    Raises:
        UserError: as `obs_boxes`, several images, or one of another layout or type.
    """
    leaves = list(leaf_spaces(space))
    images = [(path, leaf) for path, leaf in leaves if isinstance(leaf, Box) and is_image(leaf)]
    if not images:
        return obs_boxes(task, space), None
    if len(images) > 1:
        raise UserError(
            f"{task}: its observation space has several images, {', '.join(join_name(path) for path, _ in images)}: "
            "select one with gymnasium.wrappers.FilterObservation."
        )
    ((path, box),) = images
    if box.dtype != np.uint8 or (len(box.shape) > 2 and box.shape[2:] not in ((1,), (3,))):
        raise UserError(
            f"{task}: the image '{join_name(path)}' of its observation space is Box{box.shape} of {box.dtype}, "
            "expected [H, W], [H, W, 1] or [H, W, 3] of uint8, channels last."
        )
    others = [(path, leaf) for path, leaf in leaves if leaf is not box]
    return _boxes(task, others) if others else (), ObsBox(path, box.shape)


def obs_boxes(task: str, space: Space) -> tuple[ObsBox, ...]:
    """Return the Box spaces that make up an observation space, in the order in which they are flattened.

    Raises:
        UserError: another kind of space, an image, no part, or two parts of the same name.
    """
    return _boxes(task, list(leaf_spaces(space)))


def _boxes(task: str, leaves: list[tuple[tuple[Any, ...], Space]]) -> tuple[ObsBox, ...]:
    names = [join_name(path) for path, _ in leaves]
    if not leaves or len(set(names)) < len(names):
        raise UserError(f"{task}: its observation space needs parts with distinct names, it has {names}.")
    boxes = [require_box(task, "observation", leaf, name) for name, (_, leaf) in zip(names, leaves, strict=True)]
    return tuple(ObsBox(path, box.shape) for (path, _), box in zip(leaves, boxes, strict=True))


def leaf_spaces(space: Space, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Space]]:
    """Yield the spaces in nested Dict and Tuple spaces with their paths, in the order of Gymnasium's `flatten`."""
    if not isinstance(space, Dict | Tuple):
        yield path, space
        return
    for key, subspace in space.spaces.items() if isinstance(space, Dict) else enumerate(space.spaces):
        yield from leaf_spaces(subspace, (*path, key))


def join_name(path: tuple[Any, ...]) -> str:
    """Return the name of a part of an observation, `outer/inner`; members of a Tuple are named by index."""
    return "/".join(map(str, path))


def named_parts(env: gymnasium.Env) -> tuple[tuple[str, int], ...]:
    """Return names and widths of the parts of an observation, as in `EnvSpec.obs_parts`.

    The parts are those of the Dict or Tuple space that a `FlattenObservation` wrapper flattens, if there is one.
    """
    space = _unflattened_space(env)
    leaves = leaf_spaces(space) if isinstance(space, Dict | Tuple) else ()
    return tuple((join_name(path), flatdim(leaf)) for path, leaf in leaves)


def _unflattened_space(env: gymnasium.Env) -> Space:
    """Return the space that `FlattenObservation` flattens, unless another wrapper above changes the space, too."""
    wrapper = env
    while isinstance(wrapper, gymnasium.Wrapper):
        if isinstance(wrapper, FlattenObservation):
            return wrapper.env.observation_space
        if wrapper.observation_space is not wrapper.env.observation_space:
            break
        wrapper = wrapper.env
    return env.observation_space
