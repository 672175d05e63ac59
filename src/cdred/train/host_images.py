"""Compiled functions of a run that keeps the images of the agent's replay buffer in host memory.

Images of the next update are gathered and copied while the device makes the one before.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, UInt8

from cdred.data.replay_buffer import ReplayBuffer, Transition
from cdred.data.replay_images import (
    EARLIER,
    add_rows,
    gather_windows,
    host_images,
    number_rows,
    with_images,
    without_images,
    write_images,
)
from cdred.train.compiled import LEARN_SPECS, CompiledFns, summarize
from cdred.train.detection import num_recent_rows, select_detected
from cdred.train.devices import REPLICATED, SEEDS, to_device
from cdred.train.sampling import AgentWindows, UpdateKeys, diagnostics_keys
from cdred.types import ImageObs, Segment

# Updates that are queued on the device at most. Two keep it busy, and the images of few batches in its memory.
MAX_QUEUED = 2


class HostImageFns(CompiledFns):
    """Compiled functions of which those with an agent buffer take one with images as a NumPy array.

    `learn` makes one call per update. Its results are those of `CompiledFns`, up to rounding where that makes one call
    for all updates. `add_to_replay` writes the images in place.
    """

    images_on_host: ClassVar[bool] = True

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self._add_rows = self._compiled(jax.vmap(self._add_rows_fn), SEEDS, SEEDS, donate=(0,))
        self._detect = self._compiled(self._detect_fn, SEEDS, SEEDS, SEEDS, donate=(0,))
        self._learn_rows = self._compiled(self._learn_rows_fn, SEEDS, SEEDS, REPLICATED)
        self._learn_with_windows = self._compiled(
            self._learn_with_windows_fn, *LEARN_SPECS, REPLICATED, SEEDS, donate=(0,)
        )
        self._summarize = self._compiled(jax.vmap(summarize), SEEDS, SEEDS)
        self._diagnose_rows = self._compiled(self._diagnose_rows_fn, SEEDS, SEEDS, REPLICATED)
        self._diagnose_with_windows = self._compiled(self._diagnose, *LEARN_SPECS, SEEDS)
        self._set_obs_stats_on_device = self.set_obs_stats
        self.learn, self.diagnose = self._learn_from_host, self._diagnose_from_host
        self.add_to_replay, self.set_obs_stats = self._add_to_host, self._set_obs_stats_from_host

    def _add_to_host(self, replay: ReplayBuffer, block: Transition, learner) -> ReplayBuffer:
        """Add a block of steps in host memory; arguments as of `add_to_replay_fn`."""
        image = _images(replay)
        added, rows, sources, recent = self._add_rows(without_images(replay), _without_images(block))
        write_images(image, block, *jax.device_get((rows, sources)))
        if self.algorithm.pretraining is not None:
            windows = self._gather(image, recent, num_recent_rows(block.reward.shape[1], self.episode_length, replay))
            added = self._detect(added, learner, windows)
        return with_images(added, image)

    def _add_rows_fn(self, replay: ReplayBuffer, block: Transition):
        """Do `add_rows` for a seed, and find the number of the first of the recent rows of each environment."""
        replay, rows, sources = add_rows(replay, block)
        num_envs, capacity = replay.episode_step.shape
        recent = replay.recent_rows(num_recent_rows(len(block.reward), self.episode_length, replay))[:, 0]
        return replay, rows, sources, jnp.arange(num_envs) * capacity + recent

    def _detect_fn(self, replay: ReplayBuffer, learner, windows: UInt8[Array, "S E window H W 3"]) -> ReplayBuffer:
        """Do `select_detected` for every seed."""

        def of_seed(replay: ReplayBuffer, learner, windows) -> ReplayBuffer:
            return select_detected(replay, learner, windows.shape[1] - EARLIER, windows)

        return jax.vmap(of_seed)(replay, learner, windows)

    def _learn_from_host(self, learner, replay, expert, keys, counter, validation):
        """Do what `learn_fn` does in one call per update, before which its images are copied to the device."""
        metrics, image, replay = [], _images(replay), without_images(replay)
        rows = jax.device_get(self._learn_rows(replay, keys, counter))
        for index in range(self.updates_per_call):
            if index >= MAX_QUEUED:
                jax.block_until_ready(metrics[index - MAX_QUEUED])
            windows = self._windows(image, jax.tree.map(lambda x, i=index: x[:, i], rows))
            args = (learner, replay, expert, keys, counter, validation, np.int32(index), windows)
            learner, values = self._learn_with_windows(*args)
            metrics.append(values)
        return learner, *self._summarize(learner, jax.tree.map(lambda *xs: jnp.stack(xs, axis=1), *metrics))

    def _learn_with_windows_fn(
        self, learner, replay, expert, keys, counter, validation, index: Int[Array, ""], windows: AgentWindows
    ):
        """Take the update `index` of those of `learn_fn`; return the learner and its metrics."""
        update_of = self._learn_update(expert, validation)

        def learn_seed(learner, replay, key, windows):
            key = jax.random.split(jax.random.fold_in(key, counter), self.updates_per_call)[index]
            return update_of(replay, windows)(learner, key)

        return jax.vmap(learn_seed)(learner, replay, keys, windows)

    def _learn_rows_fn(self, replay: ReplayBuffer, keys: Key[Array, " S"], counter: Int[Array, ""]) -> AgentWindows:
        """Find the first rows `[S, updates, B]` of the segments that the updates of a `learn` call draw."""

        def of_seed(replay: ReplayBuffer, key) -> AgentWindows:
            replay = number_rows(replay)
            sample_agent = self.sampler.batches(replay)
            sample_selected = self.sampler.selected_batches(replay)

            def of_update(key) -> AgentWindows:
                keys = UpdateKeys.split(key)
                segments, selected = sample_agent(keys.agent), sample_selected(keys.selected)
                assert segments is not None
                return AgentWindows(_first_rows(segments), selected and _first_rows(selected.segments))

            return jax.vmap(of_update)(jax.random.split(jax.random.fold_in(key, counter), self.updates_per_call))

        return jax.vmap(of_seed)(replay, keys)

    def _diagnose_from_host(self, learner, replay, expert, keys, counter, validation):
        """Do what `CompiledFns.diagnose` does."""
        image, replay = _images(replay), without_images(replay)
        windows = self._windows(image, jax.device_get(self._diagnose_rows(replay, keys, counter)))
        return self._diagnose_with_windows(learner, replay, expert, keys, counter, validation, windows)

    def _diagnose_rows_fn(self, replay: ReplayBuffer, keys: Key[Array, " S"], counter: Int[Array, ""]) -> AgentWindows:
        """Find the first rows of the segments that diagnostics are computed of."""

        def of_seed(replay: ReplayBuffer, key) -> AgentWindows:
            replay = number_rows(replay)
            agent_key = diagnostics_keys(jax.random.fold_in(key, counter))[1]
            segments = self.sampler.batches(replay)(agent_key)
            assert segments is not None
            return AgentWindows(_first_rows(segments), recent=_first_rows(self.sampler.most_recent(replay)[0]))

        return jax.vmap(of_seed)(replay, keys)

    def _set_obs_stats_from_host(self, learner, replay: ReplayBuffer | None, expert: ReplayBuffer | None):
        return self._set_obs_stats_on_device(learner, None if replay is None else without_images(replay), expert)

    def _windows(self, image: UInt8[np.ndarray, "S E L H W 3"], rows: AgentWindows) -> AgentWindows:
        """Copy the images of segments to the device."""
        return jax.tree.map(lambda first: self._gather(image, first, self.horizon + 1), rows)

    def _gather(self, image: UInt8[np.ndarray, "S E L H W 3"], first: Any, num_rows: int) -> Array:
        return to_device(gather_windows(image, np.asarray(first), num_rows), self.mesh)


def _images(replay: ReplayBuffer) -> np.ndarray:
    image = host_images(replay)
    assert image is not None, "the images of the buffer are not in host memory"
    return image


def _without_images(block: Transition) -> Transition:
    assert isinstance(block.obs, ImageObs)
    assert isinstance(block.next_obs, ImageObs)
    return block._replace(obs=block.obs._replace(image=None), next_obs=block.next_obs._replace(image=None))


def _first_rows(segments: Segment) -> Int[Array, " B"]:
    """Return the number of the first row of each segment of a buffer with numbered rows."""
    assert isinstance(segments.obs, ImageObs)
    return segments.obs.image[:, 0, -1]
