"""Interface of a single environment: seeded episodes, explicit resets, validated steps."""

from typing import NamedTuple, NoReturn, Protocol

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from cdred.errors import UserError
from cdred.types import EnvSpec, ImageObs

# Rewards are stored as float32; larger ones would become infinite.
FLOAT32_MAX = float(np.finfo(np.float32).max)


# Observation of an environment: a vector or array, or an image with or without a vector beside it.
Obs = Float32[np.ndarray, "*obs"] | ImageObs


class Step(NamedTuple):
    """Result of one step of one environment.

    Attributes:
        obs: next observation; on the last step of an episode the true final one.
        reward: sum of the rewards of the step's frames.
        terminated: the episode ended in a terminal state.
        truncated: the episode ended at its time limit.
        success: the goal was reached in any of the step's frames (False where the task does not report success).
    """

    obs: Obs
    reward: float
    terminated: bool
    truncated: bool
    success: bool


class VectorStep(NamedTuple):
    """Result of one step of S x E environments; fields as in `Step`.

    Where `invalid` holds, the simulator failed and the episode was aborted: no transition took place (`obs` is the
    observation before the step, the reward is 0) and the environment must be reset.
    """

    obs: Float32[np.ndarray, "S E *obs"] | ImageObs
    reward: Float32[np.ndarray, "S E"]
    terminated: Bool[np.ndarray, "S E"]
    truncated: Bool[np.ndarray, "S E"]
    success: Bool[np.ndarray, "S E"]
    invalid: Bool[np.ndarray, "S E"]

    @property
    def done(self) -> Bool[np.ndarray, "S E"]:
        """Episodes that ended with this step, terminated or truncated."""
        return self.terminated | self.truncated

    @property
    def needs_reset(self) -> Bool[np.ndarray, "S E"]:
        """Environments without a running episode: done or aborted."""
        return self.terminated | self.truncated | self.invalid


class Env(Protocol):
    """A simulator that runs one episode at a time.

    The seed alone determines an episode: the same seed and the same actions give bitwise identical observations,
    independent of the episodes that the instance ran before, and in other processes as well. `VectorEnv.restore`
    relies on this.
    """

    @property
    def spec(self) -> EnvSpec:
        """Shapes, episode length and action repeat of the task."""
        ...

    def reset(self, seed: int) -> Obs:
        """Start the episode of `seed` (0 <= seed < 2**32) and return its first observation."""
        ...

    def step(self, action: Float32[np.ndarray, " A"]) -> Step:
        """Take one step; components of `action` outside [-1, 1] are clipped.

        Raises:
            Exception: as `validate_step`, or any exception of the simulator.
        """
        ...

    def render(self) -> UInt8[np.ndarray, "H W 3"]:
        """Return the current frame, upright, RGB.

        Raises:
            UserError: this machine cannot render, or the task does not support rendering.
        """
        ...

    def close(self) -> None:
        """Free the simulator's resources; the instance cannot be used afterwards."""
        ...


def validate_step(spec: EnvSpec, step: Step) -> Step:
    """Return `step` unchanged if it conforms to `spec`.

    Raises:
        FloatingPointError: the observation or the reward is not finite in float32.
        ValueError: the observation has a wrong shape, or `success` is not a boolean.
        RuntimeError: the step is terminal although `spec.can_terminate` is False.
    """
    if step.terminated and not spec.can_terminate:
        raise RuntimeError(f"{spec.task}: the simulator terminated an episode, but its spec has can_terminate=False")
    validate_obs(spec, step.obs)
    if not abs(step.reward) <= FLOAT32_MAX:
        raise FloatingPointError(f"{spec.task}: the simulator returned reward {step.reward}, expected a finite float32")
    if step.success not in (0, 1):
        raise ValueError(f"{spec.task}: the simulator returned success {step.success!r}, expected True or False")
    return step


def validate_obs(spec: EnvSpec, obs: Obs) -> Obs:
    """Return `obs` unchanged if it conforms to `spec`.

    Raises:
        FloatingPointError: it is not finite.
        ValueError: its shape is not `spec.obs_shape`, or its image is missing, of another shape, or not of uint8.
    """
    state = obs
    if spec.image_size is not None:
        if not isinstance(obs, ImageObs):
            raise ValueError(f"{spec.task}: the simulator returned {type(obs).__name__}, expected an ImageObs")
        state, image = obs
        if np.shape(image) != spec.image_shape or image.dtype != np.uint8:
            raise ValueError(
                f"{spec.task}: the simulator returned an image of shape {np.shape(image)} and type {image.dtype}, "
                f"expected {spec.image_shape} and uint8"
            )
    if np.shape(state) != spec.obs_shape:
        raise ValueError(
            f"{spec.task}: the simulator returned an observation of shape {np.shape(state)}, expected {spec.obs_shape}"
        )
    if not np.isfinite(state).all():
        raise FloatingPointError(f"{spec.task}: the simulator returned a non-finite observation")
    return obs


def check_ready(needs_reset: Bool[np.ndarray, "S E"]) -> None:
    """Raise RuntimeError if an environment has no running episode."""
    if needs_reset.any():
        raise RuntimeError(f"step before reset: no running episode in slots {np.argwhere(needs_reset).tolist()}")


def check_actions(action: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless `action` is finite and of the given shape."""
    if action.shape != shape or not np.isfinite(action).all():
        raise ValueError(f"expected finite actions of shape {shape}, got {action.shape}: {action}")


def raise_render_error(task: str, cause: Exception) -> NoReturn:
    """Report a failed render with a hint.

    Raises:
        UserError: always, from `cause`.
    """
    raise UserError(
        f"{task} cannot be rendered on this machine ({type(cause).__name__}: {cause}). "
        "MuJoCo needs OpenGL, by the library that MUJOCO_GL names: `cdred doctor` shows which can render, and what to "
        "install or set."
    ) from cause


def resize_nearest(frame: UInt8[np.ndarray, "H W 3"], size: int | None) -> UInt8[np.ndarray, "h w 3"]:
    """Resize `frame` to `size` x `size` by nearest neighbour; None leaves it unchanged."""
    if size is None:
        return frame
    rows, columns = (np.arange(size) * side // size for side in frame.shape[:2])
    return np.ascontiguousarray(frame[rows[:, None], columns])
