"""What the training loop asks of a method."""

from abc import abstractmethod
from typing import ClassVar, Generic, NamedTuple, TypeVar

import equinox as eqx
from jaxtyping import Array, Bool, Float, Key

from cdred.planning.mppi import MPPIState
from cdred.types import Segment

Metrics = dict[str, Float[Array, ""]]
State = TypeVar("State")


class Batch(NamedTuple):
    """What one update learns from: B segments of each store that the method has a use for.

    Nobody learns from `validation`: it is for early stopping, and for signs of health.
    """

    expert: Segment | None
    agent: Segment | None
    validation: Segment | None = None


class Algorithm(eqx.Module, Generic[State]):
    """A method: pure functions over a state that it alone understands.

    Everything is for one seed (and `act` for one environment): the loop vmaps. Implementations are final.

    Attributes:
        uses_demos: whether it learns from demonstrations; `Batch.expert` is None otherwise.
        uses_env: whether it learns from what it lives through; `Batch.agent` is None otherwise, and the environment is
            stepped for evaluations only.
        uses_validation_demos: whether it wants some demonstrations held out; `Batch.validation` is None otherwise.
    """

    uses_demos: ClassVar[bool]
    uses_env: ClassVar[bool] = True
    uses_validation_demos: ClassVar[bool] = False

    @abstractmethod
    def init(self, key: Key[Array, ""]) -> State:
        """A fresh learner: networks, fixed targets, optimisers, statistics."""

    @abstractmethod
    def init_plan(self) -> MPPIState:
        """What acting remembers at an episode's first step."""

    @abstractmethod
    def set_obs_stats(self, state: State, mean: Float[Array, " obs"], std: Float[Array, " obs"]) -> State:
        """The learner told, once and before its first update, how its observations are distributed."""

    @abstractmethod
    def update(self, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        """One gradient step on one batch."""

    def diagnostics(self, state: State, batch: Batch, newest: Segment, there: Bool[Array, " N"]) -> Metrics:
        """Signs of health that need no reward from the environment, as far as the method has them (docs/health.md).

        Args:
            state: of one seed.
            batch: drawn as for an update; `validation`, if any, is not learned from.
            newest: N of the agent's own segments, those that it has learned least from.
            there: which of them exist.
        """
        del state, batch, newest, there
        return {}

    @abstractmethod
    def act(
        self, state: State, plan: MPPIState, obs: Float[Array, "..."], key: Key[Array, ""], explore: Bool[Array, ""]
    ) -> tuple[Float[Array, " A"], MPPIState]:
        """The action for one observation, with exploration noise or without."""
