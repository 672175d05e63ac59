"""Success detection in the agent's replay buffer, of one seed."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from cdred.data.replay_buffer import ReplayBuffer
from cdred.data.replay_images import number_rows, stack_window
from cdred.types import ImageObs


def num_recent_rows(steps: int, episode_length: int, replay: ReplayBuffer) -> int:
    """Return how many of the last rows hold all episodes that ended in the last `steps` steps of an environment."""
    absorbing_rows, capacity = 2 + replay.num_absorbing, replay.episode_step.shape[-1]
    return min(steps * absorbing_rows + episode_length + absorbing_rows, capacity)


def select_detected(replay: ReplayBuffer, learner, num_rows: int, windows: PyTree = None) -> ReplayBuffer:
    """Select the episodes that end in the last rows with a detected success.

    Args:
        replay: the buffer.
        learner: learner of an algorithm with pretraining.
        num_rows: number of rows, at most a ring's length.
        windows: images of the rows of each environment, as of `replay_images.gather_windows`, if they are in host
            memory.
    """
    pretrained, rows = learner.pretrained, replay.recent_rows(num_rows)
    stored = replay if windows is None else number_rows(replay)
    final_rows = replay.final_rows()

    def detect(env, rows, window):
        obs = stored.stacked_obs(env, rows)
        if window is not None:
            assert isinstance(obs, ImageObs)
            obs = obs._replace(image=stack_window(window, obs.image, replay.episode_step.shape[1]))
        latents = jax.vmap(partial(pretrained.encode, learner.model))(obs)
        parts = (replay.episode_step, replay.absorbing, final_rows)
        return pretrained.detector.detect(latents, *(part[env, rows] for part in parts))

    return replay.select(rows, jax.vmap(detect)(jnp.arange(len(rows)), rows, windows))


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
