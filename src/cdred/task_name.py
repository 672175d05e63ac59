"""Names of tasks: `<suite>/<name>`, then parameters that differ from the suite's: `?repeat=1&obs=pixels&size=32`.

- `repeat`: simulator frames per step.
- `mass`, `friction`: factors of all masses and of all friction coefficients.
- `obs`: `pixels`, camera images in place of the suite's observation, or `both`, images beside it.
- `size`: height and width of the images.

A task has one name: parameters are in this order, and none states a default.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

from cdred.errors import UserError

ObsKind = Literal["state", "pixels", "both"]
"""Kind of an observation: the suite's own, which no name states, images, and both."""

REPEAT, MASS, FRICTION, OBS, SIZE = "repeat", "mass", "friction", "obs", "size"
KEYS = (REPEAT, MASS, FRICTION, OBS, SIZE)
IMAGE_SIZE = 64


class PhysicsFactors(NamedTuple):
    """Factors of all masses and of all friction coefficients of a simulator."""

    mass: float = 1.0
    friction: float = 1.0


PLAIN_PHYSICS = PhysicsFactors()


def split_parameters(task: str) -> tuple[str, str]:
    """Split a task's name into the part before the question mark and the part after it, which may be empty."""
    name, _, parameters = task.partition("?")
    return name, parameters


def parameters_of(task: str) -> dict[str, str]:
    """Return the parameters that a task's name states, unchecked; the value of one without `=` is empty."""
    parts = split_parameters(task)[1]
    pairs = (part.partition("=") for part in parts.split("&")) if parts else ()
    return {key: value for key, _, value in pairs}


def with_parameters(task: str, changes: Mapping[str, object | None]) -> str:
    """Return the name of a task with other parameters; None removes one."""
    name, parameters = split_parameters(task)[0], parameters_of(task) | dict(changes)
    stated = "&".join(f"{key}={parameters[key]}" for key in KEYS if parameters.get(key) is not None)
    return f"{name}?{stated}" if stated else name


def with_repeat(task: str, action_repeat: int, default: int | None = None) -> str:
    """Return the name of a task at an action repeat, in place of the one that it names; plain at the `default`."""
    return with_parameters(task, {REPEAT: None if action_repeat == default else action_repeat})


def with_physics(task: str, factors: PhysicsFactors) -> str:
    """Return the name of a task with other factors of masses and friction coefficients."""
    stated = {MASS: factors.mass, FRICTION: factors.friction}
    return with_parameters(task, {key: None if value == 1.0 else f"{value:g}" for key, value in stated.items()})


def with_obs(task: str, obs: str, size: int = IMAGE_SIZE) -> str:
    """Return the name of a task with another kind of observation, of `ObsKind`, and size of its images."""
    images = obs != "state"
    return with_parameters(task, {OBS: obs if images else None, SIZE: size if images and size != IMAGE_SIZE else None})


def has_images(task: str) -> bool:
    """Return True if a task's name states that images are observed."""
    return OBS in parameters_of(task)


def repeat_of(task: str) -> int | None:
    """Return the action repeat that a task's name states; None if it states none, which is the suite's."""
    value = parameters_of(task).get(REPEAT, "")
    return int(value) if value.isascii() and value.isdecimal() else None


def reconcile_obs(task: str, obs: ObsKind, size: int) -> tuple[str, Any, int]:
    """Return a task's name and the options for its observations, so that they agree.

    Args:
        task: its name, which may state a kind of observation and a size; may be empty.
        obs: the kind that is asked for; `state`, the default, leaves the choice to the name.
        size: the height and width of images; `IMAGE_SIZE`, the default, leaves the choice to the name.

    Raises:
        UserError: they contradict each other.
    """
    stated = parameters_of(task)
    if OBS not in stated:
        if obs == "state" and size != IMAGE_SIZE:
            raise UserError(f"--image-size {size} is that of camera images: give --obs pixels or --obs both, too.")
        return with_obs(task, obs, size) if task else task, obs, size
    named, named_size = stated[OBS], stated.get(SIZE, str(IMAGE_SIZE))
    if named not in get_args(ObsKind) or not named_size.isdecimal():
        # `envs.registry` reports it.
        return task, obs, size
    if obs not in ("state", named) or size not in (IMAGE_SIZE, int(named_size)):
        raise UserError(f"--obs {obs} --image-size {size} contradicts the task's name, {task}.")
    return task, named, int(named_size)
