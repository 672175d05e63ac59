"""From an environment and recordings of your own to an agent that acts at 20 Hz, with the times that it takes.

    python examples/own_data.py --out runs/cart

The environment has a Dict observation and asymmetric action bounds. The same five episodes of an expert are recorded in
four formats, which cdred reads to the same arrays: Minari, by its `DataCollector`, robomimic's HDF5, LeRobot, `.npz`.
"""

import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
import tyro
from gymnasium.spaces import Box, Dict
from gymnasium.wrappers import TimeLimit

import cdred

EPISODE_LENGTH, NUM_DEMOS, RATE = 40, 5, 20.0
# Full throttle is stronger than full brakes.
LOW, HIGH = np.float32([-0.5, -1.0]), np.float32([1.5, 2.0])


class Cart(gymnasium.Env):
    """Cart on a plane that has to reach a target; |distance| < 0.2 is success."""

    observation_space = Dict(
        position=Box(-np.inf, np.inf, (2,)), target=Box(-1, 1, (2,)), velocity=Box(-np.inf, np.inf, (2,))
    )
    action_space = Box(LOW, HIGH)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.position, self.target = self.np_random.uniform(-1, 1, (2, 2))
        self.velocity = np.zeros(2)
        return self._obs(), {}

    def step(self, action):
        self.velocity = 0.8 * self.velocity + 0.1 * np.asarray(action, np.float64)
        self.position = self.position + 0.5 * self.velocity
        distance = float(np.linalg.norm(self.target - self.position))
        return self._obs(), -distance, False, False, {"success": distance < 0.2}

    def _obs(self):
        return {name: np.float32(getattr(self, name)) for name in self.observation_space}


def make_env() -> gymnasium.Env:
    """Return a new environment."""
    return TimeLimit(Cart(), EPISODE_LENGTH)


def expert(obs: dict[str, np.ndarray]) -> np.ndarray:
    """Return the action of a PD controller."""
    return np.clip(2.0 * (obs["target"] - obs["position"]) - 2.0 * obs["velocity"], LOW, HIGH)


def run_expert(env: gymnasium.Env, seed: int) -> dict[str, Any]:
    """Run an episode of the expert; returns its arrays, of observations by name."""
    observations, actions, rewards, successes, done = [env.reset(seed=seed)[0]], [], [], [], False
    while not done:
        actions.append(expert(observations[-1]))
        obs, reward, terminated, truncated, info = env.step(actions[-1])
        observations.append(obs)
        rewards.append(reward)
        successes.append(info["success"])
        done = terminated or truncated
    return {
        "obs": {name: np.stack([obs[name] for obs in observations]) for name in observations[0]},
        "action": np.stack(actions),
        "reward": np.float32(rewards),
        "success": np.array(successes),
    }


def record_minari(path: Path) -> None:
    """Record episodes with Minari, as a user of it would."""
    from minari import DataCollector

    os.environ["MINARI_DATASETS_PATH"] = str(path.parent.resolve())
    collector = DataCollector(make_env())
    for seed in range(NUM_DEMOS):
        run_expert(collector, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the name of an author
        collector.create_dataset(path.name)


def record_robomimic(path: Path) -> None:
    """Write episodes in robomimic's layout, with actions in the environment's units."""
    with h5py.File(path, "w") as file:
        for seed in range(NUM_DEMOS):
            episode, group = run_expert(make_env(), seed), file.create_group(f"data/demo_{seed}")
            group.attrs["num_samples"] = len(episode["action"])
            for name, values in episode["obs"].items():
                group[f"obs/{name}"], group[f"next_obs/{name}"] = values[:-1], values[1:]
            group["actions"], group["rewards"] = episode["action"], episode["reward"]


def record_lerobot(path: Path) -> None:
    """Write episodes as a LeRobotDataset v3.0, by way of cdred's own types."""
    episodes = []
    for seed in range(NUM_DEMOS):
        episode = run_expert(make_env(), seed)
        obs = np.concatenate([*episode.pop("obs").values()], axis=1)
        episodes.append(cdred.Trajectory(obs=obs, **episode, terminated=False, truncated=True))
    dataset = cdred.DemoDataset("", tuple(episodes), {"fps": RATE})
    cdred.save_demos(dataset, path, "lerobot", action_low=LOW.tolist(), action_high=HIGH.tolist())


def record_npz(path: Path) -> None:
    """Write episodes as plain arrays, with actions in the environment's units."""
    episodes = [run_expert(make_env(), seed) for seed in range(NUM_DEMOS)]
    obs = [np.concatenate([*episode["obs"].values()], axis=1) for episode in episodes]
    arrays = {key: np.stack([episode[key] for episode in episodes]) for key in ("action", "reward", "success")}
    np.savez(path, obs=np.stack(obs), **arrays)


RECORDERS = {
    "cart-v0": record_minari,
    "cart.hdf5": record_robomimic,
    "cart-lerobot": record_lerobot,
    "cart.npz": record_npz,
}


def read(path: Path) -> cdred.DemoDataset:
    """Read demonstrations; those that cdred did not write are in the environment's units."""
    if path.name == "cart-lerobot":
        return cdred.load_demos(path)
    return cdred.load_demos(path, action_low=LOW.tolist(), action_high=HIGH.tolist())


def act_at_rate(agent: cdred.Agent, steps: int) -> np.ndarray:
    """Act in the environment in real time; returns the seconds that each action took."""
    env, seconds = make_env(), []
    obs, _ = env.reset(seed=1000)
    agent.warm_up().reset()
    for step in range(steps):
        start = time.perf_counter()
        action = agent.act(np.concatenate([*obs.values()]))
        seconds.append(time.perf_counter() - start)
        obs, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            obs, _ = env.reset(seed=1001 + step)
            agent.reset()
        time.sleep(max(0.0, 1.0 / RATE - (time.perf_counter() - start)))
    return np.array(seconds)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print what the body does and the time that it takes."""
    start = time.perf_counter()
    yield
    print(f"{what}: {time.perf_counter() - start:.1f} s", flush=True)


def main(out: Path, steps: int = 400, preset: str = "debug", act_steps: int = 100) -> dict:
    """Record, read, train, evaluate and act.

    Args:
        out: new folder for recordings and run.
        steps: training steps.
        preset: preset of the other settings.
        act_steps: steps in real time.
    """
    out.mkdir(parents=True)
    for name, record in RECORDERS.items():
        with timed(f"record {NUM_DEMOS} episodes as {name}"):
            record(out / name)
        with timed(f"read {name}"):
            read(out / name)
    with timed(f"train {steps} steps, preset {preset}"):
        # Minari declares the bounds of actions, so that they are rescaled without being given.
        demos, run = out / "cart-v0", out / "run"
        cdred.train(env=make_env, demos=demos, steps=steps, preset=preset, out=run, video=False, quiet=True)
    with timed("evaluate 5 episodes"):
        scores = cdred.evaluate(run, episodes=5)
    print(f"return of the agent {scores['return'][0]:.1f}, success {scores['success'][0]:.0%}")
    with timed("load"):
        agent = cdred.load(run)
    with timed(f"act {act_steps} steps at {RATE:g} Hz, compilation included"):
        seconds = act_at_rate(agent, act_steps)
    p50, p99 = np.percentile(1000 * seconds, (50, 99))
    print(f"agent.act: p50 {p50:.1f} ms, p99 {p99:.1f} ms, of {1000 / RATE:.0f} ms")
    return scores


if __name__ == "__main__":
    tyro.cli(main)
