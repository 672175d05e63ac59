"""Compiled functions of a run, each over a leading axis of S seeds, and the checks that their results are finite.

Randomness is a function of a seed's key and a counter of steps or updates (`train.keys`).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Float32, Int, Key, PyTree

from cdred.algos.base import Algorithm, Batch, Selected
from cdred.algos.pretrain import DemoRows, PretrainState
from cdred.data.replay_buffer import ReplayBuffer, Transition
from cdred.errors import DivergenceError
from cdred.planning.mppi import MPPIState
from cdred.train.devices import REPLICATED, SEEDS, shard_map_seeds
from cdred.types import Segment

# For what runs once: half the compile time of the default, and the same results.
FAST_COMPILATION = {"xla_backend_optimization_level": 1}
HINT = "The last checkpoint is finite. Try a smaller --optim.learning-rate or --optim.grad-clip-norm."


class FiniteCheck(NamedTuple):
    """NaN/inf check of one `learn` call, per seed.

    Attributes:
        finite: every metric of every update is finite, and so is the learner after the last one.
        finite_updates: per metric, the number of updates before its first non-finite value.
        last_finite_metrics: metrics of the update before the first non-finite value; of the last update if all are
            finite.
        parameter_abs_max: largest absolute value in the learner, optimizer states and EMAs included.
    """

    finite: Bool[Array, "..."]
    finite_updates: dict[str, Int[Array, "..."]]
    last_finite_metrics: dict[str, Float[Array, "..."]]
    parameter_abs_max: Float[Array, "..."]


class Divergence(NamedTuple):
    """Description of a non-finite value, and the last finite metrics before it."""

    text: str
    metrics: dict[str, float]


NON_FINITE_ACTION = Divergence("planning found no finite action, although the learner is finite", {})


def check_finite(learner: PyTree, metrics: dict[str, Float[Array, " K"]]) -> FiniteCheck:
    """Check the metrics of K updates and the learner after them, for one seed."""
    finite_updates = {name: jnp.sum(jnp.cumprod(jnp.isfinite(x).astype(jnp.int32))) for name, x in metrics.items()}
    first = jnp.min(jnp.stack(list(finite_updates.values())))
    last_finite = {name: x[jnp.maximum(first - 1, 0)] for name, x in metrics.items()}
    leaves = jax.tree.leaves(eqx.filter(learner, eqx.is_inexact_array))
    abs_max = jnp.max(jnp.stack([jnp.max(jnp.abs(x)) for x in leaves]))
    (updates,) = next(iter(metrics.values())).shape
    return FiniteCheck((first == updates) & jnp.isfinite(abs_max), finite_updates, last_finite, abs_max)


def finite_rows(action: Float32[np.ndarray, "S E A"]) -> Bool[np.ndarray, " S"]:
    """Find the seeds with finite actions only."""
    return np.asarray(np.isfinite(action).all(axis=(1, 2)))


def require_finite_actions(finite: Bool[np.ndarray, " S"], seeds: tuple[int, ...], where: str) -> None:
    """Raise DivergenceError if `finite` does not hold for all seeds."""
    for row in np.flatnonzero(~finite):
        raise DivergenceError(f"seed {seeds[row]}, {where}: {NON_FINITE_ACTION.text}.\n{HINT}")


class CompiledFns:
    """Jitted functions of an algorithm. `act` and `learn` compile once each.

    `init_fn`, `act_fn` and `learn_fn` are the functions that they compile, for other compiled programs to call, or for
    the shapes of their results.

    Args:
        algorithm: the algorithm.
        horizon: transitions per training segment, H.
        batch_size: segments per update and replay buffer.
        updates_per_call: gradient steps per `learn` call.
        episode_length: steps after which an episode is truncated.
        mesh: devices to shard the seeds over; None for the default device.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        *,
        horizon: int,
        batch_size: int,
        updates_per_call: int,
        episode_length: int,
        mesh: Mesh | None = None,
    ):
        self.algorithm, self.horizon, self.batch_size = algorithm, horizon, batch_size
        self.updates_per_call, self.episode_length, self.mesh = updates_per_call, episode_length, mesh

        def compiled(function, *in_specs, donate: tuple[int, ...] = (), options: dict[str, Any] | None = None):
            function = shard_map_seeds(function, mesh, in_specs)
            return jax.jit(function, donate_argnums=donate, compiler_options=options)

        self.init_fn = jax.vmap(algorithm.init)
        self.init = compiled(self.init_fn, SEEDS, options=FAST_COMPILATION)
        act_specs = (SEEDS, SEEDS, SEEDS, SEEDS, SEEDS, REPLICATED, REPLICATED)
        self.act = compiled(self.act_fn, *act_specs, donate=(1,))
        self.act_pretrained = compiled(partial(self.act_fn, pretrained=True), *act_specs, donate=(1,))
        self.learn = compiled(self.learn_fn, SEEDS, SEEDS, REPLICATED, SEEDS, REPLICATED, REPLICATED, donate=(0,))
        self.init_pretraining = compiled(self._init_pretraining, SEEDS)
        self.pretrain = compiled(self._pretrain, SEEDS, REPLICATED, SEEDS, REPLICATED, donate=(0,))
        self.finish_pretraining = compiled(self._finish_pretraining, SEEDS, SEEDS, REPLICATED)
        self.distance_from_ends = compiled(self._distance_from_ends, SEEDS, SEEDS)
        self.set_acting = compiled(_set_acting, SEEDS, SEEDS)
        self.set_obs_stats = compiled(self._set_obs_stats, SEEDS, SEEDS, REPLICATED, donate=(0,))
        self.diagnose = compiled(self._diagnose, SEEDS, SEEDS, REPLICATED, SEEDS, REPLICATED, REPLICATED)
        self.select_seeds = compiled(_select_seeds, SEEDS, SEEDS, SEEDS, donate=(2,))
        self.add_to_replay = compiled(self.add_to_replay_fn, SEEDS, SEEDS, SEEDS, donate=(0,))

    def init_plan(self, num_seeds: int, num_envs: int) -> MPPIState:
        """Make the planner states of [S, E] environments at the first step of an episode."""
        plan = self.algorithm.init_plan()
        return jax.tree.map(lambda x: jnp.zeros((num_seeds, num_envs, *x.shape), x.dtype) + x[None, None], plan)

    def act_fn(
        self,
        learner,
        plan: MPPIState,
        obs: Float[Array, "S E ..."],
        is_first: Bool[Array, "S E"],
        keys: Key[Array, " S"],
        counter: Int[Array, ""],
        explore: Bool[Array, ""],
        *,
        pretrained: bool = False,
    ) -> tuple[Float[Array, "S E A"], MPPIState]:
        """Compute the actions of all environments of all seeds; plans start from scratch where `is_first` holds.

        With `pretrained` the pretrained policy acts; one draw of its noise serves `noise_hold` steps.
        """
        pretraining = self.algorithm.pretraining if pretrained else None
        if pretraining is not None:
            counter = counter // (obs.shape[1] * pretraining.config.noise_hold)

        def act_env(learner, plan, obs, is_first, key):
            initial = self.algorithm.init_plan()
            plan = jax.tree.map(lambda new, old: jnp.where(is_first, new, old), initial, plan)
            if pretraining is not None:
                return pretraining.act(learner.model, learner.pretrained, obs, key, explore), plan
            return self.algorithm.act(learner, plan, obs, key, explore)

        def act_seed(learner, plan, obs, is_first, key):
            env_keys = jax.random.split(jax.random.fold_in(key, counter), obs.shape[0])
            return jax.vmap(partial(act_env, learner))(plan, obs, is_first, env_keys)

        return jax.vmap(act_seed)(learner, plan, obs, is_first, keys)

    def add_to_replay_fn(self, replay: ReplayBuffer, block: Transition, learner) -> ReplayBuffer:
        """Add a block of steps `[S, time, E, ...]`; with pretraining, select the detected successes."""

        def add(replay: ReplayBuffer, block: Transition, learner) -> ReplayBuffer:
            replay = replay.add(block)
            if self.algorithm.pretraining is None:
                return replay
            pretrained = learner.pretrained
            # All rows of the episodes that end in this block.
            steps, absorbing_rows = block.action.shape[0], 2 + replay.num_absorbing
            rows = replay.recent_rows(steps * absorbing_rows + self.episode_length + absorbing_rows)

            def detect(obs, absorbing, step, final):
                latents = jax.vmap(partial(pretrained.encode, learner.model))(obs)
                return pretrained.detector.detect(latents, step, absorbing, final)

            parts = (replay.obs, replay.absorbing, replay.episode_step, replay.final_rows())
            return replay.select(rows, jax.vmap(detect)(*(jax.vmap(lambda x, r: x[r])(x, rows) for x in parts)))

        return jax.vmap(add)(replay, block, learner)

    def _init_pretraining(self, learner) -> PretrainState:
        assert self.algorithm.pretraining is not None
        return jax.vmap(self.algorithm.pretraining.init)(learner.model)

    def _pretrain(
        self, state: PretrainState, expert: ReplayBuffer, keys: Key[Array, " S"], counter: Int[Array, ""]
    ) -> tuple[PretrainState, dict[str, Float[Array, " S"]]]:
        """Take `updates_per_call` updates of pretraining; return the new state and the means of the metrics."""
        pretraining, sample = self.algorithm.pretraining, self._sampler(expert)
        assert pretraining is not None

        def update(state, keys):
            sample_key, noise_key = keys
            segments = sample(sample_key)
            assert segments is not None
            return pretraining.update(state, segments, noise_key)

        def pretrain_seed(state, key):
            key = jax.random.fold_in(key, counter)
            # Noise has keys of its own, so that it does not change which segments are drawn.
            sample_keys = jax.random.split(key, self.updates_per_call)
            noise_keys = jax.random.split(jax.random.fold_in(key, self.updates_per_call), self.updates_per_call)
            state, metrics = jax.lax.scan(update, state, (sample_keys, noise_keys))
            return state, {name: jnp.mean(value) for name, value in metrics.items()}

        return jax.vmap(pretrain_seed)(state, keys)

    def _finish_pretraining(self, learner, state: PretrainState, expert: ReplayBuffer):
        """Put the pretrained networks into the learner."""
        pretraining = self.algorithm.pretraining
        assert pretraining is not None
        rows = DemoRows(expert.obs[0], expert.absorbing[0], expert.episode_step[0])
        new = state.model, jax.vmap(pretraining.finish, in_axes=(0, None))(state.model, rows)
        return eqx.tree_at(lambda s: (s.model, s.pretrained), learner, new)

    @staticmethod
    def _distance_from_ends(learner, obs: Float[Array, "S E ..."]) -> Float[Array, "S E"]:
        """Compute the distances of observations from the ends of demonstrations."""

        def of_seed(learner, obs):
            pretrained = learner.pretrained
            return jax.vmap(lambda o: pretrained.detector.distance(pretrained.encode(learner.model, o)))(obs)

        return jax.vmap(of_seed)(learner, obs)

    def learn_fn(
        self,
        learner,
        replay: ReplayBuffer,
        expert: ReplayBuffer | None,
        keys: Key[Array, " S"],
        counter: Int[Array, ""],
        validation: ReplayBuffer | None,
    ) -> tuple[eqx.Module, dict[str, Float[Array, " S"]], FiniteCheck]:
        """Take `updates_per_call` gradient steps per seed.

        The buffers of demonstrations, if any, have no seed axis: all seeds share them.

        Returns:
            The new learner; the metrics, as means over the updates except for `grad_norm_max`; and a check of every
            update.
        """
        sample_expert = self._sampler(expert)
        sample_validation = self._sampler(None if self.algorithm.uses_env else validation)

        def learn_seed(learner, replay, key):
            sample_agent = self._sampler(replay if self.algorithm.uses_env else None)
            sample_selected = self._selected_sampler(replay)

            def update(learner, key):
                expert_key, agent_key, update_key = jax.random.split(key, 3)
                validation_key, selected_key = jax.random.fold_in(key, 3), jax.random.fold_in(key, 4)
                batch = Batch(
                    sample_expert(expert_key),
                    sample_agent(agent_key),
                    sample_validation(validation_key),
                    sample_selected(selected_key),
                )
                return self.algorithm.update(learner, batch, update_key)

            keys = jax.random.split(jax.random.fold_in(key, counter), self.updates_per_call)
            learner, metrics = jax.lax.scan(update, learner, keys)
            summary = {name: jnp.mean(value) for name, value in metrics.items()}
            summary["grad_norm_max"] = jnp.max(metrics["grad_norm"])
            return learner, summary, check_finite(learner, metrics)

        return jax.vmap(learn_seed)(learner, replay, keys)

    def _diagnose(
        self,
        learner,
        replay: ReplayBuffer,
        expert: ReplayBuffer | None,
        keys: Key[Array, " S"],
        counter: Int[Array, ""],
        validation: ReplayBuffer | None,
    ) -> dict[str, Float[Array, " S"]]:
        """Compute `Algorithm.diagnostics` of every seed; arguments as for `learn_fn`, with keys of their own."""
        sample_expert, sample_validation = self._sampler(expert), self._sampler(validation)

        def diagnose_seed(learner, replay, key):
            key = jax.random.fold_in(key, counter)
            expert_key, agent_key, validation_key = jax.random.split(key, 3)
            agent = self._sampler(replay)(agent_key)
            batch = Batch(sample_expert(expert_key), agent, sample_validation(validation_key))
            num_envs = replay.episode_step.shape[0]
            recent, valid = replay.most_recent(max(1, self.batch_size // num_envs), self.horizon)
            metrics = self.algorithm.diagnostics(learner, batch, recent, valid, jax.random.fold_in(key, 3))
            return metrics if self.algorithm.pretraining is None else metrics | detector_metrics(replay)

        return jax.vmap(diagnose_seed)(learner, replay, keys)

    def _set_obs_stats(self, learner, replay: ReplayBuffer | None, expert: ReplayBuffer | None):
        """Set the statistics of observations, those of the agent's and the expert's buffer weighted equally."""

        def set_seed(learner, replay):
            stats = [buffer.obs_stats() for buffer in (replay, expert) if buffer is not None]
            means, variances = (jnp.stack(values) for values in zip(*stats, strict=True))
            mean = jnp.mean(means, axis=0)
            variance = jnp.mean(variances + (means - mean[None]) ** 2, axis=0)
            return self.algorithm.set_obs_stats(learner, mean, jnp.sqrt(variance))

        return jax.vmap(set_seed)(learner, replay)

    def _selected_sampler(self, replay: ReplayBuffer) -> Callable[[Key[Array, ""]], Selected | None]:
        """Make a function that draws a batch from the selected episodes, or returns None without self-imitation."""
        pretraining = self.algorithm.pretraining
        if pretraining is None or not pretraining.config.self_imitation_coef:
            return lambda _: None
        index = replay.selected_index(self.horizon)
        return lambda key: Selected(replay.sample(index, key, self.batch_size, self.horizon), index[-1] > 0)

    def _sampler(self, replay: ReplayBuffer | None) -> Callable[[Key[Array, ""]], Segment | None]:
        """Make a function that draws a batch from a buffer, or returns None without a buffer."""
        if replay is None:
            return lambda _: None
        index = replay.index(self.horizon)
        return lambda key: replay.sample(index, key, self.batch_size, self.horizon)


def _set_acting(learner, acting: Int[Array, " S"]):
    """Set how the agents act, by index in `pretrain.CANDIDATES`."""
    return eqx.tree_at(lambda s: s.pretrained.acting, learner, acting)


def detector_metrics(replay: ReplayBuffer) -> dict[str, Float[Array, ""]]:
    """Compute the fraction of episodes detected as successes, and precision and recall against the task's success."""
    final, success = replay.final_rows(), replay.episode_success()
    detected, succeeded = final & replay.selected, final & success

    def count(mask: Bool[Array, "E L"]) -> Float[Array, ""]:
        return jnp.sum(mask.astype(jnp.float32))

    both = count(detected & succeeded)
    return {
        "detected_success": count(detected) / count(final),
        "detector_precision": both / count(detected),
        "detector_recall": both / count(succeeded),
    }


def _select_seeds(mask: Bool[Array, " S"], new: PyTree, old: PyTree) -> PyTree:
    """Select the seeds of `new` where `mask` holds and those of `old` elsewhere."""
    return jax.tree.map(lambda n, o: jnp.where(mask.reshape(-1, *(1,) * (o.ndim - 1)), n, o), new, old)
