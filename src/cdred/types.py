"""Types that all packages share: task specifications, trajectories, demonstrations, training segments."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, UInt8

if TYPE_CHECKING:
    # At run time it would import JAX, which processes that only step simulators do without.
    from jaxtyping import Array

Precision = Literal["float32", "tf32", "bfloat16"]
"""Precision of the inputs of matrix products."""

VectorizationMode = Literal["sync", "thread", "process"]
"""How the environments of a `VectorEnv` are stepped: in the calling thread, in threads, or in processes."""

PresetName = Literal["cpu", "paper", "debug"]
"""Name of a preset of all settings (`cdred.config.preset`)."""

TrackerName = Literal["tensorboard", "wandb", "trackio"]
"""Name of an experiment tracker (`cdred.loggers.trackers`)."""

LogFn = Callable[[str], None]
"""Function that shows the user a message of one or more lines."""

STACKED_IMAGES = 3
"""Successive camera images that an agent observes together, as in TD-MPC2 (arXiv 2310.16828)."""


class ImageObs(NamedTuple):
    """Observation with a camera image; batches stack along leading axes of both fields.

    Attributes:
        state: vector that is observed beside the image `[n]`; n = 0 without one.
        image: RGB image of an environment `[H, W, 3]`, or the last images `[K, H, W, 3]`, newest last, that an agent
            observes (K = `STACKED_IMAGES`). At the start of an episode the first one stands for those before it.
    """

    state: "Float[Any, '... n']"
    image: "UInt8[Any, '... H W 3']"


def map_obs(function: Callable[..., Any], *obs: Any) -> Any:
    """Apply a function to observations that are arrays, or field by field to observations with images."""
    if isinstance(obs[0], ImageObs):
        return ImageObs(*(function(*fields) for fields in zip(*obs, strict=True)))
    return function(*obs)


@dataclass(frozen=True)
class EnvSpec:
    """Specification of a task.

    Agents and the suite's adapter use actions in [-1, 1], which the adapter rescales to the environment's own bounds. A
    step is one action of the agent and lasts `action_repeat` simulator frames.

    Attributes:
        task: name of the task, e.g. `metaworld/drawer-close`, with its action repeat if that is not the suite's.
        obs_shape: shape of one observation, with images that of the vector beside them: `(0,)` without one.
        action_dim: number of action components A.
        episode_length: steps after which an episode is truncated.
        action_repeat: simulator frames per step.
        has_success: the task reports at each step if its goal is reached.
        can_terminate: episodes can terminate before the time limit.
        action_low: the environment's own lower bound of each action component; -1 if not given.
        action_high: its upper bounds; 1 if not given.
        obs_parts: names and widths of the parts that an observation is concatenated from; empty if it is one array.
        image_size: height and width of the camera images; None where none are observed.
        control_timestep: simulated seconds that a step lasts; None if unknown.
    """

    task: str
    obs_shape: tuple[int, ...]
    action_dim: int
    episode_length: int
    action_repeat: int = 1
    has_success: bool = False
    can_terminate: bool = False
    action_low: tuple[float, ...] = ()
    action_high: tuple[float, ...] = ()
    obs_parts: tuple[tuple[str, int], ...] = ()
    image_size: int | None = None
    control_timestep: float | None = None

    def __post_init__(self):
        object.__setattr__(self, "action_low", tuple(self.action_low) or (-1.0,) * self.action_dim)
        object.__setattr__(self, "action_high", tuple(self.action_high) or (1.0,) * self.action_dim)

    @property
    def action_bounds(self) -> tuple[Float64[np.ndarray, " A"], Float64[np.ndarray, " A"]]:
        """`action_low` and `action_high` as arrays."""
        return np.array(self.action_low, np.float64), np.array(self.action_high, np.float64)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of one camera image; only where images are observed."""
        assert self.image_size is not None, f"{self.task} has no images"
        return (self.image_size, self.image_size, 3)

    def zero_obs(self, *leading: int) -> "Float32[np.ndarray, '...'] | ImageObs":
        """Return observations of zeros as an agent gets them, with leading axes."""
        state = np.zeros((*leading, *self.obs_shape), np.float32)
        if self.image_size is None:
            return state
        return ImageObs(state, np.zeros((*leading, STACKED_IMAGES, *self.image_shape), np.uint8))


@dataclass(frozen=True)
class Trajectory:
    """Episode of T steps: T + 1 observations and T actions.

    `terminated` (a terminal state was reached) and `truncated` (a time limit was reached) describe the last transition.

    Attributes:
        obs: observations, including the final one.
        action: actions in [-1, 1], without components (A = 0) where only observations were recorded.
        reward: the environment's reward, by which returns are compared, never used by an imitation method; None if it
            was not recorded.
        terminated: the episode ended in a terminal state.
        truncated: the episode ended by a time limit.
        success: goal reached, per step; None where the task does not report it.
        seed: episode seed with which `Env.reset` reproduces the initial state; None if unknown.
        image: camera images, one per observation; None where none were recorded.
    """

    obs: Float32[np.ndarray, "T+1 *obs"]
    action: Float32[np.ndarray, "T A"]
    reward: Float32[np.ndarray, " T"] | None
    terminated: bool
    truncated: bool
    success: Bool[np.ndarray, " T"] | None = None
    seed: int | None = None
    image: UInt8[np.ndarray, "T+1 H W 3"] | None = None

    def __len__(self) -> int:
        return len(self.action)

    @property
    def episode_return(self) -> float | None:
        """Sum of the rewards; None if they are unknown."""
        return None if self.reward is None else float(self.reward.sum(dtype=np.float64))

    @property
    def success_once(self) -> bool | None:
        """Goal reached at any step; None if unknown."""
        return None if self.success is None else bool(self.success.any())

    @property
    def success_at_end(self) -> bool | None:
        """Goal reached at the last step; None if unknown."""
        return None if self.success is None else bool(self.success[-1])


@dataclass(frozen=True)
class DemoDataset(Sequence[Trajectory]):
    """Expert trajectories of one task, and their provenance."""

    task: str
    trajectories: tuple[Trajectory, ...]
    provenance: dict[str, object] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.trajectories)

    def __getitem__(self, index):
        return self.trajectories[index]

    @property
    def has_actions(self) -> bool:
        """True if all trajectories have actions, not only observations."""
        return all(trajectory.action.shape[1:] != (0,) for trajectory in self.trajectories)

    def take(self, num: int) -> "DemoDataset":
        """Return the first `num` trajectories."""
        return DemoDataset(self.task, self.trajectories[:num], self.provenance)


class Segment(NamedTuple):
    """H consecutive transitions of one episode; batches stack along leading axes.

    A terminated episode continues in an absorbing state, which no action leaves (arXiv 1809.02925): row t is
    `absorbing` if transition t - 1, or an earlier one, was terminated.

    `obs [H+1, *obs]` (meaningless where absorbing; an `ImageObs` with images), `action [H, A]`, `reward [H]`,
    `absorbing [H+1]`.
    """

    obs: "Float[Array, '...'] | ImageObs"
    action: "Float[Array, '... A']"
    reward: "Float[Array, '...']"
    absorbing: "Bool[Array, '...']"

    @property
    def has_actions(self) -> bool:
        """False where only observations were recorded: actions then have no components."""
        return self.action.shape[-1] > 0

    @property
    def start_obs(self) -> "Float[Array, '...'] | ImageObs":
        """Observations before the actions of a batch `[N, H, *obs]`."""
        return map_obs(lambda x: x[:, :-1], self.obs)

    @property
    def next_obs(self) -> "Float[Array, '...'] | ImageObs":
        """Observations after the actions of a batch `[N, H, *obs]`."""
        return map_obs(lambda x: x[:, 1:], self.obs)
