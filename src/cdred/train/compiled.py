"""Compiled functions of a run, each over a leading axis of S seeds.

Randomness is a function of a seed's key and a counter of steps or updates (`train.keys`).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from cdred.algos.base import Algorithm, Batch
from cdred.algos.pretrain import DemoRows, PretrainState
from cdred.data.replay_buffer import ReplayBuffer, Transition
from cdred.planning.mppi import MPPIState
from cdred.train.detection import detector_metrics, num_recent_rows, select_detected
from cdred.train.devices import REPLICATED, SEEDS, shard_map_seeds
from cdred.train.finite import FiniteCheck, check_finite
from cdred.train.sampling import NO_WINDOWS, AgentWindows, Sampler, UpdateKeys, diagnostics_keys
from cdred.types import ImageObs

# For what runs once: half the compile time of the default, and the same results.
FAST_COMPILATION = {"xla_backend_optimization_level": 1}
# Partitioning of the arguments of `learn` and `diagnose`.
LEARN_SPECS = (SEEDS, SEEDS, REPLICATED, SEEDS, REPLICATED, REPLICATED)


class CompiledFns:
    """Jitted functions of an algorithm. `act` and `learn` compile once each.

    `init_fn`, `act_fn` and `learn_fn` are the functions that they compile, for other compiled programs to call, or for
    the shapes of their results. `host_images.HostImageFns` are those for buffers with images in host memory.

    Args:
        algorithm: the algorithm.
        horizon: transitions per training segment, H.
        batch_size: segments per update and replay buffer.
        updates_per_call: gradient steps per `learn` call.
        episode_length: steps after which an episode is truncated.
        mesh: devices to shard the seeds over; None for the default device.
        image_shift: largest random shift of the camera images of a batch, in pixels; None where there are none.
    """

    images_on_host: ClassVar[bool] = False

    def __init__(
        self,
        algorithm: Algorithm,
        *,
        horizon: int,
        batch_size: int,
        updates_per_call: int,
        episode_length: int,
        mesh: Mesh | None = None,
        image_shift: int | None = None,
    ):
        self.algorithm, self.horizon, self.batch_size = algorithm, horizon, batch_size
        self.updates_per_call, self.episode_length, self.mesh = updates_per_call, episode_length, mesh
        pretraining = algorithm.pretraining
        self_imitation = pretraining is not None and pretraining.config.self_imitation_coef > 0
        self.sampler = Sampler(batch_size, horizon, image_shift, self_imitation)

        self.init_fn = jax.vmap(algorithm.init)
        self.init = self._compiled(self.init_fn, SEEDS, options=FAST_COMPILATION)
        act_specs = (SEEDS, SEEDS, SEEDS, SEEDS, SEEDS, REPLICATED, REPLICATED)
        self.act = self._compiled(self.act_fn, *act_specs, donate=(1,))
        self.act_pretrained = self._compiled(partial(self.act_fn, pretrained=True), *act_specs, donate=(1,))
        self.learn = self._compiled(self.learn_fn, *LEARN_SPECS, donate=(0,))
        self.init_pretraining = self._compiled(self._init_pretraining, SEEDS)
        pretrain_specs = (SEEDS, REPLICATED, SEEDS, REPLICATED)
        self.pretrain = self._compiled(self._pretrain, *pretrain_specs, donate=(0,))
        self.finish_pretraining = self._compiled(self._finish_pretraining, SEEDS, SEEDS, REPLICATED)
        self.distance_from_ends = self._compiled(self._distance_from_ends, SEEDS, SEEDS)
        self.set_acting = self._compiled(_set_acting, SEEDS, SEEDS)
        self.set_obs_stats = self._compiled(self._set_obs_stats, SEEDS, SEEDS, REPLICATED, donate=(0,))
        self.diagnose = self._compiled(self._diagnose, *LEARN_SPECS)
        self.select_seeds = self._compiled(_select_seeds, SEEDS, SEEDS, SEEDS, donate=(2,))
        self.add_to_replay = self._compiled(self.add_to_replay_fn, SEEDS, SEEDS, SEEDS, donate=(0,))

    def _compiled(
        self, function: Callable, *in_specs, donate: tuple[int, ...] = (), options: dict[str, Any] | None = None
    ) -> Any:
        """Compile a function of arguments that are sharded over the devices as `in_specs` has it."""
        function = shard_map_seeds(function, self.mesh, in_specs)
        return jax.jit(function, donate_argnums=donate, compiler_options=options)

    def init_plan(self, num_seeds: int, num_envs: int) -> MPPIState:
        """Make the planner states of [S, E] environments at the first step of an episode."""
        plan = self.algorithm.init_plan()
        return jax.tree.map(lambda x: jnp.zeros((num_seeds, num_envs, *x.shape), x.dtype) + x[None, None], plan)

    def act_fn(
        self,
        learner,
        plan: MPPIState,
        obs: Float[Array, "S E ..."] | ImageObs,
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
            counter = counter // (is_first.shape[1] * pretraining.config.noise_hold)

        def act_env(learner, plan, obs, is_first, key):
            initial = self.algorithm.init_plan()
            plan = jax.tree.map(lambda new, old: jnp.where(is_first, new, old), initial, plan)
            if pretraining is not None:
                return pretraining.act(learner.model, learner.pretrained, obs, key, explore), plan
            return self.algorithm.act(learner, plan, obs, key, explore)

        def act_seed(learner, plan, obs, is_first, key):
            env_keys = jax.random.split(jax.random.fold_in(key, counter), len(is_first))
            return jax.vmap(partial(act_env, learner))(plan, obs, is_first, env_keys)

        return jax.vmap(act_seed)(learner, plan, obs, is_first, keys)

    def add_to_replay_fn(self, replay: ReplayBuffer, block: Transition, learner) -> ReplayBuffer:
        """Add a block of steps `[S, time, E, ...]`; with pretraining, select the detected successes."""

        def add(replay: ReplayBuffer, block: Transition, learner) -> ReplayBuffer:
            replay = replay.add(block)
            if self.algorithm.pretraining is None:
                return replay
            # All rows of the episodes that end in this block.
            return select_detected(replay, learner, num_recent_rows(len(block.action), self.episode_length, replay))

        return jax.vmap(add)(replay, block, learner)

    def _init_pretraining(self, learner) -> PretrainState:
        assert self.algorithm.pretraining is not None
        return jax.vmap(self.algorithm.pretraining.init)(learner.model)

    def _pretrain(
        self, state: PretrainState, expert: ReplayBuffer, keys: Key[Array, " S"], counter: Int[Array, ""]
    ) -> tuple[PretrainState, dict[str, Float[Array, " S"]]]:
        """Take `updates_per_call` updates of pretraining; return the new state and the means of the metrics."""
        update = self._pretrain_update(expert)

        def pretrain_seed(state, key):
            state, metrics = jax.lax.scan(update, state, self._pretrain_keys(key, counter))
            return state, {name: jnp.mean(value) for name, value in metrics.items()}

        return jax.vmap(pretrain_seed)(state, keys)

    def _pretrain_update(self, expert: ReplayBuffer) -> Callable:
        pretraining, sample = self.algorithm.pretraining, self.sampler.batches(expert, augment=True)
        assert pretraining is not None

        def update(state, keys):
            sample_key, noise_key = keys
            segments = sample(sample_key)
            assert segments is not None
            return pretraining.update(state, segments, noise_key)

        return update

    def _pretrain_keys(self, key: Key[Array, ""], counter: Int[Array, ""]) -> tuple[Key[Array, " K"], Key[Array, " K"]]:
        """Return the keys of sampling, and those of noise, which does not change the segments that are drawn."""
        key, num = jax.random.fold_in(key, counter), self.updates_per_call
        return jax.random.split(key, num), jax.random.split(jax.random.fold_in(key, num), num)

    def _finish_pretraining(self, learner, state: PretrainState, expert: ReplayBuffer):
        """Put the pretrained networks into the learner."""
        pretraining = self.algorithm.pretraining
        assert pretraining is not None
        obs = expert.stacked_obs(0, jnp.arange(expert.episode_step.shape[1]))
        rows = DemoRows(obs, expert.absorbing[0], expert.episode_step[0])
        new = state.model, jax.vmap(partial(pretraining.finish, rows=rows))(state.model)
        return eqx.tree_at(lambda s: (s.model, s.pretrained), learner, new)

    @staticmethod
    def _distance_from_ends(learner, obs: Float[Array, "S E ..."] | ImageObs) -> Float[Array, "S E"]:
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
        update_of = self._learn_update(expert, validation)

        def learn_seed(learner, replay, key):
            keys = jax.random.split(jax.random.fold_in(key, counter), self.updates_per_call)
            learner, metrics = jax.lax.scan(update_of(replay), learner, keys)
            return learner, *summarize(learner, metrics)

        return jax.vmap(learn_seed)(learner, replay, keys)

    def _learn_update(self, expert: ReplayBuffer | None, validation: ReplayBuffer | None) -> Callable:
        """Return a function of the agent's buffer that returns one update of a seed, a function of learner and key."""
        sampler, uses_env = self.sampler, self.algorithm.uses_env
        sample_expert = sampler.batches(expert, augment=True)
        sample_validation = sampler.batches(None if uses_env else validation)

        def update_of(replay, windows=NO_WINDOWS):
            agent = replay if uses_env else None
            sample_agent = sampler.batches(agent, augment=True, windows=windows.sampled)
            sample_selected = sampler.selected_batches(replay, augment=True, windows=windows.selected)

            def update(learner, key):
                keys = UpdateKeys.split(key)
                batch = Batch(
                    sample_expert(keys.expert),
                    sample_agent(keys.agent),
                    sample_validation(keys.validation),
                    sample_selected(keys.selected),
                )
                return self.algorithm.update(learner, batch, keys.noise)

            return update

        return update_of

    def _diagnose(
        self,
        learner,
        replay: ReplayBuffer,
        expert: ReplayBuffer | None,
        keys: Key[Array, " S"],
        counter: Int[Array, ""],
        validation: ReplayBuffer | None,
        windows: AgentWindows = NO_WINDOWS,
    ) -> dict[str, Float[Array, " S"]]:
        """Compute `Algorithm.diagnostics` of every seed; arguments as for `learn_fn`, with keys of their own."""
        sampler = self.sampler
        sample_expert, sample_validation = sampler.batches(expert), sampler.batches(validation)

        def diagnose_seed(learner, replay, key, windows):
            expert_key, agent_key, validation_key, noise_key = diagnostics_keys(jax.random.fold_in(key, counter))
            agent = sampler.batches(replay, windows=windows.sampled)(agent_key)
            batch = Batch(sample_expert(expert_key), agent, sample_validation(validation_key))
            recent, valid = sampler.most_recent(replay, windows.recent)
            metrics = self.algorithm.diagnostics(learner, batch, recent, valid, noise_key)
            return metrics if self.algorithm.pretraining is None else metrics | detector_metrics(replay)

        return jax.vmap(diagnose_seed)(learner, replay, keys, windows)

    def _set_obs_stats(self, learner, replay: ReplayBuffer | None, expert: ReplayBuffer | None):
        """Set the statistics of observations, those of the agent's and the expert's buffer weighted equally."""

        def set_seed(learner, replay):
            stats = [buffer.obs_stats() for buffer in (replay, expert) if buffer is not None]
            means, variances = (jnp.stack(values) for values in zip(*stats, strict=True))
            mean = jnp.mean(means, axis=0)
            variance = jnp.mean(variances + (means - mean[None]) ** 2, axis=0)
            return self.algorithm.set_obs_stats(learner, mean, jnp.sqrt(variance))

        return jax.vmap(set_seed)(learner, replay)


def summarize(learner, metrics: dict[str, Float[Array, " K"]]) -> tuple[dict[str, Float[Array, ""]], FiniteCheck]:
    """Compute the means of the metrics of K updates, and the check of the learner after them."""
    summary = {name: jnp.mean(value) for name, value in metrics.items()}
    return summary | {"grad_norm_max": jnp.max(metrics["grad_norm"])}, check_finite(learner, metrics)


def _set_acting(learner, acting: Int[Array, " S"]):
    """Set how the agents act, by index in `pretrain.CANDIDATES`."""
    return eqx.tree_at(lambda s: s.pretrained.acting, learner, acting)


def _select_seeds(mask: Bool[Array, " S"], new: PyTree, old: PyTree) -> PyTree:
    """Select the seeds of `new` where `mask` holds and those of `old` elsewhere."""
    return jax.tree.map(lambda n, o: jnp.where(mask.reshape(-1, *(1,) * (o.ndim - 1)), n, o), new, old)
