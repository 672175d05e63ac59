"""The vocabulary every room shares: what an episode is, what a world looks like, what one training example holds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32

if TYPE_CHECKING:
    # At run time it would import JAX, which processes that only step simulators do without.
    from jaxtyping import Array

Precision = Literal["float32", "tf32", "bfloat16"]
"""How the factors of a matrix product are rounded before they are multiplied."""

VectorizationMode = Literal["sync", "thread", "process"]
"""Who steps a grid's environments (`envs.workers.crew`)."""

LogFn = Callable[[str], None]
"""Takes a line, or a few, for whoever watches."""


@dataclass(frozen=True)
class EnvSpec:
    """What an agent needs to know of a task before it has seen it.

    Actions are always in [-1, 1]; the adapter rescales. A *step* is one action of the agent and lasts
    `action_repeat` simulator frames.

    Attributes:
        task: the name that made it, e.g. `metaworld/drawer-close`.
        obs_shape: shape of one observation.
        action_dim: number of action components A.
        episode_length: steps after which an episode is truncated.
        action_repeat: simulator frames per step.
        has_success: whether the task says of each step if its goal is reached.
        terminates: whether the world can end an episode before the clock does.
    """

    task: str
    obs_shape: tuple[int, ...]
    action_dim: int
    episode_length: int
    action_repeat: int = 1
    has_success: bool = False
    can_terminate: bool = False


@dataclass(frozen=True)
class Trajectory:
    """One episode of T steps: T + 1 observations, T actions.

    `terminated` (the world ended: no value beyond) and `truncated` (the clock ended: value beyond) describe the
    last transition and are kept apart.

    Attributes:
        obs: observations, the last one being the true final one.
        action: actions in [-1, 1]; with no component (A = 0) where only observations were recorded.
        reward: the environment's reward; evaluated, and learned from by TD-MPC2 alone, never by an imitation method.
        terminated: whether the world ended the episode.
        truncated: whether a time limit ended it.
        success: per step, whether the goal is reached; None where the task does not say.
        seed: episode seed with which `Env.reset` reproduces it; None if unknown.
    """

    obs: Float32[np.ndarray, "T+1 *obs"]
    action: Float32[np.ndarray, "T A"]
    reward: Float32[np.ndarray, " T"]
    terminated: bool
    truncated: bool
    success: Bool[np.ndarray, " T"] | None = None
    seed: int | None = None

    def __len__(self) -> int:
        return len(self.action)

    @property
    def episode_return(self) -> float:
        return float(self.reward.sum(dtype=np.float64))

    @property
    def success_once(self) -> bool:
        """Goal reached at any time (False where the task does not say)."""
        return self.success is not None and bool(self.success.any())

    @property
    def success_at_end(self) -> bool:
        """Goal reached at the last step (False where the task does not say)."""
        return self.success is not None and bool(self.success[-1])


@dataclass(frozen=True)
class DemoDataset(Sequence[Trajectory]):
    """Validated expert trajectories of one task, and where they came from."""

    task: str
    trajectories: tuple[Trajectory, ...]
    provenance: dict[str, object] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.trajectories)

    def __getitem__(self, index):
        return self.trajectories[index]

    @property
    def has_actions(self) -> bool:
        """Whether it says what was done, not only what was seen."""
        return all(one.action.shape[1:] != (0,) for one in self.trajectories)

    def take(self, num: int) -> "DemoDataset":
        """The first `num` trajectories."""
        return DemoDataset(self.task, self.trajectories[:num], self.provenance)


class Segment(NamedTuple):
    """H consecutive transitions of one episode; batches stack along leading axes.

    An episode that the world ended goes on in an absorbing state, which it never leaves and in which every action does
    the same (arXiv 1809.02925): row t is `absorbing` if transition t - 1 ended the world, or an earlier one.

    `obs [H+1, *obs]` (meaningless where absorbing), `action [H, A]`, `reward [H]`, `absorbing [H+1]`.
    """

    obs: "Float[Array, '...']"
    action: "Float[Array, '... A']"
    reward: "Float[Array, '...']"
    absorbing: "Bool[Array, '...']"
