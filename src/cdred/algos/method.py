"""Methods: the losses of critics and reward model, and the reward used in planning. Agents are given one."""

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, Shaped

from cdred.algos.base import Batch, Metrics
from cdred.algos.reward_input import RewardInput, batch_input
from cdred.algos.reward_model import RewardModel
from cdred.models.actor_critic import ActorCritic
from cdred.nn.layers import Ensemble, SharedLatent
from cdred.types import ImageObs, Segment


class LatentBatch(NamedTuple):
    """Batch of N segments, the expert's half first, as the model encodes it.

    `latents` are z_0 .. z_H rolled out by the dynamics, `target_latents` the encodings h(s_1) .. h(s_H). Without a
    world model H is 1 and both are encodings. Where the expert's actions are unknown, `segments.action` has those of
    the agent only, and the expert's `latents` are encodings.
    """

    segments: Segment
    latents: Float[Array, "N T Z"]
    target_latents: Float[Array, "N H Z"]

    def state_actions(self, model: ActorCritic) -> Float[Array, "N H in"]:
        """Return x_t = (z_t, a_t) as critics see it."""
        return self.reward_inputs("state-action", model)

    @property
    def all_actions_known(self) -> bool:
        """False if the expert's actions are unknown."""
        return len(self.segments.action) == len(self.latents)

    def with_actions(self, values: Shaped[Array, "N ..."]) -> Shaped[Array, "M ..."]:
        """Return the rows of the segments with known actions: all, or without the expert's actions the agent's."""
        return values[-len(self.segments.action) :]

    def reward_inputs(self, kind: RewardInput, model: ActorCritic) -> Float[Array, "N H in"]:
        """Return the inputs x_t of a reward model of `kind`."""
        latents, target_latents = model.features(self.latents), model.features(self.target_latents)
        return batch_input(kind, latents, self.segments.action, target_latents)


class MethodLosses(NamedTuple):
    """Losses of critics and reward model on one batch, the reward per transition, and metrics."""

    critic_loss: Float[Array, ""]
    reward_loss: Float[Array, ""]
    reward: Float[Array, "N H"]
    metrics: Metrics


class TDParams(NamedTuple):
    """Constants of the value losses.

    Attributes:
        discount: gamma.
        rho: weight of a loss one transition further into a segment.
        entropy_coef: beta, the policy's entropy coefficient.
        target_entropy_coef: entropy coefficient in TD targets of learned rewards (0 in TD-MPC2).
    """

    discount: float
    rho: float
    entropy_coef: float
    target_entropy_coef: float


@runtime_checkable
class CriticState(Protocol):
    """Agent state as methods see it: networks, reward model (None for a method without one), target critics."""

    @property
    def model(self) -> ActorCritic: ...

    @property
    def reward(self) -> Any: ...

    @property
    def target_critics(self) -> Ensemble: ...


AnyCriticState = TypeVar("AnyCriticState", bound=CriticState)


class Method(eqx.Module):
    """Method: the object in which agents on the same networks differ. Implementations are final.

    Attributes:
        uses_demos: trains on demonstrations besides the agent's own data.
        has_warmup: critics and policy wait for `optim.reward_warmup_updates` updates of the reward model.
        scalar_critics: critics output one value instead of a two-hot distribution.
    """

    uses_demos: ClassVar[bool] = True
    has_warmup: ClassVar[bool] = True
    scalar_critics: ClassVar[bool] = False

    @property
    def reward_input(self) -> RewardInput:
        """What the reward model's input x is; of no effect for a method without one."""
        return "state-action"

    @abstractmethod
    def make_reward(self, input_dim: int, *, key: Key[Array, ""]) -> RewardModel | None:
        """Initialise the reward model of x with `input_dim` components; None for a method without one."""

    @abstractmethod
    def losses(self, state: CriticState, batch: LatentBatch, params: TDParams, key: Key[Array, ""]) -> MethodLosses:
        """Compute the losses of critics and reward model. `state` holds the parameters that are differentiated."""

    @abstractmethod
    def reward(
        self,
        state: CriticState,
        z: Float[Array, " Z"] | SharedLatent,
        action: Float[Array, " A"],
        next_z: Float[Array, " Z"],
        discount: float,
    ) -> Float[Array, ""]:
        """Compute the reward of (z, a) with predicted next latent `next_z`, for planning."""


def concat_batch(batch: Batch) -> Segment:
    """Concatenate the segments of both replay buffers, the expert's first; unknown actions are left out."""
    assert batch.agent is not None, "critics are trained on the agent's own data"
    if batch.expert is None:
        return batch.agent

    both = (batch.expert, batch.agent)
    action = jnp.concatenate([s.action for s in both]) if batch.expert.has_actions else batch.agent.action
    rest = jax.tree.map(lambda *xs: jnp.concatenate(xs), *(s._replace(action=()) for s in both))
    return rest._replace(action=action)


def encode_batch(
    model: ActorCritic, obs: Float[Array, "N T ..."] | ImageObs, absorbing: Bool[Array, "N T"]
) -> Float[Array, "N T Z"]:
    """Encode observations; where `absorbing`, return the absorbing latent."""
    latents = jax.vmap(jax.vmap(model.encode))(obs)
    return jnp.where(absorbing[..., None], model.absorbing_latent, latents)


def reward_metrics(reward: Float[Array, "N H"], uses_demos: bool) -> Metrics:
    """Compute the mean reward of the expert's and of the agent's transitions."""
    names = ("reward_expert", "reward_agent") if uses_demos else ("reward_agent",)
    return {name: jnp.mean(part) for name, part in zip(names, jnp.split(reward, len(names)), strict=True)}


def set_obs_stats(state: AnyCriticState, mean: Array, std: Array) -> AnyCriticState:
    """Set the observation normaliser's statistics; a model without one stays as it is."""
    if state.model.normalizer is None:
        return state
    return eqx.tree_at(lambda s: s.model.normalizer, state, state.model.normalizer.with_stats(mean, std))
