"""Imitation learning in an environment of your own from demonstrations of your own expert.

    python examples/own_environment.py --out runs/hover

A drone hovers in a corridor between two walls; touching a wall terminates the episode. The agent learns from five
episodes of the expert and from its own interaction with the environment; the environment's reward is only evaluated.
"""

from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import tyro
from gymnasium.spaces import Box

import cdred

TASK, EPISODE_LENGTH, NUM_DEMOS, MAX_THRUST = "Hover-v0", 100, 5, 2.0


class Hover(gymnasium.Env):
    """Drone that has to stay near height 0 under gravity and gusts.

    The action is the thrust, from 0 to 2; |height| > 1 is a crash, |height| < 0.2 is success.
    """

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(0.0, MAX_THRUST, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.height, self.speed = self.np_random.uniform(-0.5, 0.5, 2)
        return self._obs(), {}

    def step(self, action):
        gust = 0.02 * self.np_random.normal()
        self.speed += 0.1 * float(action[0]) - 0.12 + gust
        self.height += 0.2 * self.speed
        crashed = abs(self.height) > 1.0
        success = abs(self.height) < 0.2
        return self._obs(), float(success), crashed, False, {"success": success}

    def _obs(self):
        return np.array([self.height, self.speed], np.float32)


# This makes it the task `gym/Hover-v0`, here and wherever this file is imported (the setting `imports`).
if TASK not in gymnasium.registry:
    gymnasium.register(TASK, Hover, max_episode_steps=EPISODE_LENGTH)


def expert(obs: np.ndarray) -> np.ndarray:
    """Return the action of a PD controller with gravity compensation."""
    return np.clip([1.2 - 2.0 * obs[0] - 4.0 * obs[1]], 0.0, MAX_THRUST).astype(np.float32)


def record_expert(seed: int) -> cdred.Trajectory:
    """Record one episode of the expert."""
    env = gymnasium.make(TASK)
    observations, actions, rewards, successes, done = [env.reset(seed=seed)[0]], [], [], [], False
    while not done:
        actions.append(expert(observations[-1]))
        obs, reward, terminated, truncated, info = env.step(actions[-1])
        observations.append(obs)
        rewards.append(reward)
        successes.append(info["success"])
        done = terminated or truncated
    return cdred.Trajectory(
        obs=np.array(observations, np.float32),
        action=np.array(actions, np.float32),
        reward=np.array(rewards, np.float32),
        terminated=terminated,
        truncated=truncated,
        success=np.array(successes),
        seed=seed,
    )


def episode_length(agent: cdred.Agent, seed: int) -> int:
    """Run one episode of the agent and return its number of steps."""
    env, steps, done = gymnasium.make(TASK), 0, False
    obs, _ = env.reset(seed=seed)
    while not done:
        obs, _, terminated, truncated, _ = env.step(agent.act(obs))
        steps, done = steps + 1, terminated or truncated
    return steps


def main(out: Path, steps: int = 3000, preset: str = "cpu") -> dict:
    """Record demonstrations, train on them, and run the agent for an episode.

    Args:
        out: new folder for demonstrations and run.
        steps: training steps.
        preset: preset of the other settings.
    """
    demos_path, run = out / "demos", out / "run"
    if not demos_path.exists():
        out.mkdir(parents=True, exist_ok=True)
        trajectories = tuple(record_expert(seed) for seed in range(NUM_DEMOS))
        demos = cdred.DemoDataset(f"gym/{TASK}", trajectories, {"expert": "PD controller"})
        cdred.save_demos(demos, demos_path, action_low=0.0, action_high=MAX_THRUST)
    config = replace(cdred.preset(preset), task=f"gym/{TASK}", demos=str(demos_path), steps=steps)
    result = cdred.train(replace(config, imports=(__file__,), out=str(run), video=False))
    scores = result["eval"]
    print(
        f"return of the expert {scores['expert_return']:.0f}, of the agent {scores['return'][0]:.0f}; "
        f"the agent hovered for {episode_length(cdred.load(run), seed=1000)} steps"
    )
    return result


if __name__ == "__main__":
    tyro.cli(main)
