"""Trained agent: actions for observations."""

from typing import Literal, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, PyTree, UInt8

from cdred.action_units import ACTION_TOLERANCE, denormalize_actions, normalize_actions, round_inwards
from cdred.algos.base import Algorithm
from cdred.algos.pretrain import CANDIDATES
from cdred.algos.world_model_agent import WorldModelAgent
from cdred.config import RunConfig
from cdred.errors import UserError
from cdred.train.keys import EVALUATE, seed_keys
from cdred.types import STACKED_IMAGES, EnvSpec, ImageObs, map_obs

ActsBy = Literal["planner", "policy", "pretrained policy"]
_ACTS_BY_TEXT: dict[ActsBy, str] = {
    "planner": "MPPI planning",
    "policy": "its policy",
    "pretrained policy": "the pretrained policy",
}


class Agent:
    """Agent of one seed with the state of its planner.

    Args:
        algorithm: the algorithm.
        learner: its state, of one seed.
        spec: the task.
        seed: seed of the planner's randomness.
        algo: name of the algorithm, for `repr`.
    """

    def __init__(self, algorithm: Algorithm, learner: PyTree, spec: EnvSpec, seed: int = 0, algo: str = ""):
        self.spec, self._algorithm, self._learner = spec, algorithm, learner
        self._seed, self._algo = seed, algo or type(algorithm).__name__
        self._key = seed_keys((seed,), EVALUATE)[0]
        self._act = eqx.filter_jit(jax.vmap(algorithm.act, in_axes=(None, 0, 0, 0, None)))
        if isinstance(algorithm, WorldModelAgent):
            self._reward = eqx.filter_jit(jax.vmap(algorithm.reward_at, in_axes=(None, 0, 0)))
        self.reset()

    def reset(self) -> Self:
        """Discard the last plan and images; call it at the start of every episode."""
        self._plan, self._images, self._steps = None, None, 0
        return self

    def warm_up(self, batch: int | None = None) -> Self:
        """Compile `act` ahead, so that its first call takes no longer than the others; nothing else changes.

        Args:
            batch: number of observations per call; None for a single one.

        Raises:
            UserError: `batch` is below 1.
        """
        if batch is not None and batch < 1:
            raise UserError(f"batch must be at least 1, got {batch}.")
        num = batch or 1
        keys, obs = jax.random.split(self._key, num), map_obs(jnp.asarray, self.spec.zero_obs(num))
        _, plan = self._act(self._learner, self._initial_plan(num), obs, keys, jnp.array(False))
        # From the second step on, the plan is one that was returned, for which JAX may compile another program.
        jax.block_until_ready(self._act(self._learner, plan, obs, keys, jnp.array(False)))
        return self

    def __repr__(self) -> str:
        how = _ACTS_BY_TEXT[acts_by(self._algorithm, self._learner)]
        return f"<Agent of {self.spec.task} by {self._algo}, seed {self._seed}, acts by {how}>"

    def act(
        self, obs: Float[np.ndarray, "..."] | ImageObs, *, explore: bool = False, normalized: bool = False
    ) -> Float32[np.ndarray, "..."]:
        """Compute actions in the environment's own units, as its `step` expects them.

        Args:
            obs: an observation `[*obs]`, or a batch `[B, *obs]` of one observation per environment. For a task with
                images it is the current image `[H, W, 3]`, uint8, or `ImageObs(state, image)` if a vector is observed
                beside it; the agent remembers the images before it.
            explore: add exploration noise.
            normalized: return actions in [-1, 1] instead, the units of demonstrations.

        Returns:
            The action `[A]`, or actions `[B, A]`.

        Raises:
            UserError: the observation has another shape or type than the task's or is not finite, or B changed since
                the last `reset`.
        """
        batch, batched = self._batch(obs) if self.spec.image_size is None else self._image_batch(obs)
        num = len(jax.tree.leaves(batch)[0])
        plan = self._plan_for(num)
        if isinstance(batch, ImageObs):
            batch = batch._replace(image=self._stack(batch.image))
        keys = jax.random.split(jax.random.fold_in(self._key, self._steps), num)
        action, self._plan = self._act(self._learner, plan, map_obs(jnp.asarray, batch), keys, jnp.array(explore))
        self._steps += 1
        action = np.asarray(action) if normalized else self._to_env_units(np.asarray(action))
        return action if batched else action[0]

    def _batch(self, obs: Float[np.ndarray, "..."] | ImageObs) -> tuple[Float32[np.ndarray, "B *obs"], bool]:
        """Return observations as a batch, and if they were one."""
        if isinstance(obs, ImageObs):
            raise UserError(f"{self.spec.task} is observed without images: act on the vector alone.")
        obs = self._finite(obs, "observation")
        batched = obs.ndim > len(self.spec.obs_shape)
        batch = obs if batched else obs[None]
        if batch.shape[1:] != self.spec.obs_shape:
            raise UserError(f"expected an observation of shape {self.spec.obs_shape} (or a batch), got {obs.shape}.")
        return batch, batched

    def _image_batch(self, obs: np.ndarray | ImageObs) -> tuple[ImageObs, bool]:
        """Return observations with one image each as a batch, and if they were one."""
        if not isinstance(obs, ImageObs):
            if self.spec.obs_shape != (0,):
                raise UserError(f"{self.spec.task} is observed by cdred.ImageObs(state, image), got one array.")
            obs = ImageObs(np.zeros((*np.shape(obs)[:-3], 0), np.float32), np.asarray(obs))
        image, shape = np.asarray(obs.image), self.spec.image_shape
        if image.shape[-3:] != shape or image.ndim not in (3, 4) or image.dtype != np.uint8:
            raise UserError(
                f"expected an image of shape {shape} (or a batch) and type uint8, channels last, got {image.shape} "
                f"and {image.dtype}."
            )
        batched = image.ndim == 4
        state, state_batched = self._batch(obs.state)
        if state_batched != batched or len(state) != (len(image) if batched else 1):
            raise UserError(f"expected as many images as vectors, got shapes {image.shape} and {np.shape(obs.state)}.")
        return ImageObs(state, image if batched else image[None]), batched

    def _stack(self, image: UInt8[np.ndarray, "B H W 3"]) -> UInt8[np.ndarray, "B K H W 3"]:
        """Append an image to the last ones, which in the first step of an episode it stands for."""
        newest = image[:, None]
        if self._images is None:
            self._images = np.repeat(newest, STACKED_IMAGES, axis=1)
        else:
            self._images = np.concatenate([self._images[:, 1:], newest], axis=1)
        return self._images

    def reward(
        self, obs: Float[np.ndarray, "B *obs"], action: Float[np.ndarray, "B A"], *, normalized: bool = False
    ) -> Float32[np.ndarray, " B"]:
        """Compute the learned reward of actions, as the planner does.

        Args:
            obs: observations.
            action: actions in the environment's own units.
            normalized: the actions are in [-1, 1] instead, as those of demonstrations are.

        Raises:
            UserError: the algorithm has no world model, the task has images, or the arrays have other shapes than the
                task's, are not finite, or have actions outside the bounds.
        """
        if not isinstance(self._algorithm, WorldModelAgent):
            raise UserError("Agent.reward needs an algorithm with a world model; this run has none.")
        if self.spec.image_size is not None:
            raise UserError(f"Agent.reward takes vectors, but {self.spec.task} has images.")
        expected = (self.spec.obs_shape, (self.spec.action_dim,))
        obs, action = self._finite(obs, "observation"), self._finite(action, "action")
        if (obs.shape[1:], action.shape[1:]) != expected or len(obs) != len(action):
            raise UserError(f"expected [B, ...] arrays of {expected}, got {obs.shape} and {action.shape}.")
        if not normalized:
            action = self._normalize(action)
        return np.asarray(self._reward(self._learner, jnp.asarray(obs), jnp.asarray(action)))

    @staticmethod
    def _finite(values: np.ndarray, name: str) -> Float32[np.ndarray, "..."]:
        values = np.asarray(values, np.float32)
        if not np.isfinite(values).all():
            index = tuple(map(int, np.argwhere(~np.isfinite(values))[0]))
            raise UserError(f"the {name} is not finite: element {list(index)} is {values[index]}.")
        return values

    def _to_env_units(self, action: Float32[np.ndarray, "*batch A"]) -> Float32[np.ndarray, "*batch A"]:
        low, high = self.spec.action_bounds
        return round_inwards(denormalize_actions(action, low, high), low, high)

    def _normalize(self, action: Float32[np.ndarray, "B A"]) -> Float32[np.ndarray, "B A"]:
        low, high = self.spec.action_bounds
        # Bounds that float32 cannot represent are exceeded by rounding.
        tolerance = ACTION_TOLERANCE * (high - low)
        if (action < low - tolerance).any() or (action > high + tolerance).any():
            raise UserError(
                f"actions reach from {action.min():.6g} to {action.max():.6g}, but the bounds of {self.spec.task} are "
                f"{low.tolist()} to {high.tolist()}."
            )
        return normalize_actions(action, low, high)

    def _plan_for(self, num_envs: int) -> PyTree:
        if self._plan is None:
            return self._initial_plan(num_envs)
        previous = jax.tree.leaves(self._plan)[0].shape[0]
        if previous != num_envs:
            raise UserError(
                f"the last call had {previous} environments, this one has {num_envs}: call reset() in between."
            )
        return self._plan

    def _initial_plan(self, num_envs: int) -> PyTree:
        initial = self._algorithm.init_plan()
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (num_envs, *x.shape)), initial)


def acts_by(algorithm: Algorithm, learner: PyTree) -> ActsBy:
    """Return what computes the actions of a learner of one seed without exploration."""
    chosen = CANDIDATES[int(learner.pretrained.acting)] if algorithm.pretraining else "agent"
    if chosen == "pretrained":
        return "pretrained policy"
    return "planner" if chosen == "agent" and getattr(algorithm, "plan_actions", False) else "policy"


def select_seed(learner: PyTree, config: RunConfig, seed: int | None) -> tuple[PyTree, int]:
    """Select the learner of one seed of a run, by default of the first one.

    Raises:
        UserError: the run has no such seed.
    """
    seed = config.seeds[0] if seed is None else seed
    if seed not in config.seeds:
        raise UserError(f"this run has the seeds {list(config.seeds)}, not {seed}.")
    return jax.tree.map(lambda x: x[config.seeds.index(seed)], learner), seed
