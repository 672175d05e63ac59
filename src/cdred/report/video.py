"""Expert and agent in the same episodes, side by side; or the agent alone."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from cdred.envs.base import Env
from cdred.envs.registry import make
from cdred.envs.vector_env import episode_seed
from cdred.errors import UserError
from cdred.report.video_file import Frames, side_by_side, stack, write_video
from cdred.train.agent import Agent
from cdred.types import DemoDataset

SIZE, EPISODES, FRAMES_PER_SECOND = 240, 2, 20
# Software rendering manages a few frames a second; every second step still shows every movement.
EVERY = 2


def film(agent: Agent, demos: DemoDataset | None, path: Path) -> Path:
    """Write a film of the first demonstrated episodes: the expert's actions again, and the agent from the same start.

    Without demonstrations the agent is seen alone, in episodes from which demonstrations would be made.

    Raises:
        UserError: no episode is known by its seed, or this task or machine has no picture.
    """
    env = make(agent.spec.task, render_size=SIZE)
    try:
        clips = _alone(env, agent) if demos is None else _beside(env, agent, demos)
    finally:
        env.close()
    return write_video(path, stack(clips), FRAMES_PER_SECOND)


def _alone(env: Env, agent: Agent) -> list[Frames]:
    return [_episode(env, episode_seed(0, "demos", 0, index), agent.reset().act) for index in range(EPISODES)]


def _beside(env: Env, agent: Agent, demos: DemoDataset) -> list[Frames]:
    known = [(one.seed, one.action) for one in demos if one.seed is not None][:EPISODES]
    if not known:
        raise UserError("the demonstrations do not say from which episode seeds they started.")
    pairs = [(_episode(env, seed, _again(actions)), _episode(env, seed, agent.reset().act)) for seed, actions in known]
    return [side_by_side(*pair) for pair in pairs]


def _again(actions: np.ndarray) -> Callable:
    remaining = iter(actions)
    return lambda _obs: next(remaining)


def _episode(env: Env, seed: int, act: Callable) -> Frames:
    obs, frames, ended, count = env.reset(seed), [env.render()], False, 0
    while not ended:
        step = env.step(act(obs))
        obs, ended, step = step.obs, step.terminated or step.truncated, count + 1
        if count % EVERY == 0 or ended:
            frames.append(env.render())
    return np.stack(frames)
