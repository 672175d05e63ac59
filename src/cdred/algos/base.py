"""Interface between the training loop and an algorithm."""

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Generic, NamedTuple, TypeVar

import equinox as eqx
from jaxtyping import Array, Bool, Float, Key

from cdred.planning.mppi import MPPIState
from cdred.types import ImageObs, Segment

if TYPE_CHECKING:
    from cdred.algos.pretrain import Pretraining

Metrics = dict[str, Float[Array, ""]]
State = TypeVar("State")


class Selected(NamedTuple):
    """Segments of own episodes that were selected for imitation; meaningless unless `exist`."""

    segments: Segment
    exist: Bool[Array, ""]


class Batch(NamedTuple):
    """One update's batch: B segments of each replay buffer that the algorithm uses.

    `validation` is never trained on: it is for metrics. Updates are given it only where `uses_env` is False.
    `selected` is None without self-imitation.
    """

    expert: Segment | None
    agent: Segment | None
    validation: Segment | None = None
    selected: Selected | None = None

    @property
    def expert_with_actions(self) -> Segment | None:
        """The expert's segments; None without any, or without their actions."""
        return self.expert if self.expert is not None and self.expert.has_actions else None


class Algorithm(eqx.Module, Generic[State]):
    """Algorithm as pure functions of a state that only it interprets.

    All functions are for one seed (and `act` for one environment): the training loop vmaps. Implementations are final.

    Attributes:
        uses_env: learns from its own experience; otherwise `Batch.agent` is None, and the environment is stepped for
            evaluations only.
        pretraining: of the networks in `state.model`, before the first step; None without. With it, the state has
            fields `model` and `pretrained`.
    """

    uses_env: ClassVar[bool]
    pretraining: eqx.AbstractVar["Pretraining | None"]

    @property
    @abstractmethod
    def uses_demos(self) -> bool:
        """True for an algorithm that learns from demonstrations; otherwise `Batch.expert` is None."""

    @abstractmethod
    def init(self, key: Key[Array, ""]) -> State:
        """Initialise the state: networks, random targets, optimiser states, statistics."""

    @abstractmethod
    def init_plan(self) -> MPPIState:
        """Return the planner state at an episode's first step."""

    @abstractmethod
    def set_obs_stats(self, state: State, mean: Float[Array, " obs"], std: Float[Array, " obs"]) -> State:
        """Set the statistics of the observation normaliser, once, before the first update."""

    @abstractmethod
    def update(self, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        """Take one gradient step on one batch."""

    @abstractmethod
    def diagnostics(
        self, state: State, batch: Batch, recent: Segment, valid: Bool[Array, " N"], key: Key[Array, ""]
    ) -> Metrics:
        """Compute diagnostics that need no environment reward; empty for an algorithm that has none.

        Args:
            state: of one seed.
            batch: sampled as for an update; `validation`, where there is any, was not trained on.
            recent: N segments of the agent's most recent experience.
            valid: mask of the segments in `recent` that exist.
            key: of sampled actions.
        """

    @abstractmethod
    def act(
        self,
        state: State,
        plan: MPPIState,
        obs: Float[Array, "..."] | ImageObs,
        key: Key[Array, ""],
        explore: Bool[Array, ""],
    ) -> tuple[Float[Array, " A"], MPPIState]:
        """Choose the action for one observation, with or without exploration noise."""
