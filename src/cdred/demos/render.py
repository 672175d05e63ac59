"""Demonstrations with camera images, rendered while recorded actions are replayed from recorded seeds."""

import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

from cdred.demos.replay import compare, has_seed, replay
from cdred.envs.registry import make
from cdred.errors import UserError
from cdred.task_name import OBS, with_parameters
from cdred.types import DemoDataset

# Key of the provenance: how images came about.
IMAGES_KEY = "images"
# Largest difference between the recorded and the replayed observation, as in `cdred demos check`.
TOLERANCE = 1e-4


def render_demos(
    dataset: DemoDataset, source: str, task: str, on_episode: Callable[[int, int], None] | None = None
) -> DemoDataset:
    """Return the demonstrations with images.

    Args:
        dataset: demonstrations that are valid for the task without images, with actions in [-1, 1].
        source: their path, for messages.
        task: the task with images.
        on_episode: called after each episode with the number of rendered episodes and that of all.

    Raises:
        UserError: an episode has no seed, or its replay differs from the recording.
        SimulatorError: the simulator failed.
    """
    rendered, differences, both = [], [], with_parameters(task, {OBS: "both"})
    with closing(make(both)) as env:
        for index, trajectory in enumerate(dataset):
            if not has_seed(trajectory):
                raise UserError(
                    f"{source}, episode {index}: it cannot be rendered, because it has no seed from which {task} would "
                    "start it. Recordings by cdred have seeds."
                )
            replayed = replay(env, trajectory)
            result = compare(index, trajectory, replayed, TOLERANCE)
            if not result.agrees:
                raise UserError(
                    f"{source}, episode {index}: its replay differs from the recording by {result.max_difference:.3g}, "
                    "so images would not belong to it. `cdred demos check` shows where they part."
                )
            rendered.append(replace(trajectory, image=replayed.image))
            differences.append(result.max_difference)
            if on_episode:
                on_episode(len(rendered), len(dataset))
    images = {
        "rendered_from": "recorded seeds and actions of an expert that observes states",
        "size": env.spec.image_size,
        "largest_state_difference": max(differences),
        "opengl": os.environ.get("MUJOCO_GL", ""),
    }
    return DemoDataset(both, tuple(rendered), dataset.provenance | {IMAGES_KEY: images})
