"""Meta-World tasks in one environment, with demonstrations of several experts, for the study multi-expert."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.wrappers import TimeLimit
from jaxtyping import Float32

from cdred.data.demonstrations import save_demos
from cdred.demos.scripted import collect_scripted, get_demos
from cdred.envs.registry import make
from cdred.types import DemoDataset, LogFn

STICK_TASKS = ("metaworld/stick-push", "metaworld/stick-pull")
# Functions that make environments, and the tasks of their episodes, indices in `STICK_TASKS`.
TASKS_OF = {"both": (0, 1), "push": (0,), "pull": (1,)}
NOISE_STD = 0.3


class TaskEmbeddingEnv(gymnasium.Env):
    """Environment of one of several tasks in each episode; its observation ends with the task's one-hot embedding.

    Args:
        tasks: indices in `STICK_TASKS`.
    """

    def __init__(self, tasks: Sequence[int]):
        self._envs = {index: make(STICK_TASKS[index]) for index in tasks}
        self._index = tasks[0]
        spec = self._envs[self._index].spec
        self.time_limit = spec.episode_length
        self.observation_space = Box(-np.inf, np.inf, (spec.obs_shape[0] + len(STICK_TASKS),), np.float32)
        self.action_space = Box(-1.0, 1.0, (spec.action_dim,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Float32[np.ndarray, " obs"], dict]:
        super().reset(seed=seed, options=options)
        self._index = int(self.np_random.choice([*self._envs]))
        obs = self._envs[self._index].reset(int(self.np_random.integers(2**32)))
        return with_embedding(np.asarray(obs), self._index), {}

    def step(self, action: Float32[np.ndarray, " A"]) -> tuple[Float32[np.ndarray, " obs"], float, bool, bool, dict]:
        step = self._envs[self._index].step(action)
        obs = with_embedding(np.asarray(step.obs), self._index)
        return obs, step.reward, False, step.truncated, {"success": step.success}

    def close(self) -> None:
        for env in self._envs.values():
            env.close()


def with_embedding(obs: Float32[np.ndarray, "*batch obs"], index: int) -> Float32[np.ndarray, "*batch obs_and_tasks"]:
    """Append the one-hot embedding of a task to observations."""
    embedding = np.eye(len(STICK_TASKS), dtype=np.float32)[index]
    return np.concatenate([obs, np.broadcast_to(embedding, (*obs.shape[:-1], len(STICK_TASKS)))], axis=-1)


def both() -> gymnasium.Env:
    """Make the environment of both tasks."""
    return _make("both")


def push() -> gymnasium.Env:
    """Make the environment of stick-push alone."""
    return _make("push")


def pull() -> gymnasium.Env:
    """Make the environment of stick-pull alone."""
    return _make("pull")


def _make(name: str) -> gymnasium.Env:
    env = TaskEmbeddingEnv(TASKS_OF[name])
    return TimeLimit(env, env.time_limit)


def task_name(name: str) -> str:
    """Return the task of an environment in `TASKS_OF`."""
    return f"env/{__name__}:{name}"


def file_name(name: str, num: int) -> str:
    """Return the name of a file of demonstrations: of an environment in `TASKS_OF`, of the noisy expert, or mixed."""
    return f"{name}-{num}.npz"


def write_demos(folder: Path, quality_task: str, num: int, log: LogFn) -> None:
    """Write the demonstrations of the study multi-expert, unless they exist, to files named by `file_name`.

    Those of `noisy` are by the scripted expert with noise, of `mixed` half of them with noise and half without; an
    environment's are `num` of each of its tasks.

    Args:
        folder: folder of the files.
        quality_task: task of the first two.
        num: number of demonstrations in a file, for each task.
        log: called with messages.
    """
    missing = [name for name in ("noisy", "mixed", *TASKS_OF) if not (folder / file_name(name, num)).exists()]
    if not missing:
        return
    log(f"demonstrations: collecting those of several experts in {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    noisy, plain = collect_scripted(quality_task, num, noise_std=NOISE_STD), get_demos(quality_task, num)
    of_both = (*plain.trajectories[: num - num // 2], *noisy.trajectories[: num // 2])
    expert = f"scripted, half of them with noise of {NOISE_STD:g} on its actions"
    mixed = DemoDataset(quality_task, of_both, noisy.provenance | {"expert": expert})
    single = [get_demos(task, num) for task in STICK_TASKS]
    embedded = {name: _of_environment(name, single) for name in TASKS_OF}
    for name, demos in {"noisy": noisy, "mixed": mixed, **embedded}.items():
        if name in missing:
            save_demos(demos, folder / file_name(name, num))


def _of_environment(name: str, single: Sequence[DemoDataset]) -> DemoDataset:
    """Return the demonstrations of each task, with its embedding, as those of an environment."""
    indices = TASKS_OF[name]
    # Their seeds are those of episodes of the tasks alone.
    trajectories = (
        replace(demo, obs=with_embedding(demo.obs, index), seed=None) for index in indices for demo in single[index]
    )
    expert = f"scripted, of {' and '.join(STICK_TASKS[index] for index in indices)}"
    return DemoDataset(task_name(name), tuple(trajectories), {"expert": expert})
