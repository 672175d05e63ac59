"""An environment of your own, an expert of your own, and an agent that imitates it.

    python examples/own_environment.py --out runs/hover

A drone hovers in a corridor between two walls; touching one ends the episode. No reward is ever learned from: the agent
has five of the expert's episodes, and may practise.
"""

from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import tyro
from gymnasium.spaces import Box

import cdred

TASK, LENGTH = "Hover-v0", 100


class Hover(gymnasium.Env):
    """Stay near height 0 under gravity and gusts, by a thrust of one component; |height| > 1 is a crash."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.height, self.speed = self.np_random.uniform(-0.5, 0.5, 2)
        return self._obs(), {}

    def step(self, action):
        gust = 0.02 * self.np_random.normal()
        self.speed += 0.1 * float(action[0]) - 0.02 + gust
        self.height += 0.2 * self.speed
        crashed = abs(self.height) > 1.0
        near = abs(self.height) < 0.2
        return self._obs(), float(near), crashed, False, {"success": near}

    def _obs(self):
        return np.array([self.height, self.speed], np.float32)


def expert(obs: np.ndarray) -> np.ndarray:
    """A spring and a damper that know the gravity."""
    return np.clip([0.2 - 2.0 * obs[0] - 4.0 * obs[1]], -1.0, 1.0).astype(np.float32)


def demonstrate(seed: int) -> cdred.Trajectory:
    """One episode of the expert."""
    env = gymnasium.make(TASK)
    obs, seen, actions, rewards, near, over = env.reset(seed=seed)[0], [], [], [], [], False
    seen.append(obs)
    while not over:
        actions.append(expert(obs))
        obs, reward, terminated, truncated, info = env.step(actions[-1])
        seen.append(obs)
        rewards.append(reward)
        near.append(info["success"])
        over = terminated or truncated
    return cdred.Trajectory(
        obs=np.array(seen, np.float32),
        action=np.array(actions, np.float32),
        reward=np.array(rewards, np.float32),
        terminated=terminated,
        truncated=truncated,
        success=np.array(near),
        seed=seed,
    )


def main(out: Path, steps: int = 3000, preset: str = "cpu") -> dict:
    """Demonstrate, train, and look at what came of it.

    Args:
        out: a new folder for demonstrations and run.
        steps: of the agent.
        preset: settings to start from.
    """
    if TASK not in gymnasium.registry:
        gymnasium.register(TASK, Hover, max_episode_steps=LENGTH)
    demos = cdred.DemoDataset(f"gym/{TASK}", tuple(demonstrate(seed) for seed in range(5)), {"expert": "a spring"})
    path = out / "demos"
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        cdred.save_demos(demos, path)
    config = replace(cdred.preset(preset), task=f"gym/{TASK}", demos=str(path), steps=steps)
    result = cdred.train(replace(config, out=str(out / "run"), video=False))
    agent, env = cdred.load(out / "run"), gymnasium.make(TASK)
    obs, steps, over = env.reset(seed=1000)[0], 0, False
    while not over:
        obs, _, terminated, truncated, _ = env.step(agent.act(obs))
        steps, over = steps + 1, terminated or truncated
    print(
        f"expert {result['eval']['expert_return']:.0f}, agent {result['eval']['return'][0]:.0f}; it flew {steps} steps"
    )
    return result


if __name__ == "__main__":
    tyro.cli(main)
