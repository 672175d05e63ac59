"""Find a linear policy by augmented random search and record it: an expert for a Gymnasium task with terminations.

    python benchmarks/linear_expert.py --task gym/Hopper-v5 --out hopper.npz

Augmented random search (arXiv 1803.07055, V2-t: normalized observations, steps along the best directions) needs no
gradient and minutes on one core. As there, it searches without the bonus for being alive; the recorded reward has it.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from cdred import DemoDataset, Trajectory
from cdred.data.demonstrations import save_demos
from cdred.demos.reference_scores import mean_score
from cdred.envs.base import Env
from cdred.envs.registry import make


@dataclass(frozen=True)
class Options:
    """Options of search, evaluation and recording."""

    out: Path
    """A new .npz file."""
    task: str = "gym/Hopper-v5"
    """Task to solve by actions that are a linear function of the observation, clipped to their bounds."""
    steps: int = 1_500_000
    """Environment steps of the search."""
    num: int = 40
    """Episodes to record."""
    threshold: float = 2500.0
    """Smallest return of an episode that is kept."""
    directions: int = 8
    """Directions per iteration, each evaluated both ways."""
    best: int = 4
    """Number of best directions that the update uses."""
    step_size: float = 0.01
    noise: float = 0.025
    """Standard deviation of the perturbations."""
    alive_bonus: float = 1.0
    """Subtracted from each step's reward while searching."""
    seed: int = 0


class ObsStats:
    """Running mean and variance of observations (Welford)."""

    def __init__(self, dim: int):
        self.count, self.mean, self.squares = 0, np.zeros(dim), np.ones(dim)

    def add(self, obs: np.ndarray) -> None:
        """Add observations `[N, dim]`."""
        for row in obs:
            self.count += 1
            change = row - self.mean
            self.mean += change / self.count
            self.squares += change * (row - self.mean)

    def unnormalize(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return weights and bias of the same policy on raw observations."""
        scaled = weights / np.sqrt(np.maximum(self.squares / max(self.count, 1), 1e-8))
        return scaled, -scaled @ self.mean


def rollout(env: Env, seed: int, weights: np.ndarray, bias: np.ndarray) -> Trajectory:
    """Return one episode of a linear policy."""
    obs, actions, rewards = [env.reset(seed)], [], []
    while True:
        actions.append(np.clip(weights @ obs[-1] + bias, -1.0, 1.0).astype(np.float32))
        step = env.step(actions[-1])
        obs.append(step.obs)
        rewards.append(step.reward)
        if step.terminated or step.truncated:
            end = {"terminated": step.terminated, "truncated": step.truncated}
            return Trajectory(np.array(obs), np.array(actions), np.array(rewards, np.float32), **end, seed=seed)


def search(options: Options, env: Env) -> tuple[np.ndarray, np.ndarray]:
    """Return weights and bias of the policy with the best worst return of three episodes."""
    rng, stats = np.random.default_rng(options.seed), ObsStats(env.spec.obs_shape[0])
    weights = np.zeros((env.spec.action_dim, env.spec.obs_shape[0]))
    best_return, best_policy, steps, rounds = -np.inf, stats.unnormalize(weights), 0, 0
    start = time.perf_counter()
    while steps < options.steps:
        directions = rng.normal(size=(options.directions, *weights.shape))
        returns = np.zeros((options.directions, 2))
        for i, direction in enumerate(directions):
            for j, sign in enumerate((1.0, -1.0)):
                policy = stats.unnormalize(weights + sign * options.noise * direction)
                episode = rollout(env, int(rng.integers(2**31)), *policy)
                returns[i, j] = episode.episode_return - options.alive_bonus * len(episode)
                steps += len(episode)
                stats.add(episode.obs[:-1])
        top = np.argsort(-returns.max(axis=1))[: options.best]
        gradient = np.einsum("i,iab->ab", returns[top, 0] - returns[top, 1], directions[top])
        weights += options.step_size / (options.best * max(returns[top].std(), 1e-8)) * gradient
        rounds += 1
        if rounds % 20 == 0:
            policy = stats.unnormalize(weights)
            episodes = [rollout(env, int(rng.integers(2**31)), *policy) for _ in range(3)]
            worst = min(episode.episode_return for episode in episodes)
            if worst > best_return:
                best_return, best_policy = worst, policy
            lengths = " ".join(f"{len(episode)}" for episode in episodes)
            seconds = time.perf_counter() - start
            print(f"{steps:9,} steps  worst of three {worst:7.0f}  lengths {lengths}  {seconds:.0f} s")
    return best_policy


def main() -> None:
    """Search, then record episodes of the best policy that reach the threshold."""
    options = tyro.cli(Options, description=__doc__)
    env = make(options.task)
    policy = search(options, env)
    attempts: list[Trajectory] = []
    kept: list[Trajectory] = []
    while len(kept) < options.num and len(attempts) < 5 * options.num:
        attempts.append(rollout(env, 10_000 + len(attempts), *policy))
        kept += [attempts[-1]] if attempts[-1].episode_return >= options.threshold else []
    provenance = {
        "expert": f"linear policy by augmented random search, {options.steps} steps",
        "threshold": options.threshold,
        "attempts": len(attempts),
        "expert_level": mean_score(attempts)._asdict(),
    }
    print(f"{len(kept)} of {len(attempts)} attempts kept, {mean_score(attempts)}")
    save_demos(DemoDataset(options.task, tuple(kept), provenance), options.out)


if __name__ == "__main__":
    main()
