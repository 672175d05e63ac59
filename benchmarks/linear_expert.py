"""An expert for a Gymnasium task that ends when the agent falls: a linear policy, found by augmented random search.

    python benchmarks/linear_expert.py --task gym/Hopper-v5 --out hopper.npz

Random search (arXiv 1803.07055, V2-t: the states' scale is learned along, the best directions count) needs no gradient
and minutes on one core. It is told the reward without the bonus for being alive, as there; the recorded one has it.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from cdred import DemoDataset, Trajectory
from cdred.data.demonstrations import save_demos
from cdred.demos.scripted import level
from cdred.envs.base import Env
from cdred.envs.registry import make


@dataclass(frozen=True)
class Options:
    """Search, evaluate, record."""

    out: Path
    """A new .npz file."""
    task: str = "gym/Hopper-v5"
    """Whose actions are a linear function of what is seen, clipped to their bounds."""
    steps: int = 1_500_000
    """Steps of the search."""
    num: int = 40
    """Episodes to record."""
    threshold: float = 2500.0
    """Least return of an episode that is kept."""
    directions: int = 8
    """Tried at once, each both ways."""
    best: int = 4
    """How many of them the next step follows."""
    step_size: float = 0.01
    noise: float = 0.025
    """Size of a try."""
    alive_bonus: float = 1.0
    """Taken off each step's reward while searching."""
    seed: int = 0


class Scale:
    """Running mean and variance of what was seen (Welford's)."""

    def __init__(self, dim: int):
        self.count, self.mean, self.squares = 0, np.zeros(dim), np.ones(dim)

    def add(self, obs: np.ndarray) -> None:
        for one in obs:
            self.count += 1
            change = one - self.mean
            self.mean += change / self.count
            self.squares += change * (one - self.mean)

    def apply(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights and bias of the same policy on raw observations."""
        scaled = weights / np.sqrt(np.maximum(self.squares / max(self.count, 1), 1e-8))
        return scaled, -scaled @ self.mean


def episode(env: Env, seed: int, weights: np.ndarray, bias: np.ndarray) -> Trajectory:
    """One episode of a linear policy."""
    obs, actions, rewards = [env.reset(seed)], [], []
    while True:
        actions.append(np.clip(weights @ obs[-1] + bias, -1.0, 1.0).astype(np.float32))
        step = env.step(actions[-1])
        obs.append(step.obs)
        rewards.append(step.reward)
        if step.terminated or step.truncated:
            ends = {"terminated": step.terminated, "truncated": step.truncated}
            return Trajectory(np.array(obs), np.array(actions), np.array(rewards, np.float32), **ends, seed=seed)


def search(options: Options, env: Env) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias of the best policy that a round's three episodes have shown."""
    rng, scale = np.random.default_rng(options.seed), Scale(env.spec.obs_shape[0])
    weights = np.zeros((env.spec.action_dim, env.spec.obs_shape[0]))
    best, found, taken, rounds, began = -np.inf, scale.apply(weights), 0, 0, time.perf_counter()
    while taken < options.steps:
        tries = rng.normal(size=(options.directions, *weights.shape))
        gains = np.zeros((options.directions, 2))
        for i, direction in enumerate(tries):
            for j, sign in enumerate((1.0, -1.0)):
                lived = episode(env, int(rng.integers(2**31)), *scale.apply(weights + sign * options.noise * direction))
                gains[i, j] = lived.episode_return - options.alive_bonus * len(lived)
                taken += len(lived)
                scale.add(lived.obs[:-1])
        top = np.argsort(-gains.max(axis=1))[: options.best]
        slope = np.einsum("i,iab->ab", gains[top, 0] - gains[top, 1], tries[top])
        weights += options.step_size / (options.best * max(gains[top].std(), 1e-8)) * slope
        rounds += 1
        if rounds % 20 == 0:
            now = scale.apply(weights)
            shown = [episode(env, int(rng.integers(2**31)), *now) for _ in range(3)]
            worst = min(one.episode_return for one in shown)
            if worst > best:
                best, found = worst, now
            lengths = " ".join(f"{len(one)}" for one in shown)
            print(
                f"{taken:9,} steps  worst of three {worst:7.0f}  lengths {lengths}  {time.perf_counter() - began:.0f} s"
            )
    return found


def main() -> None:
    """Search, then keep the good episodes of the best policy."""
    options = tyro.cli(Options, description=__doc__)
    env = make(options.task)
    policy = search(options, env)
    attempts: list[Trajectory] = []
    kept: list[Trajectory] = []
    while len(kept) < options.num and len(attempts) < 5 * options.num:
        attempts.append(episode(env, 10_000 + len(attempts), *policy))
        kept += [attempts[-1]] if attempts[-1].episode_return >= options.threshold else []
    about = {
        "expert": f"linear policy by augmented random search, {options.steps} steps",
        "threshold": options.threshold,
        "attempts": len(attempts),
        "expert_level": level(attempts)._asdict(),
    }
    print(f"{len(kept)} of {len(attempts)} attempts kept, {level(attempts)}")
    save_demos(DemoDataset(options.task, tuple(kept), about), options.out)


if __name__ == "__main__":
    main()
