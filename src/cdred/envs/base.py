"""What every simulator looks like from inside: one episode at a time, told by its seed, never reset unasked."""

from typing import NamedTuple, NoReturn, Protocol

import numpy as np
from jaxtyping import Float32, UInt8

from cdred.errors import UserError
from cdred.types import EnvSpec

# A reward beyond it would be infinite where it is stored.
LARGEST = float(np.finfo(np.float32).max)


class Step(NamedTuple):
    """What one step led to.

    Attributes:
        obs: the observation after it; on an episode's last step the true final one.
        reward: summed over the step's frames.
        terminated: the world ended the episode.
        truncated: the clock ended it.
        success: the goal was reached in any of the step's frames (False where the task does not say).
    """

    obs: Float32[np.ndarray, "*obs"]
    reward: float
    terminated: bool
    truncated: bool
    success: bool


class Env(Protocol):
    """One simulator, running one episode at a time.

    The seed alone determines an episode: the same seed and the same actions give bit-identical observations, whatever
    the instance has lived through before, and in another process as well. `VectorEnv.restore` rests on this.
    """

    @property
    def spec(self) -> EnvSpec:
        """Shapes, episode length and action repeat of the task."""
        ...

    def reset(self, seed: int) -> Float32[np.ndarray, "*obs"]:
        """Start the episode of `seed` (0 <= seed < 2**32) and return its first observation."""
        ...

    def step(self, action: Float32[np.ndarray, " A"]) -> Step:
        """Take one step; components of `action` outside [-1, 1] are clipped.

        Raises:
            Exception: as `checked`, or whatever the simulator raises.
        """
        ...

    def render(self) -> UInt8[np.ndarray, "H W 3"]:
        """The current frame, upright, RGB.

        Raises:
            UserError: this machine cannot render, or the task has no picture.
        """
        ...

    def close(self) -> None:
        """Free what the simulator holds; the instance is of no use afterwards."""
        ...


def checked(spec: EnvSpec, step: Step) -> Step:
    """`step` itself.

    Raises:
        FloatingPointError: its observation or reward is not finite as float32.
        ValueError: its observation has another shape than the spec's, or its success is neither true nor false.
        RuntimeError: it ends a world that by its spec cannot end.
    """
    if step.terminated and not spec.can_terminate:
        raise RuntimeError(f"{spec.task}: the simulator terminated an episode, though its spec says terminates=False")
    checked_obs(spec, step.obs)
    if not abs(step.reward) <= LARGEST:
        raise FloatingPointError(f"{spec.task}: the simulator returned reward {step.reward}")
    if step.success not in (0, 1):
        raise ValueError(f"{spec.task}: the simulator returned success {step.success!r}, neither true nor false")
    return step


def checked_obs(spec: EnvSpec, obs: Float32[np.ndarray, "*obs"]) -> Float32[np.ndarray, "*obs"]:
    """`obs` itself.

    Raises:
        FloatingPointError: it is not finite.
        ValueError: it has another shape than the spec's.
    """
    if np.shape(obs) != spec.obs_shape:
        raise ValueError(
            f"{spec.task}: the simulator returned an observation of shape {np.shape(obs)}, not {spec.obs_shape}"
        )
    if not np.isfinite(obs).all():
        raise FloatingPointError(f"{spec.task}: the simulator returned an observation that is not finite")
    return obs


def raise_render_error(task: str, cause: Exception) -> NoReturn:
    """Explain a failed render.

    Raises:
        UserError: always, from `cause`.
    """
    raise UserError(
        f"{task} cannot be rendered on this machine ({type(cause).__name__}: {cause}). "
        "MuJoCo needs OpenGL: on a machine without a display set MUJOCO_GL=egl (or osmesa) before starting."
    ) from cause


def resize_nearest(frame: UInt8[np.ndarray, "H W 3"], size: int | None) -> UInt8[np.ndarray, "h w 3"]:
    """`frame` sampled to `size` x `size` by nearest neighbour; as it is where `size` is None."""
    if size is None:
        return frame
    rows, columns = (np.arange(size) * side // size for side in frame.shape[:2])
    return np.ascontiguousarray(frame[rows[:, None], columns])
